"""A config with its data on the devices, ready to train."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Self

import jax
import numpy as np
from jax.sharding import Mesh

from logo_jax.augment.multi_crop import prepare_eval
from logo_jax.data.canvas import canvas_size, read_canvases
from logo_jax.data.eval_crops import EvalCrops, depth_notes, evenly_spaced
from logo_jax.data.load import ExperimentData, load_images
from logo_jax.data.loader import Examples
from logo_jax.data.sources.base import ImageSource
from logo_jax.evaluation.knn_monitor import KnnMonitor, make_encode_with
from logo_jax.experiment import networks
from logo_jax.experiment.config import Config, parse
from logo_jax.experiment.data import (
    Loader,
    decode_in_memory,
    make_loader,
    num_classes,
)
from logo_jax.experiment.measured import with_measured
from logo_jax.experiment.spec import ExperimentSpec, make_spec
from logo_jax.methods.base import TrainState
from logo_jax.parallel.mesh import batch_sharding, replicate
from logo_jax.parallel.program_cache import kept
from logo_jax.training.logging.wandb import require_wandb
from logo_jax.training.train_step import TrainStep, make_train_step

NUM_SHOWN = 4


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A config with its data on the devices, ready to train.

    Attributes:
        spec: the objects that the config describes, with what was measured on images.
        mesh: the devices.
        loader: loader of batches, by step number.
        loading: lines that state which images are used and how they are kept, and what
            is used for kNN, or why there is none.
        train_step: `(state, examples, epoch) -> (state, metrics)`, compiled.
        monitor: kNN evaluation during training; None without labels or a test set.
        shown: some of the training images, for figures.
    """

    spec: ExperimentSpec
    mesh: Mesh
    loader: Loader
    loading: str
    train_step: TrainStep
    monitor: KnnMonitor | None
    shown: Examples

    def init(self) -> TrainState:
        """Returns the state before the first step, on every device."""
        return replicate(self.spec.first_state(), self.mesh)

    def rolled_back(self, times: int) -> Self:
        """Returns the experiment with other crops and noise; itself if `times` is 0."""
        if not times:
            return self
        keys = compiled_step(self.spec, self.mesh, times).keys
        step = self.train_step._replace(keys=keys)
        return dataclasses.replace(self, train_step=step)


def make_experiment(
    config: Mapping[str, Any] | Config,
    mesh: Mesh,
    images: ExperimentData | None = None,
) -> Experiment:
    """Makes everything that a config describes, on the devices of the mesh.

    Images are listed first, which is fast, and decoded after all fields have been
    checked.

    Args:
        config: every field of configs/base.py for its method.
        mesh: the devices.
        images: the images; if None, those that the config's data group selects.

    Raises:
        ValueError: as `make_spec`, and if the data do not fit the config.
        FileNotFoundError: if the data do not exist.
    """
    config = parse(config)
    require_wandb(config.monitor.wandb)
    images = images or load_images(config.data.location)
    spec = make_spec(
        config,
        num_devices=mesh.devices.size,
        steps_per_epoch=_steps_per_epoch(config, images.train),
        num_classes=_num_classes(config, images.train),
    )
    state = spec.check(mesh.devices.size)
    config, images, values = with_measured(config, images)
    if config is not spec.config:  # otherwise the spec keeps the traced `init`
        spec = dataclasses.replace(spec, config=config)
    notes = [*images.notes, *depth_notes(images.train), *values]
    data = decode_in_memory(config.data, images)
    monitor = knn_monitor(spec, data, mesh)
    _require_metric(spec, state, monitor, images)
    loader, loading = make_loader(
        config.data, data.train, mesh, config.data.batch_size, spec.schedule.seeds
    )
    return Experiment(
        spec=spec,
        mesh=mesh,
        loader=loader,
        loading="\ndata: ".join([f"{loading}; {_knn(images, monitor)}", *notes]),
        train_step=_kept_step(spec, mesh, loader),
        monitor=monitor,
        shown=some_of(data.train, spec),
    )


def _require_metric(
    spec: ExperimentSpec,
    state: TrainState,
    monitor: KnnMonitor | None,
    images: ExperimentData,
) -> None:
    """Raises unless the metric that keeps the best checkpoint will be measured."""
    metric, seeds = spec.config.train.keep_best, spec.schedule.seeds
    if not metric:
        return
    if monitor is None or images.queries is None:
        raise ValueError(
            f"config.train.keep_best={metric!r} needs kNN during training, and there "
            f"is none ({images.why_no_queries}); leave it empty"
        )
    (first,) = images.queries.records([0])
    names = monitor.names(state, several_labels=np.ndim(first.label) > 0)
    stem, _, seed = metric.rpartition("/seed_")
    of_seed = len(seeds) > 1 and stem in names and seed in map(str, seeds)
    if metric not in names and not of_seed:
        more = ", or one of these with /seed_I for a seed" if len(seeds) > 1 else ""
        raise ValueError(
            f"config.train.keep_best={metric!r} must be a metric of the evaluations: "
            f"{', '.join(names)}{more}"
        )


