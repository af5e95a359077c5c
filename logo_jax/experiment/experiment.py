"""A description with its data on the devices, ready to run."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Self

import jax
from jax.sharding import Mesh

from logo_jax.augment.multi_crop import prepare_eval
from logo_jax.data.canvas import canvas_size, read_canvases
from logo_jax.data.eval_crops import EvalCrops, evenly_spaced
from logo_jax.data.load import ExperimentData
from logo_jax.data.loader import Examples
from logo_jax.data.sources.base import ImageSource
from logo_jax.evaluation.knn_monitor import KnnMonitor, make_encode_with
from logo_jax.experiment.data import Loader, load_data, make_loader, num_classes
from logo_jax.experiment.spec import ExperimentSpec, make_spec
from logo_jax.methods.base import TrainState
from logo_jax.parallel.mesh import batch_sharding, replicate
from logo_jax.training.logging.wandb import require_wandb
from logo_jax.training.train_step import TrainStep, make_train_step

NUM_SHOWN = 4


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A description with its data on the devices, ready to run.

    Attributes:
        description: what the config says.
        mesh: the devices.
        loader: batches by step number.
        loading: one line on how they come.
        train_step: `(state, examples, epoch) -> (state, metrics)`, compiled.
        monitor: kNN while training; None without labels or a test set.
        shown: some of the training images, for pictures.
    """

    description: ExperimentSpec
    mesh: Mesh
    loader: Loader
    loading: str
    train_step: TrainStep
    monitor: KnnMonitor | None
    shown: Examples

    def init(self) -> TrainState:
        """The state before the first step, on every device."""
        return replicate(self.description.first_state(), self.mesh)

    def rolled_back(self, times: int) -> Self:
        """The experiment with other crops and noise; itself for no times."""
        if not times:
            return self
        step = train_step(self.description, self.mesh, times)
        return dataclasses.replace(self, train_step=step)


def make_experiment(config: Mapping[str, Any], mesh: Mesh) -> Experiment:
    """Everything a config describes, on the devices of the mesh.

    Raises:
        ValueError: as `describe`, and where data do not fit; before data are read for
            all that does not depend on them.
        FileNotFoundError: where the data are not there.
    """
    num_devices = mesh.devices.size
    first = make_spec(config, num_devices=num_devices)
    require_wandb(first.monitor["wandb"])
    jax.eval_shape(first.init)  # a queue or crops that do not fit show here
    data = load_data(first.data)
    steps_per_epoch = len(data.train) // first.batch_size
    if not steps_per_epoch:
        raise ValueError(
            f"config.data.batch_size={first.batch_size} exceeds the "
            f"{len(data.train)} training images; use a smaller one"
        )
    description = make_spec(
        config,
        num_devices=num_devices,
        steps_per_epoch=steps_per_epoch,
        num_classes=_num_classes(first, data.train),
    )
    monitor = knn_monitor(description, data, mesh)
    loader, loading = make_loader(
        description.data, data.train, mesh, first.batch_size, description.plan.seeds
    )
    return Experiment(
        description=description,
        mesh=mesh,
        loader=loader,
        loading=loading if monitor else f"{loading}; no labelled test set: no kNN",
        train_step=train_step(description, mesh),
        monitor=monitor,
        shown=some_of(data.train, description),
    )


def some_of(images: ImageSource, description: ExperimentSpec) -> Examples:
    """A few of the images on their canvases, evenly spread over all of them."""
    ids = evenly_spaced(len(images), NUM_SHOWN)
    canvas = canvas_size(images, description.data.canvas)
    stored = read_canvases(images, ids, canvas)
    return Examples(stored.images, stored.sizes, ids, stored.labels)


def _num_classes(description: ExperimentSpec, images: ImageSource) -> int:
    """Of the classifier that learns beside the network; 0 where there is none."""
    if not description.monitor["linear"]:
        return 0
    return num_classes(images, "config.monitor.linear=True")


def train_step(
    description: ExperimentSpec, mesh: Mesh, rollbacks: int = 0
) -> TrainStep:
    """The compiled step of what a config describes.

    After so many rollbacks crops and noise are drawn anew.
    """
    keys = description.keys("crops", "steps")
    if rollbacks:
        fold = functools.partial(jax.random.fold_in, data=rollbacks)
        keys = jax.vmap(fold)(keys.reshape(-1)).reshape(keys.shape)
    return make_train_step(
        description.method.update, description.make_batch, mesh, keys
    )


def knn_monitor(
    description: ExperimentSpec, data: ExperimentData, mesh: Mesh
) -> KnnMonitor | None:
    """The kNN monitor a config asks for; None where labels are missing."""
    if data.bank is None or data.queries is None:
        return None
    fields = description.monitor
    sizes = data.bank.largest, data.queries.largest
    if None not in sizes and sizes[0] != sizes[1] and not fields["resize"]:
        raise ValueError(
            f"images of {data.bank.origin} are of size {sizes[0]}, of "
            f"{data.queries.origin} {sizes[1]}: kNN compares equals; set "
            "config.monitor.resize and config.monitor.crop, e.g. to 36 and 32"
        )
    return KnnMonitor(
        encode_with=make_encode_with(
            description.encoder,
            functools.partial(prepare_eval, spec=description.augment),
            batch_sharding(mesh),
            ("backbone", "projector") if fields["projector"] else ("backbone",),
        ),
        bank=make_eval_crops(description, data.bank, fields["train_examples"]),
        queries=make_eval_crops(description, data.queries, fields["test_examples"]),
        settings=fields["knn"],
        num_classes=max(data.bank.num_classes, data.queries.num_classes),
        batch_size=description.batch_size,
        mesh=mesh,
        num_seeds=len(description.plan.seeds),
    )


def make_eval_crops(
    description: ExperimentSpec, images: ImageSource, limit: int
) -> EvalCrops:
    """So many of the images, or all for 0, as a config's monitor sees them.

    Raises:
        ValueError: where they may differ in size, and it names no size for them.
    """
    if images.largest is None and not description.monitor["resize"]:
        raise ValueError(
            f"images of {images.origin} may differ in size: config.monitor.resize=0 "
            "must be their short side for kNN; use e.g. 256, and 224 for "
            "config.monitor.crop"
        )
    return EvalCrops(
        source=images,
        ids=evenly_spaced(len(images), limit),
        max_corrupt=description.data.max_corrupt,
        resize=description.monitor["resize"],
        crop=description.monitor["crop"],
        threads=description.data.threads,
    )
