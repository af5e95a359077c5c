"""Every knob once: its default, unit and meaning. Experiments change a few.

An experiment is a page like `cifar10_simsiam.py`: it states the numbers that a reader
of the paper looks for. Its variants follow from their names:

    baseline      two global crops, no local ones (MoCo: one_way; others: symmetric)
    baseline_400  the same for twice the epochs (400): as many views as multicrop
    multicrop     global and local crops, locals pulled to globals ("LoGo w/o L2L")
    all_pairs     the same crops, every view pulled to every other
    swav_style    all_pairs on the supplement's crop areas for it
    logo          multicrop, and local crops of one image pushed apart
    released      logo with every switch as in the released code (docs/parity.md)
    paper         logo as the paper's text has it (docs/parity.md)
"""

import copy
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

VARIANTS = (
    "baseline",
    "baseline_400",
    "multicrop",
    "all_pairs",
    "swav_style",
    "logo",
    "released",
    "paper",
)
Area = tuple[float, float]


def get_config(method: str, knobs: Mapping[str, Any] | None = None) -> ConfigDict:
    """All knobs of a method, with their defaults.

    Args:
        method: simsiam, moco, byol or swav; or the import path of a class,
            "package.module:Class".
        knobs: the fields of that class that the config sets.
    """
    config = ConfigDict()
    config.seed = 0  # of parameters, crops, order and noise; >= 0
    config.seeds = 1  # trained at once: seed, seed + 1, ...

    config.data = ConfigDict()
    config.data.source = "tfds"  # tfds, folder (of images), npz (arrays), photographs
    config.data.name = "cifar10"  # tfds: the data set
    config.data.path = ""  # folder: of images; npz: of train.npz and test.npz
    config.data.data_dir = ""  # tfds: where prepared; "" is $TFDS_DATA_DIR
    config.data.classes = ""  # folder: a file that lists the sub-folders to keep
    config.data.val_size = 0  # training images held out to replace the test set
    config.data.canvas = 512  # larger images are reduced to it before cuts; pixels
    config.data.loader = "auto"  # on_device, streaming, or auto: on_device if it fits
    config.data.max_corrupt = 0.001  # fraction of images that may be undecodable
    config.data.threads = 0  # that decode at once; 0: one a core, at most 16
    config.data.workers = 0  # processes that decode what is streamed; 0: threads alone
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
    config.encoder.zero_init_residual = False  # blocks start as the identity; resnets
    config.encoder.head = "simsiam"  # moco (no norm), simsiam, or byol (SwAV's too)
    config.encoder.head_layers = 2  # simsiam's: 2 on CIFAR, 3 on ImageNet
    config.encoder.head_hidden = 2048
    config.encoder.embedding_dim = 2048
    config.encoder.dtype = "float32"  # of the computation: float32 or bfloat16
    config.encoder.remat = False  # compute blocks twice, for less memory; resnets only

    # one_way, symmetric, global_targets, all_pairs or summed: who predicts whom
    config.pairing = "global_targets"
    config.batch_norm = "global"  # global, per_device, or split:N groups a device
    # views that update the encoder's batch-norm running statistics: all, or globals
    config.running_stats = "all"

    config.logo = ConfigDict()
    # released: a clipped step on the repulsion before the base's step; joint: a term of
    # the base's loss; none: no repulsion. The variant :released sets every switch
    config.logo.update_kind = "released"
    config.logo.affinity = "regressor"  # what repels: regressor, random or cosine
    config.logo.regressor_loss = "jensen_shannon"  # difference or donsker_varadhan
    config.logo.regressor_width = 256
    config.logo.regressor_depth = 2  # hidden layers
    # joint, separate or eval: batches of its batch norms; layer: layer norm; none.
    # Separate batches and noise on positives alone, as released, are what a regressor
    # learns instead of the crops (docs/results.md, What of LoGo matters)
    config.logo.regressor_norm = "joint"
    config.logo.regressor_learning_rate = 0.03  # x batch_size / 256
    config.logo.regressor_schedule = "constant"  # cosine step constant
    # joint: of the repulsion (the paper's lambda); below 0 it attracts, as a control
    config.logo.weight = 1e-4
    config.logo.clip_ratio = 0.015  # released: gradient norm over the last base step's
    config.logo.reset_norm = False  # released: that norm is forgotten each epoch
    config.logo.noise = 0.3  # norm of the noise on the regressor's pairs
    config.logo.noise_on = "both"  # both positives none
    config.logo.negatives = "flip"  # the batch reversed, or roll: moved at random
    config.logo.both_orders = False  # repel (a, b) and (b, a)
    config.logo.normalize = True  # regressor sees unit vectors
    config.logo.update_momentum_before_repel = (
        False  # released: MoCo's keys move twice a step
    )

    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"  # or lars: of the base method
    config.optimizer.learning_rate = 0.03  # x batch_size / 256
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 5e-4
    config.optimizer.schedule = "cosine"  # step: x0.1 at the milestones; constant
    config.optimizer.milestones = (0.6, 0.8)  # fractions of training; step only
    config.optimizer.warmup_epochs = 0.0  # linear from 0; cosine only

    config.train = ConfigDict()
    config.train.num_epochs = 200
    config.train.num_steps = 0  # wins over num_epochs where it is not 0
    config.train.log_every_steps = 20
    config.train.checkpoint_every_steps = 1000  # also before each kNN and at the end

    config.monitor = ConfigDict()
    config.monitor.knn_every_steps = 1000  # 0: only at the end
    config.monitor.knn = ((20, 0.07), (200, 0.1))  # (neighbours, temperature)
    config.monitor.projector = False  # kNN on embeddings too
    # a linear classifier learns beside the network, on its features, at no cost to it:
    # linear/top1 is of training crops, linear/test_top1 of the test set; needs labels
    config.monitor.linear = False
    config.monitor.resize = 0  # short side before the cut, pixels; 0: whole images
    config.monitor.crop = 0  # side of the centre square that is evaluated, pixels
    config.monitor.train_examples = 0  # bank: so many, evenly spread; 0: all
    config.monitor.test_examples = 0  # queries: so many, evenly spread; 0: all
    # collapse: log says so; stop ends the run; rollback: from the last healthy
    # checkpoint with other crops, at most 3 times; off
    config.monitor.health = "log"
    config.monitor.trivial_baselines = (
        False  # first: kNN on pixels, colours, random network
    )
    config.monitor.wandb = ""  # project at Weights & Biases; "": none

    config.method = ConfigDict(knobs or {})
    config.method.name = method
    if method in METHODS:
        METHODS[method](config)
    config.lock()
    return config


