"""Protocol linear, recipes moco and simsiam: a linear classifier on random crops.

The classifier is trained on features that a frozen encoder computes from random crops.
It has its own work folder and uses the training loop of all methods, so that it resumes
like any run. `RECIPES` has the published settings.
"""

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
from jax.sharding import Mesh

from logo_jax.augment.random_crop import CropSpec
from logo_jax.data.eval_crops import evenly_spaced
from logo_jax.data.few_labels import has_labels_in_memory, labels_of
from logo_jax.data.load import ExperimentData
from logo_jax.data.sources.base import ImageSource, Subset
from logo_jax.evaluation.features import require_classes
from logo_jax.evaluation.metrics import METRICS
from logo_jax.experiment import num_classes as classes_of
from logo_jax.experiment.pretrained import FrozenEncoder
from logo_jax.methods import LinearProbe
from logo_jax.methods.base import ENCODER, LINEAR
from logo_jax.methods.linear import Classifier, logits
from logo_jax.protocols.base import EvalRequest, EvalResult, Protocol
from logo_jax.protocols.crop_training import (
    READS,
    CropTraining,
    first_and_step,
    labeled,
    make_crop_training,
    make_schedule,
    train_in_folder,
)
from logo_jax.training import optim
from logo_jax.training.preemption import PreemptionHandler

