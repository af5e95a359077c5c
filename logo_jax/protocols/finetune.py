"""Protocol finetune: all weights are trained on labels, by published recipes.

Each setting of the recipe's grid is tried on a part of the labeled images, and compared
on the rest of them. The best one is trained on all labeled images and tested once. All
trainings have folders of their own and use the training loop of all methods, so that
the evaluation resumes like any run.
"""

import dataclasses
import functools
import itertools
import json
import math
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from logo_jax.augment.random_crop import CropSpec
from logo_jax.data.few_labels import labels_of, sha256
from logo_jax.data.load import load_split
from logo_jax.data.sources.base import ImageSource, Joined, Subset
from logo_jax.evaluation.features import Features, LabeledImages, require_classes
from logo_jax.evaluation.metrics import METRICS, top1
from logo_jax.experiment import classifier_folder, make_eval_crops, networks
from logo_jax.experiment import num_classes as classes_of
from logo_jax.experiment.pretrained import FrozenEncoder
from logo_jax.methods import FineTune
from logo_jax.methods.base import ENCODER, LINEAR, TrainState
from logo_jax.methods.fine_tune import Setting
from logo_jax.methods.linear import cross_entropy, logits
from logo_jax.parallel.mesh import make_mesh
from logo_jax.protocols.base import EvalRequest, EvalResult, Protocol
from logo_jax.protocols.crop_training import (
    READS,
    first_and_step,
    make_crop_training,
    make_schedule,
    train_in_folder,
)
from logo_jax.training import atomic, optim, workdir
from logo_jax.training.train_step import TrainStep

FEWEST = 16  # images per step, if there are as many labeled images
MOST_ROWS = 10  # rows of metrics of a training
RECORDED = ("nesterov", "schedule", "momentum", "unit")  # fields in the result
VALIDATION_FILE = "validation.json"  # in the folder of a trial that is complete


def cosine(done: jax.Array) -> jax.Array:
    """Factor of the learning rate that decays from 1 to 0 by a cosine."""
    return 0.5 * (1 + jnp.cos(jnp.pi * done))


def step_at_70_and_90(done: jax.Array) -> jax.Array:
    """Factor of the learning rate that is x0.1 at 70 % and at 90 % of the steps."""
    passed = jnp.greater_equal(done, jnp.array([0.7, 0.9])).sum()
    return jnp.float32(0.1) ** passed.astype(jnp.float32)


SCHEDULES = {"cosine": cosine, "step": step_at_70_and_90}