def with_variant(
    config: ConfigDict, variant: str, *, baseline_area: Area = (0.2, 1.0)
) -> ConfigDict:
    """The config of an experiment as a variant changes it; the argument is changed.

    Args:
        config: all knobs.
        variant: one of VARIANTS.
        baseline_area: (min, max) of the baseline's crops, as a fraction of the image.

    Raises:
        ValueError: if the variant is unknown.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r} must be one of {', '.join(VARIANTS)}")
    crops = config.crops
    if variant in ("baseline", "baseline_400"):
        config.pairing = "one_way" if config.method.name == "moco" else "symmetric"
        crops.global_crops = (*crops.global_crops[:2], baseline_area)
        crops.local_crops = (0, *crops.local_crops[1:])
        config.train.num_epochs *= 2 if variant == "baseline_400" else 1
    if variant in ("all_pairs", "swav_style"):
        config.pairing = "all_pairs"
    if variant == "swav_style":
        crops.global_crops = (*crops.global_crops[:2], (0.3, 1.0))
        crops.local_crops = (*crops.local_crops[:2], (0.05, 0.3))
    if variant not in ("logo", "released", "paper"):
        config.logo.update_kind = "none"
    if variant == "released":
        _as_released(config)
    if variant == "paper":
        _as_in_the_paper(config)
    return config


def _as_released(config: ConfigDict) -> None:
    """ztt1024/LoGo-SSL@6f6d113 by its defaults; its MoCo is all there is."""
    config.data.batch_size = 256
    count, size, _ = config.crops.local_crops
    config.crops.local_crops = (count, size, (0.05, 0.4))
    config.pairing = "global_targets"
    config.batch_norm = "per_device"  # on one device split:8, or shuffling does nothing
    config.running_stats = "all"
    config.logo.update_kind = "released"
    config.logo.affinity = "regressor"
    config.logo.regressor_loss = "jensen_shannon"
    config.logo.regressor_width = 256
    config.logo.regressor_depth = 2
    config.logo.regressor_norm = "separate"
    config.logo.regressor_learning_rate = 0.03
    config.logo.regressor_schedule = "constant"
    config.logo.clip_ratio = 0.015
    config.logo.reset_norm = True
    config.logo.noise = 0.3
    config.logo.noise_on = "positives"
    config.logo.negatives = "flip"
    config.logo.both_orders = False
    config.logo.normalize = True
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.03
    config.optimizer.warmup_epochs = 0.0
    config.optimizer.weight_decay = 1e-4
    config.optimizer.schedule = "step"
    if config.method.name == "moco":
        config.logo.update_momentum_before_repel = True
        config.method.encode_unused_views = True
        config.method.shuffle = True
        config.method.queue_size = 4096
        config.method.momentum = 0.999
        config.method.temperature = 0.07


def _as_in_the_paper(config: ConfigDict) -> None:
    """Eqs. 3 to 6 and 9, Algorithm 1; regressor and decay by a reproduction's word."""
    config.optimizer.weight_decay = 1e-4
    config.pairing = "summed"
    config.logo.update_kind = "joint"
    config.logo.regressor_loss = "difference"
    config.logo.regressor_width = 64
    config.logo.regressor_depth = 5
    config.logo.regressor_norm = "separate"
    config.logo.noise_on = "none"
    config.logo.negatives = "roll"


