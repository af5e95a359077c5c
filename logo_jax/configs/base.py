"""All config fields with their defaults, units and meanings; experiments change some.

The config of an experiment is a file like `cifar10_simsiam.py`, which states the main
numbers of the paper's experiment. Each experiment has these variants:

    baseline      two global crops, no local crops; the pairing is one_way for MoCo and
                  symmetric for other methods
    baseline_400  baseline for twice the epochs (400), so that the number of views is
                  that of multicrop
    multicrop     global and local crops; local crops are attracted to global crops
                  ("LoGo w/o L2L" in the paper)
    all_pairs     the same crops; every view is attracted to every other view
    swav_style    all_pairs with the crop areas of the supplement's "SwAV-style"
    logo          multicrop, and local crops of an image repel each other
    released      logo with all fields as in the released code (docs/parity.md)
    paper         logo as described in the paper's text (docs/parity.md)

In all config files, the paper is LoGo (https://arxiv.org/abs/2203.17205), the
supplement is its supplementary material, and the released code is ztt1024/LoGo-SSL. The
glossary (docs/glossary.md) defines terms such as pairing, regressor and repulsion.

If `auto` is True, as in folder.py, a field in OPEN may have a value that leaves it
open, usually -1: it is then chosen from the images and the memory when the run begins,
by the rules in experiment/defaults.py, and config.json has the value that was chosen.
In other configs these values are errors.
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

AUTO = -1  # value of a number that is chosen when the run begins
# Fields that may be left open: numbers and the sides of crops by AUTO, the stem by
# "auto", the settings of kNN by ().
OPEN = (
    "data.canvas",
    "data.batch_size",
    "crops.global_crops",
    "crops.local_crops",
    "augment.blur_prob",
    "encoder.stem",
    "method.queue_size",
    "train.num_epochs",
    "train.log_every_steps",
    "train.checkpoint_every_steps",
    "monitor.knn_every_steps",
    "monitor.knn",
    "monitor.resize",
    "monitor.crop",
    "monitor.train_examples",
    "monitor.test_examples",
)


def is_open(field: str, value: Any) -> bool:
    """Whether a field of this value is chosen when the run begins.

    >>> is_open("crops.local_crops", (2, AUTO, (0.08, 0.4)))
    True
    """
    match field, value:
        case "encoder.stem", _:
            return value == "auto"
        case "monitor.knn", _:
            return value == ()
        case (("crops.global_crops" | "crops.local_crops"), _):
            return isinstance(value, tuple) and value[1:2] == (AUTO,)
    kinds = (int, float) if field == "augment.blur_prob" else int
    return isinstance(value, kinds) and value == AUTO


def get_config(method: str, knobs: Mapping[str, Any] | None = None) -> ConfigDict:
    """Returns a config with all fields of a method and their defaults.

    Args:
        method: simsiam, moco, byol or swav; or the import path of a class,
            "package.module:Class".
        knobs: values by name for the fields of that class that the config sets.
    """
    config = ConfigDict()
    config.seed = 0  # seed of initialization, crops, order of images, noise; >= 0
    config.seeds = 1  # number of seeds trained in parallel: seed, seed + 1, ...
    config.auto = False  # whether fields in OPEN may be left open, to be chosen

    config.data = ConfigDict()
    # tfds, folder (of images, or a list of them), npz (arrays in files), huggingface (a
    # saved data set), canvases (written by prepare --canvas), photographs (of the
    # quickstart), or arrays (passed to logo_jax.pretrain, which also sets data.name)
    config.data.source = "tfds"
    config.data.name = "cifar10"  # tfds: name of the data set
    # folder: the folder, or several divided by commas; npz: folder of train.npz and
    # val.npz; huggingface: folder of a saved data set; canvases: folder of them
    config.data.path = ""
    # folder: a table of images, .csv, .tsv, .txt, .jsonl or .parquet, or several, with
    # commas between; paths in it start from data.path, or from the folder of the table
    config.data.list = ""
    # names of columns, such as "image=photo,label=breed,split=part"; "": usual names.
    # "label=cat+dog": columns of classes, of which one is 1 and the others are 0
    config.data.columns = ""
    # folder: auto, to recognize lists and layouts of known data sets by their names, or
    # folders, to read the sub-folders alone
    config.data.layout = "auto"
    config.data.data_dir = ""  # tfds: folder of prepared data; "": $TFDS_DATA_DIR
    config.data.classes = ""  # folder: a file that lists the sub-folders to use
    # folder: a regular expression whose group is the class in the path of a file, such
    # as "^([a-z]+)" for cat.0.jpg; "": the classes are the sub-folders
    config.data.label_pattern = ""
    config.data.val_size = 0  # training images held out to replace the test set
    config.data.canvas = 512  # larger images are reduced to this size first; pixels
    config.data.loader = "auto"  # on_device, streaming, or auto: on_device if it fits
    # allowed fraction of images that cannot be decoded; above 0, one of 20 is allowed
    config.data.max_corrupt = 0.001
    config.data.max_pixels = 178_956_970  # a larger image is not decoded
    # 16-bit gray images: bits that their values use; 2**bit_depth - 1 becomes white
    config.data.bit_depth = 16
    # Channels of the images: 3 is red, green, blue; others are used as they are stored,
    # and without changes of saturation and hue and without grayscale (docs/data.md).
    config.data.channels = 3
    # uint8, uint16 or float32: the type of the values, which are kept. auto: 8 bits for
    # 3 channels; for other channels, or if a value_range or a reader is given, the type
    # of the images, which is stored with the run
    config.data.dtype = "auto"
    # values that become 0 and 1, such as (0, 4095); values outside are clipped. (): 0
    # and 255 for 8 bits, otherwise measured when the run begins, and stored with it
    config.data.value_range = ()
    # import path, "package.module:function", of a function from the path of a file, or
    # from the bytes of an image, to an array [h, w] or [h, w, c]; "": by the format
    config.data.reader = ""
    config.data.threads = 0  # decoding threads; 0: one per core, at most 16
    config.data.workers = 0  # decoding processes for streaming; 0: only threads
    config.data.batch_size = 512  # images per step over all devices

    # (crops per image, side in pixels, (min, max) area as a fraction of the image)
    config.crops = ConfigDict()
    config.crops.global_crops = (2, 32, (0.4, 1.0))
    config.crops.local_crops = (2, 32, (0.08, 0.6))
    config.crops.aspect_ratio = (3 / 4, 4 / 3)  # (min, max) width / height of a crop

    # A change of probability 0 costs nothing. Order: jitter, grayscale, blur, flips,
    # solarization, turns, the change of one's own, normalization.
    config.augment = ConfigDict()
    config.augment.flip_prob = 0.5  # left to right
    config.augment.vertical_flip_prob = 0.0  # top to bottom
    config.augment.quarter_turns_prob = 0.0  # by 0, 90, 180 or 270 degrees, at random
    config.augment.jitter = (0.4, 0.4, 0.4, 0.1)  # brightness contrast saturation hue
    config.augment.jitter_prob = 0.8
    config.augment.grayscale_prob = 0.2
    config.augment.blur_prob = 0.0
    config.augment.blur_sigma = (0.1, 2.0)  # pixels
    config.augment.solarize_prob = 0.0  # values from 0.5 upward are inverted
    # The second global crop can be augmented differently: each field above may have
    # another value for it. None: the same value. Local crops use the values above.
    config.augment.second = ConfigDict(dict.fromkeys(config.augment))
    # a change of one's own: import path, "package.module:function", of a function (key,
    # image) -> image, for float32 images [h, w, 3] with values in [0, 1]; "": none
    config.augment.extra = ""
    # mean and standard deviation of each channel in [0, 1]; (): measured when the run
    # begins, and stored with it, as for other channels than 3 if they are not given
    config.augment.mean = (0.4914, 0.4822, 0.4465)
    config.augment.std = (0.2023, 0.1994, 0.2010)

    config.encoder = ConfigDict()
    # resnet10, 18, 34, 50, 101 or 152, alexnet, vit_mini, vit_tiny or vit_small; or, as
    # described in docs/extending.md, the import path of a module of your own
    config.encoder.backbone = "resnet18"
    config.encoder.stem = "cifar"  # cifar (3x3, no pooling) or imagenet; resnets only
    # channels of the first stage of resnets, or of each attention head of vits
    config.encoder.width = 64
    config.encoder.zero_init_residual = False  # blocks start as the identity; resnets
    config.encoder.patch = 4  # side of the patches in pixels; vits only
    config.encoder.frozen_patches = False  # patches have a random projection; vits only
    config.encoder.head = "simsiam"  # moco (no norm), simsiam, or byol (also for SwAV)
    config.encoder.head_layers = 2  # head simsiam only: 2 on CIFAR, 3 on ImageNet
    config.encoder.head_hidden = 2048
    config.encoder.embedding_dim = 2048
    config.encoder.dtype = "float32"  # dtype of the computation: float32 or bfloat16
    # starting weights of the backbone: folder of a run, a name of the zoo, or what
    # convert reads without --unpickle
    config.encoder.weights = ""
    config.encoder.weights_record = ""  # set at the start: what the weights are
    config.encoder.remat = False  # recompute blocks to save memory; resnets and vits

    # which views predict which: one_way, symmetric, global_targets, all_pairs or summed
    config.pairing = "global_targets"
    config.batch_norm = "global"  # global, per_device, or split:N groups per device
    # views that update the running statistics of the encoder's batch norms: all or
    # globals
    config.running_stats = "all"

    config.logo = ConfigDict()
    # released: a clipped step on the repulsion before the step of the base method;
    # joint: the repulsion is a term of the base method's loss; none: no repulsion. The
    # variant :released sets all fields as in the released code.
    config.logo.update_kind = "released"
    config.logo.affinity = "regressor"  # regressor, random or cosine
    config.logo.regressor_loss = "jensen_shannon"  # or difference or donsker_varadhan
    config.logo.regressor_width = 256
    config.logo.regressor_depth = 2  # hidden layers
    # pairs that the regressor's batch norms normalize together: joint, separate or eval
    # (methods/affinity.py); layer: layer norm; none: no norm. With separate batches, or
    # with noise on positives only, as in the released code, the regressor learns these
    # differences instead of the similarity of crops (docs/results.md).
    config.logo.regressor_norm = "joint"
    config.logo.regressor_learning_rate = 0.03  # x batch_size / 256
    config.logo.regressor_schedule = "constant"  # cosine, step or constant
    # joint: weight of the repulsion (the paper's lambda); a negative weight attracts
    # local crops, as a control experiment
    config.logo.weight = 1e-4
    # released: maximum ratio of the repulsion's gradient norm to the gradient norm of
    # the last base step
    config.logo.clip_ratio = 0.015
    config.logo.reset_norm = False  # released: reset the last norm to 0 each epoch
    config.logo.noise = 0.3  # norm of the noise on the regressor's pairs
    config.logo.noise_on = "both"  # pairs with noise: both, positives or none
    config.logo.negatives = "flip"  # flip: reversed batch; roll: random shift of it
    config.logo.both_orders = False  # repel (a, b) and also (b, a)
    config.logo.normalize = True  # normalize the regressor's inputs to unit length
    # released: also update MoCo's key encoder before the repulsion, so that it is
    # updated twice per step
    config.logo.update_momentum_before_repel = False

    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"  # of the base method: sgd, lars or adamw
    config.optimizer.learning_rate = 0.03  # x batch_size / 256
    config.optimizer.momentum = 0.9  # beta1 of adamw
    config.optimizer.weight_decay = 5e-4  # of adamw: decoupled, not for the regressor
    config.optimizer.schedule = "cosine"  # or step (x0.1 at milestones) or constant
    config.optimizer.milestones = (0.6, 0.8)  # fractions of training; step only
    config.optimizer.warmup_epochs = 0.0  # linear warm-up from 0; cosine only

    config.train = ConfigDict()
    config.train.num_epochs = 200
    config.train.epochs_factor = 1  # if the number of epochs is chosen: multiplies it
    config.train.num_steps = 0  # if not 0, used instead of num_epochs
    config.train.start_from = (
        ""  # folder of a run whose newest state is the first state
    )
    config.train.start_record = ""  # set at the start: what that state is
    # compute a step in this many parts of each device's images, one after another, to
    # save memory; the update is that of the whole batch. If batch_norm is global or
    # per_device, the step is that of batch_norm=split:K for K parts.
    config.train.accumulate = 1
    # keep a moving average of the encoder, too: fraction of it that each step keeps,
    # e.g. 0.999, for an average over the last 1,000 steps or so; 0: none
    config.train.ema = 0.0
    config.train.log_every_steps = 20
    config.train.checkpoint_every_steps = 1000  # also before each kNN and at the end
    # Which checkpoints are kept; the others are deleted.
    config.train.keep_newest = 3  # number of newest ones
    config.train.keep_every_steps = 0  # those of multiples of it, saved too; 0: none
    # metric whose highest value among the evaluated steps keeps its checkpoint, e.g.
    # "knn/k20_t0.07/top1"; "": none
    config.train.keep_best = ""
    # False: the folder is not locked, for file systems without locks; then nothing
    # prevents two processes from training in one folder and damaging the run
    config.train.lock = True

    config.monitor = ConfigDict()
    config.monitor.knn_every_steps = 1000  # 0: only at the end
    config.monitor.knn = ((20, 0.07), (200, 0.1))  # (neighbors, temperature)
    config.monitor.projector = False  # evaluate kNN on embeddings, too
    # train a linear classifier on the network's features without changing the network;
    # linear/top1 is the accuracy on training crops and linear/test_top1 that on the
    # test set; needs labels
    config.monitor.linear = False
    config.monitor.resize = 0  # short side before cropping, pixels; 0: whole images
    config.monitor.crop = 0  # side of the center crop for evaluation, pixels
    config.monitor.train_examples = 0  # size of the bank, evenly spaced; 0: all
    config.monitor.test_examples = 0  # number of queries, evenly spaced; 0: all
    # if the run collapses: log reports it; stop ends the run; rollback restarts from
    # the last healthy checkpoint with other crops, at most 3 times; off: no check
    config.monitor.health = "log"
    # print kNN of raw pixels, mean colors and the untrained network with the first kNN
    config.monitor.trivial_baselines = False
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
    """Changes the config of an experiment in place to a variant, and returns it.

    Args:
        config: config of an experiment.
        variant: one of VARIANTS.
        baseline_area: (min, max) area of the baseline's crops, as a fraction of the
            image.

    Raises:
        ValueError: if the variant is unknown.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r} must be one of {', '.join(VARIANTS)}")
    crops = config.crops
    if variant in ("baseline", "baseline_400"):
        _as_baseline(config, baseline_area, 2 if variant == "baseline_400" else 1)
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


