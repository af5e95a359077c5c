"""Linear probes by published recipes: a classifier on a run's frozen encoder."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from logo_jax.augment.multi_crop import make_views
from logo_jax.augment.random_crop import CropSpec
from logo_jax.data.loader import Examples
from logo_jax.experiment.spec import ExperimentSpec
from logo_jax.methods import LinearProbe
from logo_jax.methods.base import ENCODER, Batch, TrainState
from logo_jax.training import optim
from logo_jax.training.schedule import TrainingSchedule

OPTIMIZERS = {"sgd": optim.sgd, "lars": optim.lars}
SCHEDULES = ("step", "cosine")
RULES: dict[str, tuple[Callable[[Any], bool], str, Any]] = {
    "optimizer": (lambda x: x in OPTIMIZERS, "sgd or lars", "sgd"),
    "schedule": (lambda x: x in SCHEDULES, "step or cosine", "cosine"),
    "learning_rate": (lambda x: 0 <= x < math.inf, "finite, 0 or more", 30.0),
    "weight_decay": (lambda x: 0 <= x < math.inf, "finite, 0 or more", 0.0),
    "momentum": (lambda x: 0 <= x < 1, "0 or more and below 1", 0.9),
    "batch_size": (lambda x: x >= 1, "1 or more", 256),
    "num_epochs": (lambda x: x >= 1, "1 or more", 100),
    "flip_prob": (lambda x: 0 <= x <= 1, "from 0 to 1", 0.5),
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a linear classifier is trained on frozen features.

    Attributes:
        optimizer: "sgd", or "lars": SGD behind layer-wise rates, trust coefficient
            1e-3, not clipped (`optim.lars`).
        learning_rate: at its peak, for 256 images a step; it is multiplied by
            batch_size / 256. There is no warm-up.
        schedule: of each step: "step": x0.1 at the milestones; "cosine": half a cosine
            to 0 at the last step.
        milestones: epochs, rising; of "step" only.
        momentum: of SGD.
        weight_decay: on weights and bias.
        batch_size: images a step, over all devices; an epoch's remainder is dropped.
        num_epochs: in all.
        area: (min, max) of the crop, as a fraction of the image.
        aspect: (min, max) of its width / height.
        flip_prob: of mirroring it; nothing else is done to it.

    Raises:
        ValueError: if a field is out of range.
    """

    optimizer: str
    learning_rate: float
    schedule: str
    batch_size: int
    num_epochs: int
    milestones: tuple[float, ...] = ()
    momentum: float = 0.9
    weight_decay: float = 0.0
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip_prob: float = 0.5

    def __post_init__(self):
        for name, (allows, rule, usual) in RULES.items():
            value = getattr(self, name)
            if not allows(value):
                raise ValueError(
                    f"recipe.{name}={value!r} must be {rule}; use e.g. {usual!r}"
                )
        _require_milestones(self.schedule, self.milestones, self.num_epochs)
        CropSpec(1, 1, self.area, self.aspect)

    @property
    def rate(self) -> float:
        """The learning rate at its peak: that for 256 images times batch_size / 256."""
        return self.learning_rate * self.batch_size / 256

    def rates(self, steps_per_epoch: int) -> Any:
        """The learning rate of each step."""
        if self.schedule == "cosine":
            num_steps = self.num_epochs * steps_per_epoch
            return optim.cosine_schedule(self.rate, num_steps=num_steps)
        steps = [round(epoch * steps_per_epoch) for epoch in self.milestones]
        return optim.step_schedule(self.rate, milestones=steps)


def _require_milestones(schedule, milestones, num_epochs):
    rising = all(a < b for a, b in zip((0, *milestones), milestones, strict=False))
    if (schedule == "step") != bool(milestones) or not rising:
        raise ValueError(
            f"recipe.milestones={milestones} must be epochs above 0, rising, for "
            "schedule='step', and () for 'cosine'; use e.g. (60, 80)"
        )
    if milestones and milestones[-1] >= num_epochs:
        raise ValueError(
            f"recipe.milestones={milestones} must come before the end, epoch "
            f"{num_epochs}; use 60 % and 80 % of it"
        )