class Trial(NamedTuple):
    """A setting of the grid.

    Attributes:
        learning_rate: learning rate of the first step.
        weight_decay: weight decay of all parameters; see `Recipe.decay_by_rate`.
        length: number of epochs, or of steps if the recipe counts steps.
    """

    learning_rate: float
    weight_decay: float
    length: int


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of fine-tuning: SGD with momentum, on random crops and flips.

    There is no warm-up. Learning rates are not scaled with the batch size.

    Attributes:
        learning_rates: learning rates of the grid, 0 or more.
        weight_decays: weight decays of the grid, 0 or more; they apply to all
            parameters, as by torch.optim.SGD.
        lengths: lengths of the grid, 1 or more.
        unit: "epochs" or "steps", the unit of the lengths.
        default: setting that is used if no labeled image can be held out.
        batch_size: number of images per step over all devices; the remaining images of
            an epoch are dropped.
        steps_per_epoch: fewest steps per epoch. If there are too few labeled images for
            the batch size, it is smaller, but at least `FEWEST`.
        nesterov: whether the momentum is Nesterov's.
        schedule: "cosine": cosine decay to 0; "step": x0.1 at 70 % and at 90 %.
        decay_by_rate: whether a weight decay is divided by the learning rate.
        momentum: momentum of SGD.
        area: (min, max) area of a crop, as a fraction of the image.
        aspect: (min, max) aspect ratio of a crop, width / height.
        flip_prob: probability of a horizontal flip.

    Raises:
        ValueError: if a field is out of range.
    """

    learning_rates: tuple[float, ...]
    weight_decays: tuple[float, ...]
    lengths: tuple[int, ...]
    default: Trial
    batch_size: int
    unit: str = "epochs"
    steps_per_epoch: int = 1
    nesterov: bool = True
    schedule: str = "cosine"
    decay_by_rate: bool = False
    momentum: float = 0.9
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip_prob: float = 0.5

    def __post_init__(self):
        for name in ("learning_rates", "weight_decays"):
            for value in getattr(self, name):
                if not 0 <= value < math.inf:
                    raise ValueError(
                        f"{name.removesuffix('s')}={value} must be finite, 0 or more; "
                        f"use e.g. {getattr(self.default, name.removesuffix('s'))}"
                    )
        if self.decay_by_rate and not all(self.learning_rates):
            raise ValueError(
                "learning_rate=0 must be above 0 in a recipe that divides the weight "
                f"decay by it; use e.g. {self.default.learning_rate}"
            )
        if min(*self.lengths, self.batch_size) < 1:
            raise ValueError(
                f"num_epochs={self.lengths[0]} and batch_size={self.batch_size} must "
                "be 1 or more"
            )
        CropSpec(1, 1, self.area, self.aspect)

    def grid(self) -> list[Trial]:
        """All settings, in the order of the learning rates."""
        axes = (self.learning_rates, self.weight_decays, self.lengths)
        return [Trial(*values) for values in itertools.product(*axes)]

    def num_steps(self, trial: Trial, steps_per_epoch: int) -> int:
        """Number of steps of a training."""
        return trial.length * (steps_per_epoch if self.unit == "epochs" else 1)

    def setting(self, trial: Trial, num_steps: int) -> Setting:
        """The setting of a training, as it is in its state."""
        rate, decay, _ = trial
        return Setting(rate, decay / rate if self.decay_by_rate else decay, num_steps)

    def fitting(self, num_images: int, num_devices: int) -> int:
        """Returns the batch size for at least as many labeled images as devices."""
        most = num_images // num_devices
        few = max(FEWEST, 2 ** int(math.log2(num_images / self.steps_per_epoch)))
        wanted = -(-min(self.batch_size, few) // num_devices)
        return min(wanted, most) * num_devices


RECIPES: dict[str, Recipe] = {
    # Grill et al. 2020, https://arxiv.org/abs/2006.07733, appendix on semi-supervised
    # training: Nesterov's momentum, batch 1024, no regularization; 1 % of ImageNet has
    # 12 steps per epoch. It states no schedule; we take the cosine of its pretraining.
    "byol": Recipe(
        learning_rates=(0.005, 0.01, 0.02, 0.05, 0.1),
        weight_decays=(0.0,),
        lengths=(30, 50),
        default=Trial(0.02, 0.0, 50),
        batch_size=1024,
        steps_per_epoch=12,
    ),
    # Chen et al. 2020, https://arxiv.org/abs/2002.05709, appendix B.8: 20,000 steps; 7
    # learning rates and 7 weight decays, evenly spaced in their logarithms, and no
    # weight decay. Its momentum of batch norm's statistics, max(1 - 10 / s, 0.9) with s
    # steps per epoch, is 0.9 here, which is that of the encoder.
    "simclr": Recipe(
        learning_rates=tuple(float(f"{10**e:.4g}") for e in np.linspace(-4, -1, 7)),
        weight_decays=(0.0, *(float(f"{10**e:.4g}") for e in np.linspace(-6, -3, 7))),
        lengths=(20_000,),
        unit="steps",
        default=Trial(0.01, 0.0, 20_000),
        batch_size=256,
        decay_by_rate=True,
    ),
    # He et al. 2019, https://arxiv.org/abs/1911.05722, appendix on iNaturalist: 100
    # epochs, learning rate 0.025, x0.1 at 70 % and 90 %. Batch, momentum and weight
    # decay are those of torchvision's training on ImageNet.
    "moco": Recipe(
        learning_rates=(0.025,),
        weight_decays=(1e-4,),
        lengths=(100,),
        default=Trial(0.025, 1e-4, 100),
        batch_size=256,
        steps_per_epoch=12,
        nesterov=False,
        schedule="step",
    ),
}
DEFAULT = next(iter(RECIPES))


def chosen_recipe(options: Mapping[str, Any]) -> Recipe:
    """Returns the recipe named in the options, with the values that they set.

    A learning rate, a weight decay or a number of epochs replaces that axis of the
    grid.

    Raises:
        ValueError: if a value is out of range.
    """
    recipe = RECIPES[options.get("recipe", DEFAULT)]
    changes: dict[str, Any] = {}
    default = recipe.default
    for name, axis in (("learning_rate", 0), ("weight_decay", 1), ("num_epochs", 2)):
        if name in options:
            field = ("learning_rates", "weight_decays", "lengths")[axis]
            changes[field] = (options[name],)
            default = default._replace(**{default._fields[axis]: options[name]})
    if "num_epochs" in options:
        changes["unit"] = "epochs"
    if "batch_size" in options:
        changes["batch_size"] = options["batch_size"]
    return dataclasses.replace(recipe, default=default, **changes)


class Parts(NamedTuple):
    """The images of an evaluation, by their use.

    Attributes:
        train: images to train each setting on.
        val: images to compare the settings on; may be empty.
        both: images to train the chosen setting on.
        test: images for the result.
        metric: metric of the data set.
        class_names: names of the classes.
    """

    train: ImageSource
    val: ImageSource
    both: ImageSource
    test: ImageSource
    metric: str
    class_names: tuple[str, ...]


def make_parts(frozen: FrozenEncoder) -> Parts:
    """Divides the encoder's data set.

    Raises:
        ValueError: if images do not have one label each, or if a test image has no
            label or a class that no training image has.
        FileNotFoundError: if the data set is not found.
    """
    location = frozen.spec.config.data.location
    split = load_split(location, frozen.given, balanced=True)
    first = next(iter(split.images.values()))
    count = classes_of(first, "fine-tuning")
    labels = {name: labels_of(images) for name, images in split.images.items()}
    rows = split.draw(labels)
    for name, part in rows.items():
        if len(part.indices):
            of_part = labels[part.split][part.indices]
            require_classes(of_part, count, name)

    def taken(*names: str) -> ImageSource:
        split_of = dict.fromkeys(rows[name].split for name in names)
        if len(split_of) > 1:
            return Joined([taken(name) for name in names])
        ids = np.sort(np.concatenate([rows[name].indices for name in names]))
        (of,) = split_of
        return Subset(split.images[of], ids, split.images[of].origin)

    names = getattr(first, "class_names", ())
    return Parts(
        *(taken("train"), taken("val"), taken("train", "val"), taken("test")),
        metric=split.metric,
        class_names=tuple(names) or tuple(map(str, range(count))),
    )


@dataclasses.dataclass(frozen=True)
class FineTuning:
    """Everything that the trainings of an evaluation share.

    Attributes:
        recipe: the recipe.
        frozen: the encoder before the first step, with one seed.
        parts: the images.
        batch_size: number of images per step.
        first: state before the first step, without a setting, on the host.
        step: compiled step, the same for all settings.
        crops: definition of the crops, for the folders.
        request: folder and preemption handler.
    """

    recipe: Recipe
    frozen: FrozenEncoder
    parts: Parts
    batch_size: int
    first: TrainState
    step: TrainStep
    crops: Mapping[str, Any]
    request: EvalRequest

    def trained(
        self, trial: Trial, images: ImageSource, folder: Path, title: str
    ) -> TrainState | None:
        """Trains with one setting, or resumes; None if it was stopped.

        Raises:
            FloatingPointError: if a loss is not finite.
            ValueError: if the folder belongs to another training.
        """
        per_epoch = max(1, len(images) // self.batch_size)
        num_steps = self.recipe.num_steps(trial, per_epoch)
        setting = self.recipe.setting(trial, num_steps)
        memory = {name: np.float32(x) for name, x in setting._asdict().items()}
        schedule = make_schedule(num_steps, per_epoch)
        rows = max(schedule.log_every_steps, num_steps // MOST_ROWS)
        return train_in_folder(
            self.first.replace(memory=memory),
            self.step,
            images,
            dataclasses.replace(schedule, log_every_steps=rows),
            batch_size=self.batch_size,
            frozen=self.frozen,
            folder=folder,
            config=self.config(trial, images),
            stop=self.request.stop,
            title=title,
        )

    def config(self, trial: Trial, images: ImageSource) -> dict[str, Any]:
        """Everything that defines a training, for its folder."""
        return {
            "trial": trial._asdict(),
            "recipe": dataclasses.asdict(self.recipe),
            "batch_size": self.batch_size,
            "dataset": images.origin,
            "images": _identity(images),
            "encoder": self.frozen.source,
            **self.crops,
        }

    def scores(self, state: TrainState, images: LabeledImages) -> Features:
        """Returns the class scores of images, as features, and their labels."""
        found = dataclasses.replace(self.frozen, state=state).features_of(images)
        classifier = jax.device_get(state.params[LINEAR])
        return found._replace(features=logits(classifier, found.features))

    def validated(
        self, trial: Trial, val: LabeledImages, title: str
    ) -> dict[str, Any] | None:
        """Returns the accuracy and the loss of a setting; None if it was stopped.

        Both are in the trial's folder when it is complete, and the checkpoints are not.
        The loss is None if the training diverged.
        """
        folder = self.request.folder / _folder_name(trial, self.recipe.unit)
        file = folder / VALIDATION_FILE
        workdir.check_config(folder, self.config(trial, self.parts.train))
        if not file.is_file():
            try:
                state = self.trained(trial, self.parts.train, folder, title)
            except FloatingPointError:
                found = {"top1": 0.0, "loss": None}
            else:
                if state is None:
                    return None
                found = self._measured(state, val)
            atomic.write_text(file, json.dumps(found) + "\n")
        atomic.remove(folder / "checkpoints")
        return json.loads(file.read_text())

    def _measured(self, state: TrainState, val: LabeledImages) -> dict[str, Any]:
        scores, labels = self.scores(state, val)
        losses = cross_entropy(jnp.asarray(scores), jnp.asarray(labels))
        loss = float(losses.mean())
        accuracy = 100 * top1(scores, labels)
        return {"top1": accuracy, "loss": loss if math.isfinite(loss) else None}

    def best(self, say: Callable[[str], None]) -> tuple[Trial, dict[str, Any]] | None:
        """Returns the setting to train on all labels, and how it was chosen.

        Among equal accuracies, the lower loss is better. The result is None if the
        evaluation was stopped.

        Raises:
            ValueError: if the training diverges with every setting.
        """
        grid, recipe = self.recipe.grid(), self.recipe
        if len(grid) == 1:
            return grid[0], {"chosen": "the only setting of the recipe and the flags"}
        if not len(self.parts.val):
            why = "each class has one labeled image, so that none can be held out"
            return recipe.default, {"chosen": f"the recipe's default, because {why}"}
        val = make_eval_crops(self.frozen.spec, self.parts.val)
        found = []
        for i, trial in enumerate(grid, start=1):
            title = f"setting {i} of {len(grid)}: {_text(trial, recipe.unit)}"
            values = self.validated(trial, val, title)
            if values is None:
                return None
            say(f"{title}: {values['top1']:.2f} % of {len(val):,} validation images")
            found.append(values)
        losses = [math.inf if x["loss"] is None else x["loss"] for x in found]
        best = min(range(len(grid)), key=lambda i: (-found[i]["top1"], losses[i]))
        if not math.isfinite(losses[best]):
            raise ValueError(
                "the training diverges with every setting of the grid; give a lower "
                f"--learning_rate than {min(recipe.learning_rates)}"
            )
        chosen = f"the best of {len(grid)} settings on {len(val):,} validation images"
        tried = [
            trial._asdict() | {f"val_{name}": x for name, x in values.items()}
            for trial, values in zip(grid, found, strict=True)
        ]
        return grid[best], {"chosen": chosen, "grid": tried}


def _identity(images: ImageSource) -> str:
    """SHA-256 of the numbers of a part's images, and of their labels."""
    match images:
        case Subset():
            labels = labels_of(images).astype(np.int64)
            numbers = np.concatenate([images.ids.astype(np.int64), labels])
        case _:
            numbers = labels_of(images)
    return sha256(numbers)


