"""From a config to typed objects: the only reader of configs, and it reads all of them.

Derived values (steps, scaled learning rates) are computed here, never typed.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from logo_jax import optim, step
from logo_jax.augment.boxes import CropSpec
from logo_jax.augment.policy import AugmentSpec, make_views, prepare_eval
from logo_jax.data import sources
from logo_jax.data.images import ImageSet
from logo_jax.data.resident import Resident
from logo_jax.losses import jensen_shannon, mine_difference
from logo_jax.methods import LoGo, MoCo, SimSiam
from logo_jax.monitor import KnnMonitor, make_encode_with
from logo_jax.networks import heads, resnet
from logo_jax.networks.alexnet import SmallAlexNet
from logo_jax.networks.encoder import Encoder
from logo_jax.networks.norm import BatchNorm
from logo_jax.reader import Reader
from logo_jax.state import BaseMethod, Batch, Method, TrainState
from logo_jax.train import Plan
from logo_jax.views import pair_weights

RESNETS = {
    "resnet10": resnet.resnet10,
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
REGRESSOR_LOSSES = {
    "jensen_shannon": jensen_shannon,
    # the paper's affinity is never negative: the softplus of the score
    "difference": lambda positive, negative: mine_difference(
        jax.nn.softplus(positive), jax.nn.softplus(negative)
    ),
}


@dataclasses.dataclass(frozen=True)
class Description:
    """What a config says, before any data are read.

    Attributes:
        method: with its networks and optimisers.
        encoder: the network that is evaluated.
        crops: the specs of `global_crops` and `local_crops`.
        augment: what is done to each crop.
        plan: of the loop.
        data: arguments of `sources.load`.
        monitor: fields of the kNN monitor.
        batch_size: images a step, over all devices.
        seed: of everything random.
    """

    method: Method
    encoder: Encoder
    crops: dict[str, CropSpec]
    augment: AugmentSpec
    plan: Plan
    data: dict[str, str]
    monitor: dict[str, Any]
    batch_size: int
    seed: int

    def make_batch(self, examples: tuple[jax.Array, jax.Array], epoch: Any) -> Batch:
        """The crops of examples (images, ids) in an epoch."""
        key = jax.random.fold_in(self.key("crops"), epoch)
        return Batch(*make_views(key, *examples, **self.crops, augment=self.augment))

    def init(self) -> TrainState:
        """The state before the first step."""
        blank = (
            jnp.zeros((self.batch_size, spec.count, spec.size, spec.size, 3))
            for spec in self.crops.values()
        )
        return self.method.init(self.key("parameters"), Batch(*blank))

    def key(self, purpose: str) -> jax.Array:
        """The run's random key for "parameters", "crops" or "steps"."""
        keys = jax.random.split(jax.random.key(self.seed), 3)
        return keys[("parameters", "crops", "steps").index(purpose)]


def describe(
    config: Mapping[str, Any], *, num_devices: int, steps_per_epoch: int = 1
) -> Description:
    """What a config says.

    Args:
        config: every field of configs/base.py for its method.
        num_devices: over which a batch is split.
        steps_per_epoch: for schedules that count epochs; any number will do where the
            schedule does not matter.

    Raises:
        ValueError: for a value out of range, an impossible combination, or a field that
            nothing reads; one line.
    """
    read = Reader(config)
    crops = {name: _crop_spec(read.crops, name) for name in CROPS}
    plan = _plan(read, steps_per_epoch)
    norm = _norm(read.batch_norm)
    encoder = _encoder(read.encoder, read.method.name, norm)
    batch_size = _batch_size(read.data, num_devices)
    rate = read.optimizer.learning_rate * batch_size / 256
    tx = _optimizer(read.optimizer, _schedule(read.optimizer, rate, plan))
    counts = [spec.count for spec in crops.values()]
    weights = pair_weights(read.pairing, *counts)
    if read.method.name not in BASES:
        raise ValueError(
            f"config.method.name={read.method.name!r} must be one of {', '.join(BASES)}"
        )
    base = BASES[read.method.name](read, encoder, norm, tx, rate, weights)
    description = Description(
        method=_with_logo(read, base, encoder, norm, rate, plan),
        encoder=encoder,
        crops=crops,
        augment=AugmentSpec(**read.augment.all()),
        plan=plan,
        data={name: getattr(read.data, name) for name in DATA},
        monitor=read.monitor.all(),
        batch_size=batch_size,
        seed=int(read.at_least(0, "seed")),
    )
    if read.unread():
        raise ValueError(f"nothing reads {', '.join(read.unread())}; remove it")
    jax.eval_shape(description.init)  # a queue or crops that do not fit show here
    return description