RECIPES: dict[str, Recipe] = {
    # facebookresearch/moco@main_lincls.py and README: lr 30, batch 256, 100 epochs
    "moco": Recipe(
        optimizer="sgd",
        learning_rate=30.0,
        schedule="step",
        milestones=(60, 80),
        batch_size=256,
        num_epochs=100,
    ),
    # facebookresearch/simsiam@main_lincls.py: base lr 0.1, 1.6 at its batch of 4096
    "simsiam": Recipe(
        optimizer="lars",
        learning_rate=0.1,
        schedule="cosine",
        batch_size=4096,
        num_epochs=90,
    ),
}


@dataclasses.dataclass(frozen=True)
class Probe:
    """A recipe with its encoder, ready for `step.make_train_step`.

    Attributes:
        method: trains the classifier.
        crop: of each image.
        augment: a flip, and the run's own mean and deviation of channels.
        plan: of the loop.
    """

    method: LinearProbe
    crop: CropSpec
    augment: Any
    plan: TrainingSchedule

    def init(self, key: jax.Array) -> TrainState:
        """The state before the first step."""
        side = self.crop.size
        return self.method.init(key, Batch(jnp.zeros((1, 1, side, side, 3)), None))

    def make_batch(self, key: jax.Array, examples: Examples, epoch: Any) -> Batch:
        """The crop of each of the examples in an epoch, and their labels."""
        *pixels, labels = examples
        views = make_views(
            jax.random.fold_in(key, epoch),
            *pixels,
            global_crops=self.crop,
            local_crops=dataclasses.replace(self.crop, count=0),
            augment=self.augment,
        )
        return Batch(*views, labels)


def make_probe(
    spec: ExperimentSpec,
    variables: Mapping[str, Any],
    recipe: Recipe,
    *,
    num_classes: int,
    num_images: int,
) -> Probe:
    """A linear probe of the encoder a config describes.

    Crops have the side of the run's global crops: 224 px for ImageNet, 32 for CIFAR.

    Args:
        spec: of the run that trained the encoder.
        variables: the encoder's "params" and "batch_stats".
        recipe: how the classifier is trained.
        num_classes: of the labels.
        num_images: to train on.

    Raises:
        ValueError: where a batch exceeds the images.
    """
    if recipe.batch_size > num_images:
        raise ValueError(
            f"the recipe's batch_size={recipe.batch_size} exceeds the {num_images} "
            "training images; use a smaller one"
        )
    steps_per_epoch = num_images // recipe.batch_size
    tx = OPTIMIZERS[recipe.optimizer](
        recipe.rates(steps_per_epoch),
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    side = spec.crops["global_crops"].size
    return Probe(
        method=LinearProbe(spec.encoder, variables, num_classes, tx),
        crop=CropSpec(1, side, recipe.area, recipe.aspect),
        augment=dataclasses.replace(
            spec.config.augment,
            flip_prob=recipe.flip_prob,
            jitter_prob=0.0,
            grayscale_prob=0.0,
            blur_prob=0.0,
        ),
        plan=TrainingSchedule(
            num_steps=recipe.num_epochs * steps_per_epoch,
            steps_per_epoch=steps_per_epoch,
            log_every_steps=min(steps_per_epoch, 100),
            checkpoint_every_steps=max(steps_per_epoch, 100),
            knn_every_steps=0,
            trivial_baselines=False,
        ),
    )


def frozen_encoder(state: TrainState) -> dict[str, Any]:
    """The "params" and "batch_stats" of a state's encoder."""
    return {"params": state.params[ENCODER], "batch_stats": state.batch_stats[ENCODER]}
