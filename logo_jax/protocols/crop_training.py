"""Training on labeled random crops in a folder of its own, which resumes like a run."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from logo_jax.augment.multi_crop import AugmentSpec, make_views
from logo_jax.augment.random_crop import CropSpec
from logo_jax.data.load import ExperimentData
from logo_jax.data.loader import Examples
from logo_jax.data.sources.base import ImageSource
from logo_jax.experiment import make_loader
from logo_jax.experiment.pretrained import FrozenEncoder
from logo_jax.methods.base import Batch, Method, TrainState
from logo_jax.parallel.keys import make_key
from logo_jax.parallel.mesh import replicate
from logo_jax.protocols.base import LABELS
from logo_jax.training import workdir
from logo_jax.training.checkpoints.manager import CheckpointManager
from logo_jax.training.logging.metric_writer import MetricWriter
from logo_jax.training.logging.progress import Progress
from logo_jax.training.logging.train_log import TrainLog
from logo_jax.training.loop import train
from logo_jax.training.preemption import PreemptionHandler
from logo_jax.training.schedule import TrainingSchedule
from logo_jax.training.train_step import TrainStep, make_train_step

# flags of `evaluate` that change such a training
READS = (
    "recipe",
    "num_epochs",
    "batch_size",
    "learning_rate",
    "weight_decay",
    *LABELS,
)
SEED = 0  # seed of the initialization, the crops and the order of images
# fields of the augmentation in the config of a folder; the folders of earlier versions
# have the same, and every other probability is 0
RECORDED = (
    "flip_prob",
    "jitter",
    "jitter_prob",
    "grayscale_prob",
    "blur_prob",
    "blur_sigma",
    "mean",
    "std",
)


@dataclasses.dataclass(frozen=True)
class CropTraining:
    """A method that is trained on random crops, ready for `make_train_step`.

    Attributes:
        method: method that trains a classifier.
        crop: size, area and aspect ratio of the crops.
        augment: augmentation: a flip, and normalization with the run's mean and
            standard deviation of each channel.
        channels: number of channels of the images.
    """

    method: Method
    crop: CropSpec
    augment: AugmentSpec
    channels: int

    def init(self, key: jax.Array) -> TrainState:
        """The state before the first step."""
        shape = (1, 1, self.crop.size, self.crop.size, self.channels)
        return self.method.init(key, Batch(jnp.zeros(shape), None))

    def make_batch(self, key: jax.Array, examples: Examples, epoch: Any) -> Batch:
        """Returns a random crop of each example in the given epoch, and the labels."""
        *pixels, labels = examples
        views = make_views(
            jax.random.fold_in(key, epoch),
            *pixels,
            global_crops=self.crop,
            local_crops=dataclasses.replace(self.crop, count=0),
            augment=self.augment,
        )
        return Batch(*views, labels)

    def recorded(self) -> dict[str, Any]:
        """The fields of the config of a folder that define the crops."""
        augment = {name: getattr(self.augment, name) for name in RECORDED}
        return {"crop": dataclasses.asdict(self.crop), "augment": augment, "seed": SEED}


def make_crop_training(
    frozen: FrozenEncoder,
    method: Method,
    *,
    area: tuple[float, float],
    aspect: tuple[float, float],
    flip_prob: float,
) -> CropTraining:
    """Makes a training on crops of the size of the run's global crops.

    They have 224 px for ImageNet, 32 px for CIFAR.

    Args:
        frozen: the encoder, with its run's config.
        method: method that trains a classifier.
        area: (min, max) area of a crop, as a fraction of the image.
        aspect: (min, max) aspect ratio of a crop, width / height.
        flip_prob: probability of a horizontal flip; there is no other augmentation.
    """
    config = frozen.spec.config
    size = frozen.spec.crops["global_crops"].size
    policy = config.augment.policy.without_changes()
    return CropTraining(
        method=method,
        crop=CropSpec(1, size, area, aspect),
        augment=dataclasses.replace(policy, flip_prob=flip_prob),
        channels=config.data.channels,
    )


def make_schedule(num_steps: int, steps_per_epoch: int) -> TrainingSchedule:
    """Returns a schedule that logs and saves each epoch, or every 100 steps.

    Rows of metrics are written at least every 100 steps, checkpoints at most.
    """
    return TrainingSchedule(
        num_steps=num_steps,
        steps_per_epoch=steps_per_epoch,
        log_every_steps=min(steps_per_epoch, 100),
        checkpoint_every_steps=max(steps_per_epoch, 100),
        knn_every_steps=0,
        trivial_baselines=False,
    )


def first_and_step(training: CropTraining, mesh: Mesh) -> tuple[TrainState, TrainStep]:
    """Returns the state before the first step, on the host, and the compiled step."""
    keys = jax.random.split(make_key(SEED), 3)
    return jax.device_get(training.init(keys[0])), train_step(training, mesh, keys[1:])


def train_step(training: CropTraining, mesh: Mesh, keys: jax.Array) -> TrainStep:
    """Returns the compiled step; keys [2] are for crops and for steps."""
    return make_train_step(training.method.update, training.make_batch, mesh, keys)


def train_in_folder(
    first: TrainState,
    step: TrainStep,
    images: ImageSource,
    schedule: TrainingSchedule,
    *,
    batch_size: int,
    frozen: FrozenEncoder,
    folder: pathlib.Path,
    config: Mapping[str, Any],
    title: str = "",
    quiet: bool = False,
    stop: PreemptionHandler | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> TrainState | None:
    """Trains in one process, or resumes from the folder's newest checkpoint.

    If training is complete, the last state is only restored.

    Args:
        first: state before the first step, on the host.
        step: compiled step.
        images: labeled training images.
        schedule: length of the training.
        batch_size: number of images per step, over all devices.
        frozen: the encoder, with its run's config and devices.
        folder: work folder; it is created if absent. It belongs to `config`.
        config: everything that defines the training.
        title: first line of the training; "" for one about the images.
        quiet: whether to hide the progress.
        stop: preemption handler, which is checked between steps; None: never stop.
        clock: function that returns the time in seconds, to measure the throughput.

    Returns:
        The state after the last step, on all devices; None if training was stopped
        before its end.

    Raises:
        ValueError: if the folder belongs to another config or is in use, or if images
            cannot be read.
    """
    stop, mesh = stop or PreemptionHandler(), frozen.mesh
    workdir.check_config(folder, config)
    data = frozen.spec.config.data
    with contextlib.ExitStack() as held:
        lock = frozen.spec.config.train.lock
        held.enter_context(workdir.lock_workdir(folder, lock=lock))
        workdir.claim_workdir(folder, config)
        checkpoints = held.enter_context(CheckpointManager(folder / "checkpoints"))
        start, found = checkpoints.restore_latest(first) or (0, first)
        state = replicate(found, mesh)
        if start < schedule.num_steps:
            loader, line = make_loader(data, images, mesh, batch_size, (SEED,))
            writer = MetricWriter(folder, resume_step=start)
            progress = Progress(schedule.num_steps, initial=start, quiet=quiet)
            with writer, progress:
                progress.say(title or line)
                log = TrainLog(writer, progress, schedule, clock=clock)
                how = {"log": log, "checkpoints": checkpoints, "preemption": stop}
                state = train(state, step, loader, schedule, **how)
    return None if stop.requested() else state


def labeled(data: ExperimentData, purpose: str) -> tuple[ImageSource, ImageSource]:
    """Returns the labeled training images and test images.

    Raises:
        ValueError: if there are none.
    """
    if data.bank is None or data.queries is None:
        raise ValueError(
            f"{data.train.origin} has no labeled training and test set, which "
            f"{purpose} needs; give another data set"
        )
    return data.bank, data.queries
