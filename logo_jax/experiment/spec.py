"""The objects that a config describes, before any image is decoded."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp

from logo_jax.augment.multi_crop import make_views
from logo_jax.augment.random_crop import CropSpec
from logo_jax.data.loader import Examples
from logo_jax.experiment import networks
from logo_jax.experiment.augmentation import load_extra, require_extra
from logo_jax.experiment.config import Config, parse
from logo_jax.experiment.methods import MethodParts, make_method
from logo_jax.methods.average import moved, with_average
from logo_jax.methods.base import Batch, Method, Metrics, TrainState
from logo_jax.methods.pairing import pair_weights
from logo_jax.networks.encoder import Encoder
from logo_jax.parallel.keys import make_key
from logo_jax.parallel.program_cache import kept
from logo_jax.training.schedule import TrainingSchedule

PURPOSES = ("parameters", "crops", "steps")


@dataclasses.dataclass(frozen=True)
class ExperimentSpec:
    """The objects that a config describes, before any image is decoded.

    Attributes:
        config: the typed config.
        method: the method, with its networks and optimizers.
        encoder: the network that is evaluated.
        schedule: length of training, intervals and seeds. With several seeds, the train
            state, keys and examples have a leading axis of seeds.
        num_classes: number of classes of the online linear classifier; 0 without one.
    """

    config: Config
    method: Method
    encoder: Encoder
    schedule: TrainingSchedule
    num_classes: int = 0

    @property
    def crops(self) -> dict[str, CropSpec]:
        """The specs of `global_crops` and `local_crops`."""
        return self.config.crops.specs

    def make_batch(self, key: jax.Array, examples: Examples, epoch: Any) -> Batch:
        """Returns the crops of examples in an epoch, given the run's crop key."""
        epoch_key = jax.random.fold_in(key, epoch)
        *pixels, labels = examples
        augment = self.config.augment
        views = make_views(
            epoch_key,
            *pixels,
            **self.crops,
            augment=augment.policy,
            second=augment.second,
            extra=load_extra(augment),
        )
        return Batch(*views, labels)

    def check(self, num_devices: int) -> TrainState:
        """Returns the shapes of the state before the first step, after some checks.

        Args:
            num_devices: number of devices over which a batch is split.

        Raises:
            ValueError: if a queue or the crops do not fit the batch, if the change of
                one's own in the augmentation is not usable, or if batch norm has groups
                of one image.
        """
        sides = [spec.size for spec in self.crops.values() if spec.count]
        require_extra(self.config.augment, sides, self.config.data.channels)
        state = self.shapes
        _require_groups(self.config, num_devices)
        return state

    @functools.cached_property
    def shapes(self) -> TrainState:
        """The shapes and types of the state before the first step."""
        return self.compiled_init.eval_shape(self.keys("parameters"))

    @functools.cached_property
    def compiled_init(self) -> Any:
        """`init` compiled; it is traced once, for the shapes and the first state."""
        first_device = jax.devices()[:1]
        return kept(jax.jit(self.init), "init", self.identity, first_device)

    @property
    def identity(self) -> str:
        """Text of everything that programs depend on, except the shapes of examples.

        It is "" if the config has code of the user's own, which may have changed.
        """
        config, schedule = self.config, self.schedule
        paths = config.encoder.backbone, config.method.name, config.augment.extra
        if any(not isinstance(path, str) or ":" in path for path in paths):
            return ""
        # the keys of the seeds are arguments
        values = dataclasses.replace(config, seed=0), len(schedule.seeds)
        steps = schedule.num_steps, schedule.steps_per_epoch
        return repr((*values, *steps, self.num_classes))

    def init(self, keys: jax.Array | None = None) -> TrainState:
        """Returns the state before the first step; several seeds are a leading axis.

        Args:
            keys: random keys; by default `self.keys("parameters")`. If they are an
                argument of a compiled function, its program is the same for all seeds.
        """
        count, channels = self.config.data.batch_size, self.config.data.channels
        blank = Batch(
            *(
                jnp.zeros((count, spec.count, spec.size, spec.size, channels))
                for spec in self.crops.values()
            )
        )
        keys = self.keys("parameters") if keys is None else keys

        def init(key):
            state = self.method.init(key, blank)
            return with_average(state) if self.config.train.ema else state

        return init(keys) if len(self.schedule.seeds) == 1 else jax.vmap(init)(keys)

    def update(
        self, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        """Takes a step of the method, then moves the average of the encoder, if any."""
        state, metrics = self.method.update(state, batch, key)
        decay = self.config.train.ema
        return moved(state, decay) if decay else state, metrics

    def first_state(self) -> TrainState:
        """Returns `init()`, compiled; the program is the same for all seeds."""
        return self.compiled_init(self.keys("parameters"))

    def of_first_seed(self) -> Self:
        """Returns the spec with the first seed only."""
        schedule = dataclasses.replace(self.schedule, seeds=self.schedule.seeds[:1])
        return dataclasses.replace(self, schedule=schedule)

    def keys(self, *purposes: str) -> jax.Array:
        """Returns the run's random keys for some of "parameters", "crops" and "steps".

        The result is one key for one purpose, and [purposes] for several. Several seeds
        are a leading axis.
        """
        return _keys(self.schedule.seeds, purposes)


# one program, because every small program is compiled again at each start
@functools.partial(jax.jit, static_argnums=(0, 1))
def _keys(seeds: tuple[int, ...], purposes: tuple[str, ...]) -> jax.Array:
    rows = [PURPOSES.index(purpose) for purpose in purposes]
    of_seeds = [jax.random.split(make_key(seed), len(PURPOSES)) for seed in seeds]
    chosen = jnp.stack(of_seeds)[:, jnp.array(rows)]
    if len(purposes) == 1:
        chosen = chosen[:, 0]
    return chosen if len(seeds) > 1 else chosen[0]


def make_spec(
    config: Mapping[str, Any] | Config,
    *,
    num_devices: int,
    steps_per_epoch: int = 1,
    num_classes: int = 0,
) -> ExperimentSpec:
    """Makes the objects that a config describes.

    Args:
        config: every field of configs/base.py for its method.
        num_devices: number of devices over which a batch is split.
        steps_per_epoch: for schedules that count epochs; any number if no step is
            taken.
        num_classes: number of classes of the training images, for the classifier of
            `monitor.linear`. 0: no classifier; only training needs it.

    Raises:
        ValueError: if a field is unknown, missing or wrong, or a combination is
            impossible; the message is one line.
    """
    config = parse(config)
    counts = [spec.count for spec in config.crops.specs.values()]
    accumulate = config.train.accumulate
    norm = networks.make_norm(config.norm)
    part_norm = networks.make_norm(config.norm, accumulate)
    _require_one_size(config)
    _require_divisible(config, num_devices)
    schedule = _schedule(config, steps_per_epoch)
    encoder = networks.make_encoder(config.encoder, part_norm, accumulate)
    _check_backbone(config, encoder, num_devices)
    parts = MethodParts(
        config=config,
        norm=norm,
        part_norm=part_norm,
        encoder=encoder,
        training=schedule,
        pair_weights=pair_weights(config.pairing, *counts),
        num_classes=num_classes,
    )
    return ExperimentSpec(config, make_method(parts), encoder, schedule, num_classes)


def _require_one_size(config: Config) -> None:
    """Raises unless AlexNet, with its first dense layer, gets images of one size."""
    sides = [spec.size for spec in config.crops.specs.values() if spec.count]
    sides = [*sides, config.monitor.crop or sides[0]]
    alexnet = config.encoder.backbone == "alexnet"
    if alexnet and (len(set(sides)) > 1 or sides[0] < 16):
        raise ValueError(
            f"config.encoder.backbone='alexnet' needs one size, 16 px or more, for all "
            f"crops and config.monitor.crop, not {sides}; use e.g. 64 for all"
        )


def _check_backbone(config: Config, encoder: Encoder, num_devices: int) -> None:
    """Raises unless the backbone encodes crops of every size, and the monitor's."""
    sides = [spec.size for spec in config.crops.specs.values() if spec.count]
    sides += [config.monitor.crop] if config.monitor.crop else []
    networks.check_backbone(
        encoder.backbone,
        config.encoder,
        config.data.batch_size // num_devices // config.train.accumulate,
        [(side, side, config.data.channels) for side in dict.fromkeys(sides)],
    )


def _grouping(config: Config) -> tuple[str, Any]:
    """Returns the field that divides the images into groups, and its value."""
    if config.norm != config.batch_norm:
        return "train.accumulate", config.train.accumulate
    return "batch_norm", config.batch_norm


def _require_divisible(config: Config, num_devices: int) -> None:
    batch_size = config.data.batch_size
    groups = num_devices * networks.norm_groups(config.norm)
    if batch_size % groups:
        field, value = _grouping(config)
        raise ValueError(
            f"config.data.batch_size={batch_size} must be a multiple of {groups} "
            f"({num_devices} devices, {field}={value}); use "
            f"{-(-batch_size // groups) * groups}"
        )


def _require_groups(config: Config, num_devices: int) -> None:
    """Raises if a group is one image: its mean is the image, which becomes 0."""
    size, norm = config.data.batch_size, config.norm
    groups = num_devices * networks.norm_groups(norm)
    field, value = _grouping(config)
    remedy = "fewer groups, or global" if field == "batch_norm" else "or fewer parts"
    if norm != "global" and size < 2 * groups:
        raise ValueError(
            f"config.{field}={value!r} with config.data.batch_size={size} must have "
            f"2 images or more in each of its {groups} groups ({num_devices} devices), "
            f"because one image is normalized to 0; use a batch size of {2 * groups}, "
            f"{remedy}"
        )


def _schedule(config: Config, steps_per_epoch: int) -> TrainingSchedule:
    train, monitor = config.train, config.monitor
    return TrainingSchedule(
        num_steps=train.num_steps or train.num_epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        log_every_steps=train.log_every_steps,
        checkpoint_every_steps=train.checkpoint_every_steps,
        knn_every_steps=monitor.knn_every_steps,
        trivial_baselines=monitor.trivial_baselines,
        seeds=tuple(range(config.seed, config.seed + config.seeds)),
        keep_every_steps=train.keep_every_steps,
    )