def _folder_name(trial: Trial, unit: str) -> str:
    return f"lr_{trial.learning_rate:g}-wd_{trial.weight_decay:g}-{unit}_{trial.length}"


def _text(trial: Trial, unit: str) -> str:
    return (
        f"learning rate {trial.learning_rate:g}, weight decay "
        f"{trial.weight_decay:g}, {trial.length:,} {unit}"
    )


def make_fine_tuning(
    frozen: FrozenEncoder, recipe: Recipe, parts: Parts, request: EvalRequest
) -> FineTuning:
    """Compiles nothing yet; checks that the recipe fits images and devices.

    Batch norm has the statistics of all devices or of each device, as in the run. The
    groups of `batch_norm=split:N` are not used: they hide from MoCo which images of a
    batch are crops of one image, and labels have nothing to hide.

    Raises:
        ValueError: if the batch size does not fit the images or the devices.
    """
    config = frozen.spec.config
    # of several devices, no more than have two images each
    used = list(frozen.mesh.devices.flat)[: max(1, len(parts.train) // 2)]
    frozen = dataclasses.replace(frozen, mesh=make_mesh(used))
    devices = len(used)
    batch_size = recipe.fitting(len(parts.train), devices)
    if "batch_size" in request.options:
        batch_size = request.options["batch_size"]
        _require_batch_size(batch_size, len(parts.train), devices)
    shared = config.batch_norm == "global"
    if not shared and batch_size < 2 * devices:
        raise ValueError(
            f"--batch_size={batch_size} must be 2 images or more on each of the "
            f"{devices} devices, because batch norm sets one image to 0; use e.g. "
            f"{2 * devices}, or more --labels"
        )
    norm = networks.make_norm("global" if shared else "per_device")
    encoder = networks.make_encoder(config.encoder, norm)
    spec = dataclasses.replace(frozen.spec, encoder=encoder)
    frozen = dataclasses.replace(frozen, spec=spec)
    method = FineTune(
        encoder=encoder,
        variables=frozen.state.variables(ENCODER),
        num_classes=parts.train.num_classes,
        make_optimizer=functools.partial(_sgd, recipe),
        schedule=SCHEDULES[recipe.schedule],
    )
    training = make_crop_training(
        frozen,
        method,
        area=recipe.area,
        aspect=recipe.aspect,
        flip_prob=recipe.flip_prob,
    )
    first, step = first_and_step(training, frozen.mesh)
    return FineTuning(
        recipe, frozen, parts, batch_size, first, step, training.recorded(), request
    )


def _sgd(recipe: Recipe, rate: Any, decay: Any) -> Any:
    return optim.sgd(
        rate, momentum=recipe.momentum, weight_decay=decay, nesterov=recipe.nesterov
    )


def _require_batch_size(batch_size: int, num_images: int, num_devices: int) -> None:
    if batch_size > num_images:
        raise ValueError(
            f"--batch_size={batch_size} exceeds the {num_images} training images; use "
            "a smaller batch size"
        )
    if batch_size % num_devices:
        raise ValueError(
            f"--batch_size={batch_size} must be a multiple of the {num_devices} "
            f"devices; use e.g. {max(1, batch_size // num_devices) * num_devices}"
        )


def evaluate(frozen: FrozenEncoder, request: EvalRequest) -> EvalResult | None:
    """Fine-tunes an encoder and a classifier, or resumes in the request's folder.

    The options are `recipe`, one of RECIPES, and values for the axes of its grid. The
    trained classifier is written to the sub-folder `classifier`.

    Returns:
        The result; None if the evaluation was stopped before its end.

    Raises:
        ValueError: if an option is out of range, if images do not have one label each,
            if the batch size does not fit, if the training diverges, or if a folder
            belongs to another evaluation or is in use.
        FileNotFoundError: if the data set is not found.
    """
    recipe = chosen_recipe(request.options)
    parts = make_parts(frozen)
    tuning = make_fine_tuning(frozen, recipe, parts, request)
    found = tuning.best(functools.partial(print, file=sys.stderr))
    if found is None:
        return None
    trial, choice = found
    title = f"training on {len(parts.both):,} images: {_text(trial, recipe.unit)}"
    try:
        state = tuning.trained(trial, parts.both, request.folder / "final", title)
    except FloatingPointError as error:
        raise ValueError(
            f"the training diverges ({error}); give a lower --learning_rate than "
            f"{trial.learning_rate}"
        ) from error
    if state is None:
        return None
    scores, labels = tuning.scores(state, make_eval_crops(frozen.spec, parts.test))
    metrics = dict.fromkeys(("top1", "top5", parts.metric))
    values = {f"finetune/{x}": 100 * METRICS[x](scores, labels) for x in metrics}
    folder = request.folder / "classifier"
    classifier_folder.write(
        folder,
        config=frozen.spec.config,
        sizes=_sizes(frozen, parts.test),
        backbone=dataclasses.replace(frozen, state=state).backbone.variables,
        linear=jax.device_get(state.params[LINEAR]),
        class_names=parts.class_names,
        source=f"{frozen.source}, fine-tuned on {len(parts.both):,} images of "
        f"{parts.both.origin}",
    )
    num_steps = int(state.step)
    setting = recipe.setting(trial, num_steps)._asdict()
    return EvalResult(
        protocol="finetune: all weights, SGD on random crops",
        values=values,
        splits={name: len(getattr(parts, name)) for name in ("train", "val", "test")},
        settings={
            "recipe": request.options.get("recipe", DEFAULT),
            **setting,
            "batch_size": tuning.batch_size,
            **{name: getattr(recipe, name) for name in RECORDED},
            **choice,
            "classifier": str(folder),
        },
        augmentation=f"random crops of area {recipe.area}, flip {recipe.flip_prob}",
        notes=(
            f"setting: {_text(trial, recipe.unit)}; {choice['chosen']}",
            f"next, classify images: python -m logo_jax.predict DIR --classifier="
            f"{shlex.quote(str(folder))}",
        ),
    )


def _sizes(frozen: FrozenEncoder, images: ImageSource) -> tuple[int, int]:
    """The short side and the crop with which other images are as those of a test.

    If square images of one size are tested as they are, others become that size.
    """
    monitor = frozen.spec.config.monitor
    if monitor.resize:
        return monitor.resize, monitor.crop
    height, width = images.largest or (0, 1)
    return (height, height) if height == width else (0, 0)


PROTOCOL = Protocol(
    "finetune",
    evaluate,
    reads=READS,
    recipes=tuple(RECIPES),
)