LOOKED_AT = 1000  # test images whose labels are checked, if all would be read for it

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
    """Training settings of a linear classifier on frozen features.

    Attributes:
        optimizer: "sgd" or "lars". LARS is SGD with layer-wise learning rates, with
            trust coefficient 1e-3 and without clipping (`optim.lars`).
        learning_rate: initial learning rate for 256 images per step; it is multiplied
            by batch_size / 256. There is no warm-up.
        schedule: learning rate schedule, updated at each step: "step": x0.1 at the
            milestones; "cosine": cosine decay to 0 at the last step.
        milestones: epochs in ascending order, for the schedule "step"; otherwise ().
        momentum: momentum of SGD.
        weight_decay: weight decay of weights and biases.
        batch_size: number of images per step over all devices; the remaining images of
            an epoch are dropped.
        num_epochs: total number of epochs.
        area: (min, max) area of a crop, as a fraction of the image.
        aspect: (min, max) aspect ratio of a crop, width / height.
        flip_prob: probability of a horizontal flip. Crops have no other augmentation.

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
        """Initial learning rate: `learning_rate` times batch_size / 256."""
        return self.learning_rate * self.batch_size / 256

    def fitting(self, num_images: int, num_devices: int) -> Self:
        """Returns the recipe with the largest batch size that the images allow."""
        most = max(1, num_images // num_devices) * num_devices
        return dataclasses.replace(self, batch_size=min(self.batch_size, most))

    def rates(self, steps_per_epoch: int) -> Any:
        """Returns the schedule: a function from the step to the learning rate."""
        if self.schedule == "cosine":
            num_steps = self.num_epochs * steps_per_epoch
            return optim.cosine_schedule(self.rate, num_steps=num_steps)
        steps = [round(epoch * steps_per_epoch) for epoch in self.milestones]
        return optim.step_schedule(self.rate, milestones=steps)


def _require_milestones(schedule, milestones, num_epochs):
    rising = all(a < b for a, b in zip((0, *milestones), milestones, strict=False))
    if (schedule == "step") != bool(milestones) or not rising:
        raise ValueError(
            f"recipe.milestones={milestones} must be epochs above 0 in ascending order "
            "for schedule='step', and () for 'cosine'; use e.g. (60, 80)"
        )
    if milestones and milestones[-1] >= num_epochs:
        raise ValueError(
            f"recipe.milestones={milestones} must be below num_epochs={num_epochs}; "
            "use 60 % and 80 % of it"
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


def evaluate(frozen: FrozenEncoder, request: EvalRequest) -> EvalResult | None:
    """Trains and tests a linear classifier, or resumes it in the request's folder.

    The options are `recipe`, one of RECIPES, and new values for fields of the recipe.

    Returns:
        The result; None if the evaluation was stopped before its end.

    Raises:
        ValueError: if an option is out of range, if images do not have one label each,
            if the batch size does not fit the devices or the number of images, or if
            the folder belongs to another probe or is in use.
    """
    data = frozen.data()
    recipe = chosen_recipe(request.options)
    if data.few and "batch_size" not in request.options:
        recipe = recipe.fitting(data.few["images"], frozen.mesh.devices.size)
    values = train_and_test(frozen, data, recipe, request.folder, stop=request.stop)
    if values is None:
        return None
    train_images, test_images = labeled(data, "a linear probe")
    return EvalResult(
        protocol="linear: SGD on random crops",
        values=values,
        splits={"train": len(train_images), "test": len(test_images)},
        settings=dataclasses.asdict(recipe),
        augmentation=f"random crops of area {recipe.area}, flip {recipe.flip_prob}",
    )


PROTOCOL = Protocol(
    "linear",
    evaluate,
    reads=READS,
    recipes=tuple(RECIPES),
)


def chosen_recipe(options: Mapping[str, Any]) -> Recipe:
    """Returns the recipe named in the options, with the fields that they change.

    Milestones are scaled with the number of epochs.
    """
    changes = dict(options)
    named = RECIPES[changes.pop("recipe", "moco")]
    shorter = changes.get("num_epochs", named.num_epochs) / named.num_epochs
    milestones = tuple(epoch * shorter for epoch in named.milestones)
    return dataclasses.replace(named, milestones=milestones, **changes)


def train_and_test(
    frozen: FrozenEncoder,
    data: ExperimentData,
    recipe: Recipe,
    folder: pathlib.Path,
    *,
    quiet: bool = False,
    stop: PreemptionHandler | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float] | None:
    """Trains a linear classifier and returns its test accuracies in percent.

    The classifier is trained on random crops of the training set, in one process, and
    tested once on each test image, with the center crops that kNN uses. If training was
    stopped, the same call resumes it; if training is complete, the classifier is only
    tested.

    Args:
        frozen: frozen encoder with one seed.
        data: labeled data with one class per image.
        recipe: training settings of the classifier.
        folder: work folder of the probe, such as RUN/linear/moco; it is created if
            absent. It belongs to this recipe, data set and encoder.
        quiet: whether to hide the progress.
        stop: preemption handler, which is checked between steps; None: never stop.
        clock: function that returns the time in seconds, to measure the throughput.

    Returns:
        `linear/top1` and `linear/top5`; None if training was stopped before its end.

    Raises:
        ValueError: if images do not have one label each, if the batch size does not fit
            the devices or the number of images, if the training diverges, or if the
            folder belongs to another probe or is in use.
    """
    train_images, test_images = labeled(data, "a linear probe")
    _require_divisible(recipe, frozen.mesh)
    num_classes = classes_of(train_images, "a linear probe")
    looked_at = test_images
    if not has_labels_in_memory(test_images):
        some = evenly_spaced(len(test_images), LOOKED_AT)
        looked_at = Subset(test_images, some, test_images.origin)
    require_classes(labels_of(looked_at), num_classes, "the test images")
    probe = make_probe(
        frozen,
        recipe,
        num_classes=num_classes,
        num_images=len(train_images),
    )
    first, step = first_and_step(probe, frozen.mesh)
    steps_per_epoch = len(train_images) // recipe.batch_size
    try:
        state = train_in_folder(
            first,
            step,
            train_images,
            make_schedule(recipe.num_epochs * steps_per_epoch, steps_per_epoch),
            batch_size=recipe.batch_size,
            frozen=frozen,
            folder=folder,
            config={
                "recipe": dataclasses.asdict(recipe),
                "dataset": train_images.origin,
                "encoder": frozen.source,
                **probe.recorded(),
            },
            quiet=quiet,
            stop=stop,
            clock=clock,
        )
    except FloatingPointError as error:
        decay = f", or a lower --weight_decay than {recipe.weight_decay:g}"
        raise ValueError(
            f"the linear probe diverges ({error}); give a lower --learning_rate than "
            f"{recipe.learning_rate:g}" + (decay if recipe.weight_decay else "")
        ) from error
    return state and tested(frozen, state.params[LINEAR], test_images)


def make_probe(
    frozen: FrozenEncoder, recipe: Recipe, *, num_classes: int, num_images: int
) -> CropTraining:
    """Makes a linear probe for an encoder.

    Args:
        frozen: frozen encoder with one seed.
        recipe: training settings of the classifier.
        num_classes: number of classes.
        num_images: number of training images.

    Raises:
        ValueError: if the batch size exceeds the number of images.
    """
    if recipe.batch_size > num_images:
        raise ValueError(
            f"the recipe's batch_size={recipe.batch_size} exceeds the {num_images} "
            f"training images; use --batch_size={num_images} or fewer"
        )
    tx = OPTIMIZERS[recipe.optimizer](
        recipe.rates(num_images // recipe.batch_size),
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    variables = frozen.state.variables(ENCODER)
    return make_crop_training(
        frozen,
        LinearProbe(frozen.spec.encoder, variables, num_classes, tx),
        area=recipe.area,
        aspect=recipe.aspect,
        flip_prob=recipe.flip_prob,
    )


def tested(
    frozen: FrozenEncoder, classifier: Classifier, images: ImageSource
) -> dict[str, float]:
    """Returns the top-1 and top-5 accuracies of a classifier on images, in percent.

    The images are cropped to their centers and encoded by the frozen encoder.
    """
    features, labels = frozen.features(images)
    scores = logits(jax.device_get(classifier), features)
    return {
        f"linear/{name}": 100 * METRICS[name](scores, labels)
        for name in ("top1", "top5")
    }


def _require_divisible(recipe: Recipe, mesh: Mesh) -> None:
    if recipe.batch_size % mesh.devices.size:
        raise ValueError(
            f"the recipe's batch_size={recipe.batch_size} must be a multiple of the "
            f"{mesh.devices.size} devices; change --batch_size"
        )