CROPS = ("global_crops", "local_crops")
DATA = ("source", "name", "path", "data_dir")


def _crop_spec(read: Reader, name: str) -> CropSpec:
    value = getattr(read, name)
    match value:
        case (int(count), int(size), (int() | float(), int() | float()) as scale):
            return CropSpec(
                count=count, size=size, scale=(float(scale[0]), float(scale[1]))
            )
    raise ValueError(
        f"config.crops.{name}={value} must be (crops per image, side in pixels, "
        "(min area, max area)); use e.g. (2, 32, (0.4, 1.0))"
    )


def _batch_size(read: Reader, num_devices: int) -> int:
    batch_size = read.at_least(2, "batch_size")
    if batch_size % num_devices:
        raise ValueError(
            f"config.data.batch_size={batch_size} must be a multiple of the "
            f"{num_devices} devices; use {-(-batch_size // num_devices) * num_devices}"
        )
    return batch_size


def _plan(read: Reader, steps_per_epoch: int) -> Plan:
    train, monitor = read.train, read.monitor
    num_epochs = train.at_least(1, "num_epochs")
    num_steps = train.at_least(0, "num_steps") or num_epochs * steps_per_epoch
    return Plan(
        num_steps=num_steps,
        steps_per_epoch=steps_per_epoch,
        log_every_steps=train.at_least(1, "log_every_steps"),
        checkpoint_every_steps=train.at_least(1, "checkpoint_every_steps"),
        knn_every_steps=monitor.at_least(0, "knn_every_steps"),
        floors=monitor.floors,
    )


def _norm(batch_norm: str) -> resnet.Norm:
    match batch_norm.split(":"):
        case ["global"]:
            return functools.partial(BatchNorm, axis_name=step.AXIS)
        case ["per_device"]:
            return BatchNorm
        case ["split", groups] if groups.isdecimal() and int(groups) > 0:
            return functools.partial(BatchNorm, splits=int(groups))
    raise ValueError(
        f"config.batch_norm={batch_norm!r} must be global, per_device or split:N; "
        "use e.g. split:8"
    )


def _encoder(read: Reader, method: str, norm: resnet.Norm) -> Encoder:
    dtype = read.choice("dtype", DTYPES)
    sizes = read.at_least(1, "head_hidden"), read.at_least(1, "embedding_dim")
    if method == "moco":
        head = heads.moco_head(*sizes, dtype=dtype)
    else:
        layers = read.at_least(2, "head_layers")
        head = heads.simsiam_head(layers, *sizes, norm=norm, dtype=dtype)
    return Encoder(_backbone(read, norm, dtype), head)


def _backbone(read: Reader, norm: resnet.Norm, dtype: Any) -> nn.Module:
    make = read.choice("backbone", RESNETS | {"alexnet": None})
    stem = read.choice("stem", {name: name for name in ("cifar", "imagenet")})
    width, zero_init = read.at_least(1, "width"), read.zero_init_residual
    if make is None:
        return SmallAlexNet(norm=norm, dtype=dtype)
    return make(
        width=width, stem=stem, zero_init_residual=zero_init, norm=norm, dtype=dtype
    )


def _schedule(read: Reader, rate: float, plan: Plan) -> optax.Schedule:
    warmup = round(read.at_least(0, "warmup_epochs") * plan.steps_per_epoch)
    if warmup >= plan.num_steps and warmup:
        raise ValueError(
            f"config.optimizer.warmup_epochs={read.warmup_epochs} must be shorter than "
            f"the training of {plan.num_steps} steps"
        )
    milestones = [round(part * plan.num_steps) for part in read.milestones]
    schedules = {
        "cosine": lambda: optim.cosine_schedule(
            rate, num_steps=plan.num_steps, warmup_steps=warmup
        ),
        "step": lambda: optim.step_schedule(rate, milestones=milestones),
    }
    return read.choice("schedule", schedules)()


def _optimizer(
    read: Reader, rate: optim.ScalarOrSchedule, make: Callable = optim.sgd
) -> optax.GradientTransformationExtraArgs:
    return make(
        rate,
        momentum=read.at_least(0, "momentum"),
        weight_decay=read.at_least(0, "weight_decay"),
    )


def _simsiam(read, encoder, norm, tx, rate, weights) -> SimSiam:
    hidden = read.method.at_least(1, "predictor_hidden")
    dim, dtype = read.encoder.embedding_dim, read.encoder.choice("dtype", DTYPES)
    if read.method.predictor_fixed_rate:
        fixed = _optimizer(read.optimizer, rate)
        tx = optim.by_network({"encoder": tx, "predictor": fixed})
    predictor = heads.simsiam_predictor(hidden, dim, norm=norm, dtype=dtype)
    return SimSiam(encoder, predictor, tx, weights)