def _as_baseline(config: ConfigDict, area: Area, times: int) -> None:
    """Leaves out local crops, and trains for a number of times the epochs."""
    config.pairing = "one_way" if config.method.name == "moco" else "symmetric"
    crops, train = config.crops, config.train
    crops.global_crops = (*crops.global_crops[:2], area)
    crops.local_crops = (0, *crops.local_crops[1:])
    if is_open("train.num_epochs", train.num_epochs):
        train.epochs_factor = times
    else:
        train.num_epochs *= times


def _as_released(config: ConfigDict) -> None:
    """Sets the defaults of ztt1024/LoGo-SSL@6f6d113, which has MoCo only."""
    config.data.batch_size = 256
    count, size, _ = config.crops.local_crops
    config.crops.local_crops = (count, size, (0.05, 0.4))
    config.pairing = "global_targets"
    # on one device use split:8, because shuffling has no effect on a single group
    config.batch_norm = "per_device"
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
    """Sets the fields for the paper's Eqs. 3 to 6 and 9 and Algorithm 1.

    The size of the regressor and the weight decay are those of a reproduction.
    """
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
    config.method.predictor_fixed_rate = True  # constant learning rate of the predictor
    config.encoder.zero_init_residual = True


def _moco(config: ConfigDict) -> None:
    config.method.queue_size = 4096
    config.method.momentum = 0.99  # momentum of the key encoder
    config.method.temperature = 0.1
    config.method.shuffle = True  # shuffles the keys' images between norm groups
    config.method.encode_unused_views = False  # released: True, for running statistics
    config.encoder.head = "moco"
    config.encoder.head_hidden = 512
    config.encoder.embedding_dim = 128
    config.batch_norm = "split:8"
    config.logo.weight = 5e-4