def _simsiam(config: ConfigDict) -> None:
    config.encoder.head = "simsiam"
    config.method.predictor_hidden = 512
    config.method.predictor_fixed_rate = True  # its learning rate does not decay
    config.encoder.zero_init_residual = True


def _moco(config: ConfigDict) -> None:
    config.method.queue_size = 4096
    config.method.momentum = 0.99  # of the key encoder
    config.method.temperature = 0.1
    config.method.shuffle = True  # keys' images change places between norm groups
    config.method.encode_unused_views = False  # as released: for running statistics
    config.encoder.head = "moco"
    config.encoder.head_hidden = 512
    config.encoder.embedding_dim = 128
    config.batch_norm = "split:8"
    config.logo.weight = 5e-4


def _byol(config: ConfigDict) -> None:
    config.method.predictor_hidden = 1024
    config.method.momentum = 0.99  # of the target encoder at first; rises to 1
    config.encoder.head = "byol"
    config.encoder.head_hidden = 1024
    config.encoder.embedding_dim = 256


def _swav(config: ConfigDict) -> None:
    config.method.num_prototypes = 512
    config.method.temperature = 0.1  # of predictions
    config.method.epsilon = 0.05  # of codes
    config.method.iterations = 3  # of Sinkhorn and Knopp
    config.method.queue_size = 0  # earlier images that share in the codes
    config.method.queue_start_epoch = 0.0  # before it they do not
    config.method.frozen_epochs = 1.0  # at first, of the prototypes
    config.encoder.head = "byol"
    config.encoder.embedding_dim = 128
    config.optimizer.name = "lars"
    config.optimizer.weight_decay = 1e-6
    config.optimizer.warmup_epochs = 10.0  # LARS gives fresh biases the full rate
    config.logo.update_kind = "joint"  # the released one compares two SGD steps


METHODS = {"simsiam": _simsiam, "moco": _moco, "byol": _byol, "swav": _swav}

# Names and values of older runs' config.json, and what they are called now.
RENAMED = {
    "data.held_out": "data.val_size",
    "logo.prepare_before_repel": "logo.update_momentum_before_repel",
    "method.encode_idle_views": "method.encode_unused_views",
    "monitor.floors": "monitor.trivial_baselines",
}
RENAMED_VALUES = {"data.loader": {"resident": "on_device", "streamed": "streaming"}}


def complete(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A saved config under today's names, with defaults for the fields it lacks.

    Args:
        saved: a config of an older version; what is no group of fields stays as it is.
    """
    config = copy.deepcopy(dict(saved))
    for old, new in RENAMED.items():
        group, name = old.split(".")
        if isinstance(config.get(group), dict) and name in config[group]:
            config[group][new.split(".")[1]] = config[group].pop(name)
    for field, values in RENAMED_VALUES.items():
        group, name = field.split(".")
        if isinstance(config.get(group), dict) and name in config[group]:
            config[group][name] = values.get(config[group][name], config[group][name])
    method = config.get("method")
    name = method.get("name") if isinstance(method, dict) else None
    if not isinstance(name, str):
        return config
    return _filled(config, get_config(name).to_dict())


def _filled(config: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    for name, default in defaults.items():
        value = config.setdefault(name, default)
        if isinstance(value, dict) and isinstance(default, dict):
            _filled(value, default)
    return config
