"""Every knob once: its default, unit and meaning. Experiments change a few.

Variants follow from their names:

    baseline    two global crops, no local ones (MoCo: one_way; SimSiam: symmetric)
    multicrop   global and local crops, locals pulled to globals ("LoGo w/o L2L")
    all_pairs   the same crops, every view pulled to every other
    logo        multicrop, and local crops of one image pushed apart
"""

from ml_collections import ConfigDict

VARIANTS = ("baseline", "multicrop", "all_pairs", "logo")


def get_config(method: str, variant: str = "logo") -> ConfigDict:
    """All knobs of a method ("simsiam" or "moco") in a variant."""
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r} must be one of {', '.join(VARIANTS)}")
    config = ConfigDict()
    config.seed = 0  # of parameters, crops, order and noise; >= 0

    config.data = ConfigDict()
    config.data.source = "tfds"  # tfds, npz (arrays of your own) or photographs
    config.data.name = "cifar10"  # tfds: the data set
    config.data.path = ""  # npz: folder with train.npz and, to evaluate, test.npz
    config.data.data_dir = ""  # tfds: where prepared; "" is $TFDS_DATA_DIR
    config.data.batch_size = 512  # images a step, over all devices

    # (crops per image, side in pixels, (min, max) area as a fraction of the image)
    config.crops = ConfigDict()
    config.crops.global_crops = (2, 32, (0.4, 1.0))
    config.crops.local_crops = (2, 32, (0.08, 0.6))

    config.augment = ConfigDict()
    config.augment.flip_prob = 0.5
    config.augment.jitter = (0.4, 0.4, 0.4, 0.1)  # brightness contrast saturation hue
    config.augment.jitter_prob = 0.8
    config.augment.grayscale_prob = 0.2
    config.augment.blur_prob = 0.0
    config.augment.blur_sigma = (0.1, 2.0)  # pixels
    config.augment.mean = (0.4914, 0.4822, 0.4465)  # of channels in [0, 1]
    config.augment.std = (0.2023, 0.1994, 0.2010)

    config.encoder = ConfigDict()
    config.encoder.backbone = "resnet18"  # resnet10 18 34 50, alexnet
    config.encoder.stem = "cifar"  # cifar (3x3, no pool) or imagenet; resnets only
    config.encoder.width = 64  # channels of the first stage; resnets only
    config.encoder.dtype = "float32"  # of the computation: float32 or bfloat16

    config.pairing = "global_targets"  # one_way symmetric global_targets all_pairs
    config.batch_norm = "global"  # global, per_device, or split:N groups a device

    config.logo = ConfigDict()
    config.logo.update_kind = "released"  # released, joint, or none: no repulsion
    config.logo.affinity = "regressor"  # what repels: regressor or cosine
    config.logo.regressor_loss = "jensen_shannon"  # or difference (relaxed MINE)
    config.logo.regressor_width = 256
    config.logo.regressor_depth = 2  # hidden layers
    config.logo.regressor_norm = True  # batch norm after each
    config.logo.regressor_learning_rate = 0.03  # x batch_size / 256; constant
    config.logo.weight = 1e-4  # joint: of the repulsion (the paper's lambda)
    config.logo.clip_ratio = 0.015  # released: gradient norm over the last base step's
    config.logo.noise = 0.3  # norm of the noise on positive pairs
    config.logo.normalize = True  # regressor sees unit vectors
    config.logo.prepare_before_repel = False  # MoCo's key encoder moves twice a step

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 0.03  # x batch_size / 256
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 5e-4
    config.optimizer.schedule = "cosine"  # cosine, or step: x0.1 at the milestones
    config.optimizer.milestones = (0.6, 0.8)  # fractions of training; step only
    config.optimizer.warmup_epochs = 0.0  # linear from 0; cosine only

    config.train = ConfigDict()
    config.train.num_epochs = 200
    config.train.num_steps = 0  # wins over num_epochs where it is not 0
    config.train.log_every_steps = 20
    config.train.checkpoint_every_steps = 1000

    config.monitor = ConfigDict()
    config.monitor.knn_every_steps = 1000  # 0: only at the end
    config.monitor.knn = ((20, 0.07), (200, 0.1))  # (neighbours, temperature)
    config.monitor.projector = False  # kNN on embeddings too
    config.monitor.train_examples = 0  # bank: the first so many; 0: all
    config.monitor.test_examples = 0  # queries: the first so many; 0: all
    config.monitor.floors = False  # first: kNN on pixels, colours, random network

    {"simsiam": _simsiam, "moco": _moco}[method](config, variant)
    if variant == "baseline":
        config.crops.local_crops = (0, 32, (0.08, 0.6))
    if variant == "all_pairs":
        config.pairing = "all_pairs"
    if variant != "logo":
        config.logo.update_kind = "none"
    config.lock()
    return config


def _simsiam(config: ConfigDict, variant: str) -> None:
    config.method = ConfigDict()
    config.method.name = "simsiam"
    config.method.predictor_hidden = 512
    config.method.predictor_fixed_rate = True  # its learning rate does not decay
    config.encoder.zero_init_residual = True
    config.encoder.head_layers = 2  # 3 on ImageNet
    config.encoder.head_hidden = 2048
    config.encoder.embedding_dim = 2048
    if variant == "baseline":
        config.pairing = "symmetric"
        config.crops.global_crops = (2, 32, (0.2, 1.0))


def _moco(config: ConfigDict, variant: str) -> None:
    config.method = ConfigDict()
    config.method.name = "moco"
    config.method.queue_size = 4096
    config.method.momentum = 0.99  # of the key encoder
    config.method.temperature = 0.1
    config.method.shuffle = True  # keys' images change places between norm groups
    config.method.encode_idle_views = False  # as released: for running statistics
    config.encoder.zero_init_residual = False
    config.encoder.head_hidden = 512
    config.encoder.embedding_dim = 128
    config.batch_norm = "split:8"
    if variant == "baseline":
        config.pairing = "one_way"
        config.crops.global_crops = (2, 32, (0.08, 1.0))