def _byol(config: ConfigDict) -> None:
    config.method.predictor_hidden = 1024
    config.method.momentum = 0.99  # initial momentum of the target encoder; ends at 1
    config.encoder.head = "byol"
    config.encoder.head_hidden = 1024
    config.encoder.embedding_dim = 256


def _swav(config: ConfigDict) -> None:
    config.method.num_prototypes = 512
    config.method.temperature = 0.1  # temperature of the predictions
    config.method.epsilon = 0.05  # entropy regularization of the codes
    config.method.iterations = 3  # iterations of Sinkhorn-Knopp
    config.method.queue_size = 0  # number of earlier embeddings used for the codes
    config.method.queue_start_epoch = 0.0  # epoch from which the queue is used
    config.method.frozen_epochs = 1.0  # initial epochs with frozen prototypes
    config.encoder.head = "byol"
    config.encoder.embedding_dim = 128
    config.optimizer.name = "lars"
    config.optimizer.weight_decay = 1e-6
    config.optimizer.warmup_epochs = 10.0  # LARS applies the full rate to new biases
    config.logo.update_kind = "joint"  # the released update needs SGD, not LARS


# Fields that change nothing that is learned: a resumed run may have other values. That
# the weights are the same is compared by their records.
MAY_CHANGE = (
    "data.path",
    "data.list",
    "data.data_dir",
    "data.loader",
    "data.max_corrupt",
    "data.threads",
    "data.workers",
    "encoder.weights",
    "train.start_from",
    "train.ema",
    "train.log_every_steps",
    "train.checkpoint_every_steps",
    "train.keep_newest",
    "train.keep_every_steps",
    "train.keep_best",
    "train.lock",
    "monitor.knn_every_steps",
    "monitor.knn",
    "monitor.projector",
    "monitor.train_examples",
    "monitor.test_examples",
    "monitor.trivial_baselines",
    "monitor.wandb",
)
# Fields with paths, which are absolute in the config.json of a run.
PATHS = (
    "data.path",
    "data.list",
    "data.data_dir",
    "data.classes",
    "encoder.weights",
    "train.start_from",
)