def _moco(read, encoder, norm, tx, rate, weights) -> MoCo:
    del norm, rate
    fields = {k: v for k, v in read.method.all().items() if k != "name"}
    return MoCo(encoder, tx, weights, **fields)


LOGO_FIELDS = (
    "affinity",
    "weight",
    "clip_ratio",
    "noise",
    "normalize",
    "prepare_before_repel",
)
BASES = {"simsiam": _simsiam, "moco": _moco}


def _with_logo(
    read: Reader,
    base: BaseMethod,
    encoder: Encoder,
    norm: resnet.Norm,
    rate: float,
    plan: Plan,
) -> Method:
    """The base method, or LoGo around it where local crops repel."""
    logo = read.logo
    regressor = heads.Regressor(
        width=logo.at_least(1, "regressor_width"),
        depth=logo.at_least(1, "regressor_depth"),
        norm=norm if logo.regressor_norm else None,
    )
    batch_scale = read.data.batch_size / 256
    schedule = _schedule(read.optimizer, rate, plan)
    fields = {
        "regressor_loss": logo.choice("regressor_loss", REGRESSOR_LOSSES),
        "regressor_tx": _optimizer(
            read.optimizer, logo.at_least(0, "regressor_learning_rate") * batch_scale
        ),
        "repel_tx": _optimizer(read.optimizer, schedule, optim.clipped_sgd),
    }
    fields |= {name: getattr(logo, name) for name in LOGO_FIELDS}
    if logo.update_kind == "none":
        return base
    return LoGo(
        base=base,
        encoder=encoder,
        regressor=regressor,
        update_kind=logo.update_kind,
        **fields,
    )


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A description with its data on the devices, ready to run.

    Attributes:
        description: what the config says.
        mesh: the devices.
        loader: batches by step number.
        train_step: `(state, examples, epoch) -> (state, metrics)`, compiled.
        monitor: kNN while training; None without labels or a test set.
    """

    description: Description
    mesh: Mesh
    loader: Resident
    train_step: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    monitor: KnnMonitor | None

    def init(self) -> TrainState:
        """The state before the first step, on every device."""
        return step.replicate(jax.jit(self.description.init)(), self.mesh)


def experiment(config: Mapping[str, Any], mesh: Mesh) -> Experiment:
    """Everything a config describes, on the devices of the mesh.

    Raises:
        ValueError: as `describe`, and where data do not fit; before data are read for
            all that does not depend on them.
        FileNotFoundError: where the data are not there.
    """
    num_devices = mesh.devices.size
    first = describe(config, num_devices=num_devices)
    train, test = load_data(first)
    steps_per_epoch = len(train.images) // first.batch_size
    if not steps_per_epoch:
        raise ValueError(
            f"config.data.batch_size={first.batch_size} exceeds the "
            f"{len(train.images)} training images; use a smaller one"
        )
    description = describe(
        config, num_devices=num_devices, steps_per_epoch=steps_per_epoch
    )
    return Experiment(
        description=description,
        mesh=mesh,
        loader=Resident(
            images=step.replicate(train.images, mesh),
            batch_size=description.batch_size,
            seed=description.seed,
            sharding=step.batch_sharding(mesh),
        ),
        train_step=step.make_train_step(
            description.method.update,
            description.make_batch,
            mesh,
            description.key("steps"),
        ),
        monitor=knn_monitor(description, train, test, mesh),
    )


def load_data(description: Description) -> tuple[ImageSet, ImageSet | None]:
    """The training set, and the test set where there is one."""
    train = sources.load(split="train", **description.data)
    if train.labels is None:
        return train, None
    return train, sources.load(split="test", **description.data)


def knn_monitor(
    description: Description, train: ImageSet, test: ImageSet | None, mesh: Mesh
) -> KnnMonitor | None:
    """The kNN monitor a config asks for; None where labels are missing."""
    if train.labels is None or test is None or test.labels is None:
        return None
    fields = description.monitor
    limits = (fields["train_examples"], fields["test_examples"])
    bank, queries = (
        (part.images[: n or None], labels[: n or None])
        for part, labels, n in zip(
            (train, test), (train.labels, test.labels), limits, strict=True
        )
    )
    return KnnMonitor(
        encode_with=make_encode_with(
            description.encoder,
            functools.partial(prepare_eval, spec=description.augment),
            step.batch_sharding(mesh),
            ("backbone", "projector") if fields["projector"] else ("backbone",),
        ),
        train=bank,
        test=queries,
        settings=fields["knn"],
        num_classes=int(max(train.labels.max(), test.labels.max())) + 1,
        batch_size=description.batch_size,
    )
