"""What a config says, before any data are read."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp

from logo_jax.augment.multi_crop import AugmentSpec, make_views
from logo_jax.augment.random_crop import CropSpec
from logo_jax.data.loader import Examples
from logo_jax.experiment import networks, schema
from logo_jax.experiment.data import DataSpec, make_data_spec
from logo_jax.experiment.methods import MethodParts, make_method
from logo_jax.experiment.reader import Reader
from logo_jax.methods.base import Batch, Method, TrainState
from logo_jax.methods.pairing import pair_weights
from logo_jax.networks.encoder import Encoder
from logo_jax.training.collapse import POLICIES
from logo_jax.training.schedule import TrainingSchedule

CROPS = ("global_crops", "local_crops")
PURPOSES = ("parameters", "crops", "steps")


@dataclasses.dataclass(frozen=True)
class ExperimentSpec:
    """What a config says, before any data are read.

    Attributes:
        method: with its networks and optimisers.
        encoder: the network that is evaluated.
        crops: the specs of `global_crops` and `local_crops`.
        augment: what is done to each crop.
        plan: of the loop; its seeds are of everything random, and several are a
            leading axis of the train state, of keys and of examples.
        data: where images are, and how they come to the devices.
        monitor: fields of the kNN monitor, and the policy on `health`.
        batch_size: images a step, over all devices; of each seed.
    """

    method: Method
    encoder: Encoder
    crops: dict[str, CropSpec]
    augment: AugmentSpec
    plan: TrainingSchedule
    data: DataSpec
    monitor: dict[str, Any]
    batch_size: int

    def make_batch(self, key: jax.Array, examples: Examples, epoch: Any) -> Batch:
        """The crops of examples in an epoch; the key is the run's."""
        epoch_key = jax.random.fold_in(key, epoch)
        *pixels, labels = examples
        views = make_views(epoch_key, *pixels, **self.crops, augment=self.augment)
        return Batch(*views, labels)

    def init(self, keys: jax.Array | None = None) -> TrainState:
        """The state before the first step; of several seeds, with a leading axis.

        Args:
            keys: `self.keys("parameters")`, which is the default too. Given to a
                compiled call, they are no part of its program, which all seeds share.
        """
        blank = Batch(
            *(
                jnp.zeros((self.batch_size, spec.count, spec.size, spec.size, 3))
                for spec in self.crops.values()
            )
        )
        keys = self.keys("parameters") if keys is None else keys
        if len(self.plan.seeds) == 1:
            return self.method.init(keys, blank)
        return jax.vmap(lambda key: self.method.init(key, blank))(keys)

    def first_state(self) -> TrainState:
        """What `init` returns, compiled; the program is that of every seed."""
        return jax.jit(self.init)(self.keys("parameters"))

    def of_first_seed(self) -> Self:
        """The same of one seed alone."""
        plan = dataclasses.replace(self.plan, seeds=self.plan.seeds[:1])
        return dataclasses.replace(self, plan=plan)

    def keys(self, *purposes: str) -> jax.Array:
        """The run's random keys for some of "parameters", "crops" and "steps".

        One key, or [purposes]; of several seeds with a leading axis.
        """
        rows = [PURPOSES.index(purpose) for purpose in purposes]
        of_seeds = [
            jax.random.split(jax.random.key(seed), len(PURPOSES))
            for seed in self.plan.seeds
        ]
        chosen = jnp.stack(of_seeds)[:, jnp.array(rows)]
        if len(purposes) == 1:
            chosen = chosen[:, 0]
        return chosen if len(self.plan.seeds) > 1 else chosen[0]


def make_spec(
    config: Mapping[str, Any],
    *,
    num_devices: int,
    steps_per_epoch: int = 1,
    num_classes: int = 0,
) -> ExperimentSpec:
    """What a config says.

    Args:
        config: every field of configs/base.py for its method.
        num_devices: over which a batch is split.
        steps_per_epoch: for schedules that count epochs; any number will do where the
            schedule does not matter.
        num_classes: of the training images' labels, for `monitor.linear`; 0: without
            its classifier, whatever the config says: enough for all but training.

    Raises:
        ValueError: for a value out of range, an impossible combination, or a field that
            nothing reads; one line.
    """
    schema.check(config)
    read = Reader(config)
    crops = {name: _crop_spec(read.crops, name) for name in CROPS}
    _require_one_size(read, [spec.size for spec in crops.values() if spec.count])
    plan = _plan(read, steps_per_epoch)
    norm = networks.make_norm(read.batch_norm)
    encoder = networks.make_encoder(read.encoder, norm)
    batch_size = _batch_size(read, num_devices)
    counts = [spec.count for spec in crops.values()]
    parts = MethodParts(
        read=read,
        norm=norm,
        encoder=encoder,
        plan=plan,
        rate=read.optimizer.learning_rate * batch_size / 256,
        pair_weights=pair_weights(read.pairing, *counts),
        num_classes=num_classes,
    )
    description = ExperimentSpec(
        method=make_method(parts),
        encoder=encoder,
        crops=crops,
        augment=AugmentSpec(**read.augment.all()),
        plan=plan,
        data=make_data_spec(read.data),
        monitor=_monitor(read.monitor),
        batch_size=batch_size,
    )
    if read.unread():
        raise ValueError(f"nothing reads {', '.join(read.unread())}; remove it")
    return description


def _crop_spec(read: Reader, name: str) -> CropSpec:
    count, size, scale = getattr(read, name)
    return CropSpec(count=count, size=size, scale=scale)


def _require_one_size(read: Reader, sides: list[int]) -> None:
    """AlexNet's first dense layer takes images of one size."""
    sides = [*sides, read.monitor.crop or sides[0]]
    if read.encoder.backbone == "alexnet" and (len(set(sides)) > 1 or sides[0] < 16):
        raise ValueError(
            f"config.encoder.backbone='alexnet' needs one size, 16 px or more, for all "
            f"crops and config.monitor.crop, not {sides}; use e.g. 64 for all"
        )


def _batch_size(read: Reader, num_devices: int) -> int:
    batch_size = read.data.batch_size
    groups = num_devices * networks.norm_groups(read.batch_norm)
    if batch_size % groups:
        raise ValueError(
            f"config.data.batch_size={batch_size} must be a multiple of {groups} "
            f"({num_devices} devices, batch_norm={read.batch_norm}); use "
            f"{-(-batch_size // groups) * groups}"
        )
    return batch_size


def _monitor(read: Reader) -> dict[str, Any]:
    resize, crop = read.resize, read.crop
    if crop > resize or (resize and not crop):
        raise ValueError(
            f"config.monitor.crop={crop} must be between 1 and config.monitor.resize="
            f"{resize}, or both 0 for whole images; use e.g. 256 and 224"
        )
    read.one_of("health", POLICIES)
    return read.all()


def _plan(read: Reader, steps_per_epoch: int) -> TrainingSchedule:
    train, monitor = read.train, read.monitor
    first_seed = read.seed
    num_epochs = train.num_epochs
    num_steps = train.num_steps or num_epochs * steps_per_epoch
    return TrainingSchedule(
        num_steps=num_steps,
        steps_per_epoch=steps_per_epoch,
        log_every_steps=train.log_every_steps,
        checkpoint_every_steps=train.checkpoint_every_steps,
        knn_every_steps=monitor.knn_every_steps,
        trivial_baselines=monitor.trivial_baselines,
        seeds=tuple(range(first_seed, first_seed + read.seeds)),
    )