def may_change(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the fields that may have another value if a run of this config resumes.

    With `batch_norm=split:N` they include the number of parts of a step, because
    different numbers give the same step up to rounding; but not for a backbone of the
    user's own, whose batch norm may have the statistics of a part.
    """
    split = str(config.get("batch_norm")).startswith("split:")
    encoder = config.get("encoder")  # of a probe, it is the name of an encoder
    own = isinstance(encoder, Mapping) and ":" in str(encoder.get("backbone"))
    return (*MAY_CHANGE, "train.accumulate") if split and not own else MAY_CHANGE


METHODS = {"simsiam": _simsiam, "moco": _moco, "byol": _byol, "swav": _swav}

# Fields that are measured on the images if they have these values. config.json has what
# was measured.
MEASURED = {
    "data.dtype": "auto",
    "data.value_range": (),
    "augment.mean": (),
    "augment.std": (),
}

# Names and values in config.json of older versions, and the present ones.
RENAMED = {
    "data.held_out": "data.val_size",
    "logo.prepare_before_repel": "logo.update_momentum_before_repel",
    "method.encode_idle_views": "method.encode_unused_views",
    "monitor.floors": "monitor.trivial_baselines",
}
RENAMED_VALUES = {"data.loader": {"resident": "on_device", "streamed": "streaming"}}


def complete(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a saved config with present names, and defaults for missing fields.

    Args:
        saved: config of an older version; entries that are not groups of fields are not
            changed.
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