def _knn(data: ExperimentData, monitor: KnnMonitor | None) -> str:
    """A phrase that states the bank and the queries, or why there is no kNN."""
    if monitor is None or data.queries is None:
        return f"no kNN: {data.why_no_queries}"
    return (
        f"kNN: bank of {len(monitor.bank):,}, queries {len(monitor.queries):,} of "
        f"{data.queries.origin}" + (f" ({data.remark})" if data.remark else "")
    )


def some_of(images: ImageSource, spec: ExperimentSpec) -> Examples:
    """Returns a few of the images on their canvases, evenly spaced among all images."""
    ids = evenly_spaced(len(images), NUM_SHOWN)
    canvas = canvas_size(images, spec.config.data.canvas)
    stored = read_canvases(images, ids, canvas)
    return Examples(stored.images, stored.sizes, ids, stored.labels)


def _steps_per_epoch(config: Config, images: ImageSource) -> int:
    batch_size = config.data.batch_size
    if batch_size > len(images):
        raise ValueError(
            f"config.data.batch_size={batch_size} exceeds the {len(images)} training "
            "images; use a smaller batch size"
        )
    return len(images) // batch_size


def _num_classes(config: Config, images: ImageSource) -> int:
    """Returns the number of classes of the online linear classifier; 0 without one."""
    if not config.monitor.linear:
        return 0
    return num_classes(images, "config.monitor.linear=True")


def _kept_step(spec: ExperimentSpec, mesh: Mesh, loader: Loader) -> TrainStep:
    """Returns the compiled train step, whose program is kept on disk if possible."""
    step, identity = compiled_step(spec, mesh), spec.identity
    identity = identity and f"{identity} {loader.shapes()}"
    devices = list(mesh.devices.flat)
    return step._replace(compiled=kept(step.compiled, "step", identity, devices))


def compiled_step(spec: ExperimentSpec, mesh: Mesh, rollbacks: int = 0) -> TrainStep:
    """Returns the compiled train step.

    Each number of rollbacks has other crops and noise.
    """
    keys = spec.keys("crops", "steps")
    if rollbacks:
        fold = functools.partial(jax.random.fold_in, data=rollbacks)
        keys = jax.vmap(fold)(keys.reshape(-1)).reshape(keys.shape)
    return make_train_step(spec.update, spec.make_batch, mesh, keys)


def knn_monitor(
    spec: ExperimentSpec, data: ExperimentData, mesh: Mesh
) -> KnnMonitor | None:
    """Returns the kNN monitor of a config; None if labels are missing."""
    if data.bank is None or data.queries is None:
        return None
    config = spec.config.monitor
    sizes = data.bank.largest, data.queries.largest
    if None not in sizes and sizes[0] != sizes[1] and not config.resize:
        raise ValueError(
            f"train and test images differ in size: {data.bank.origin} has size "
            f"{sizes[0]}, {data.queries.origin} has size {sizes[1]}; set "
            "config.monitor.resize and config.monitor.crop, e.g. to 36 and 32"
        )
    if sizes[1] and not config.resize:
        _check_whole_images(spec, sizes[1], mesh.devices.size)
    layers = ("backbone", "projector") if config.projector else ("backbone",)
    return KnnMonitor(
        encode_with=make_encode_with(
            spec.encoder,
            functools.partial(prepare_eval, spec=spec.config.augment.policy),
            batch_sharding(mesh),
            layers,
        ),
        layers=layers,
        bank=make_eval_crops(spec, data.bank, config.train_examples),
        queries=make_eval_crops(spec, data.queries, config.test_examples),
        settings=config.knn,
        num_classes=max(data.bank.num_classes, data.queries.num_classes),
        batch_size=spec.config.data.batch_size,
        mesh=mesh,
        num_seeds=len(spec.schedule.seeds),
    )


def _check_whole_images(
    spec: ExperimentSpec, size: tuple[int, int], num_devices: int
) -> None:
    """Raises unless the backbone can encode images that the monitor does not crop."""
    side, channels = spec.crops["global_crops"].size, spec.config.data.channels
    networks.check_backbone(
        spec.encoder.backbone,
        spec.config.encoder,
        spec.config.data.batch_size // num_devices,
        [(side, side, channels), (*size, channels)],
    )


def make_eval_crops(
    spec: ExperimentSpec, images: ImageSource, limit: int = 0
) -> EvalCrops:
    """Crops at most `limit` of the images, or all if it is 0, as the monitor does.

    Raises:
        ValueError: if images may differ in size and the config does not resize them.
    """
    config = spec.config
    if images.largest is None and not config.monitor.resize:
        raise ValueError(
            f"images of {images.origin} may differ in size, but evaluations need one "
            "size and config.monitor.resize=0 keeps theirs; set it to a short side, "
            "e.g. 256, and config.monitor.crop, e.g. to 224, or give evaluate --resize "
            "and --crop"
        )
    return EvalCrops(
        source=images,
        ids=evenly_spaced(len(images), limit),
        max_corrupt=config.data.max_corrupt,
        resize=config.monitor.resize,
        crop=config.monitor.crop,
        threads=config.data.threads,
    )
