"""Trains a linear probe in a folder of its own, and tests it; resumes as runs do."""

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from logo_jax.augment.multi_crop import prepare_eval
from logo_jax.data.load import ExperimentData
from logo_jax.data.sources.base import ImageSource
from logo_jax.evaluation.features import LabeledImages, extract
from logo_jax.evaluation.knn_monitor import make_encode_with
from logo_jax.evaluation.metrics import METRICS
from logo_jax.experiment import (
    ExperimentSpec,
    make_eval_crops,
    make_loader,
    num_classes,
)
from logo_jax.experiment.probe import Probe, Recipe, frozen_encoder, make_probe
from logo_jax.methods.base import LINEAR, TrainState
from logo_jax.methods.linear import logits
from logo_jax.parallel.mesh import batch_sharding, replicate
from logo_jax.training import workdir
from logo_jax.training.checkpoints.manager import CheckpointManager
from logo_jax.training.logging.metric_writer import MetricWriter
from logo_jax.training.logging.progress import Progress
from logo_jax.training.logging.train_log import TrainLog
from logo_jax.training.loop import Loader, train
from logo_jax.training.preemption import PreemptionHandler
from logo_jax.training.schedule import TrainingSchedule
from logo_jax.training.train_step import TrainStep, make_train_step


def linear_probe(
    spec: ExperimentSpec,
    state: TrainState,
    data: ExperimentData,
    mesh: Mesh,
    recipe: Recipe,
    folder: pathlib.Path,
    *,
    source: str,
    dataset: str = "",
    seed: int = 0,
    quiet: bool = False,
    stop: PreemptionHandler | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float] | None:
    """Percent of the test set that a linear classifier gets right, top1 and top5.

    It is trained on random crops of the training set, in one process, and tested on
    each test image once, on the squares that kNN uses. The same call goes on where it
    was stopped; one that is done is only tested.

    Args:
        spec: of the run.
        state: of one seed of the run; only the encoder counts, and it is not donated.
        data: labelled, one class an image.
        mesh: the devices.
        recipe: how the classifier is trained.
        folder: of the probe, such as RUN/linear/moco; made if absent. It belongs to
            this recipe, data set, seed and checkpoint.
        source: what the state is from, such as "step 100".
        dataset: names the data in the folder's config.
        seed: of weights, crops and order.
        quiet: shows no progress.
        stop: read between steps, as in `train`.
        clock: seconds, for the throughput.

    Returns:
        `linear/top1` and `linear/top5`; None where it was stopped before the end.

    Raises:
        ValueError: for data without one label an image, a batch that does not fit, or
            a folder that belongs to another probe or is in use.
    """
    stop = stop or PreemptionHandler()
    bank, queries = _labelled(data)
    _require_divisible(recipe, mesh)
    probe = make_probe(
        spec,
        frozen_encoder(state),
        recipe,
        num_classes=num_classes(bank, "a linear probe"),
        num_images=len(bank),
    )
    config = {
        "recipe": dataclasses.asdict(recipe),
        "dataset": dataset or bank.origin,
        "encoder": source,
        "crop": dataclasses.asdict(probe.crop),
        "augment": dataclasses.asdict(probe.augment),
        "seed": seed,
    }
    workdir.check_config(folder, config)
    with contextlib.ExitStack() as held:
        held.enter_context(workdir.lock_workdir(folder))
        workdir.claim_workdir(folder, config)
        checkpoints = held.enter_context(CheckpointManager(folder / "checkpoints"))
        keys = jax.random.split(jax.random.key(seed), 3)
        first = probe.init(keys[0])
        start, found = checkpoints.restore_latest(first) or (0, first)
        trained = replicate(found, mesh)
        if start < probe.plan.num_steps:
            trained = _trained(
                trained,
                train_step(probe, mesh, keys[1:]),
                *make_loader(spec.config.data, bank, mesh, recipe.batch_size, (seed,)),
                probe.plan,
                folder,
                quiet=quiet,
                checkpoints=checkpoints,
                clock=clock,
                preemption=stop,
            )
    if stop.requested():
        return None
    squares = make_eval_crops(spec, queries, 0)
    return tested(spec, state, trained.params[LINEAR], squares, mesh)


def _trained(
    state: TrainState,
    stepped: Callable[..., Any],
    loader: Loader,
    line: str,
    plan: TrainingSchedule,
    folder: pathlib.Path,
    *,
    quiet: bool,
    clock: Callable[[], float],
    **how: Any,
) -> TrainState:
    """The state at the plan's end, or where it was stopped; says `line` first."""
    start = int(state.step)
    with (
        MetricWriter(folder, resume_step=start) as writer,
        Progress(plan.num_steps, initial=start, quiet=quiet) as progress,
    ):
        progress.say(line)
        return train(
            state,
            stepped,
            loader,
            plan,
            log=TrainLog(writer, progress, plan, clock=clock),
            **how,
        )


def train_step(probe: Probe, mesh: Mesh, keys: jax.Array) -> TrainStep:
    """The compiled step of a probe, with keys for its crops and its steps, [2]."""
    return make_train_step(probe.method.update, probe.make_batch, mesh, keys)


def tested(
    spec: ExperimentSpec,
    state: TrainState,
    classifier: Mapping[str, Any],
    images: LabeledImages,
    mesh: Mesh,
) -> dict[str, float]:
    """Percent of images, each once, whose class has the best score, or one of five.

    Args:
        spec: of the run.
        state: of the run.
        classifier: `kernel` and `bias`.
        images: labelled squares.
        mesh: the devices.
    """
    encode_with = make_encode_with(
        spec.encoder,
        functools.partial(prepare_eval, spec=spec.config.augment),
        batch_sharding(mesh),
        ("backbone",),
    )
    encode = encode_with(replicate(state, mesh))
    found = extract(encode, images, batch_size=spec.config.data.batch_size)["backbone"]
    scores = np.asarray(logits(jax.device_get(classifier), found.features))
    return {
        f"linear/{name}": 100 * METRICS[name](scores, found.labels)
        for name in ("top1", "top5")
    }


def _labelled(data: ExperimentData) -> tuple[ImageSource, ImageSource]:
    if data.bank is None or data.queries is None:
        raise ValueError(
            f"{data.train.origin} must have a labelled training and test set for a "
            "linear probe; give another data set"
        )
    return data.bank, data.queries


def _require_divisible(recipe: Recipe, mesh: Mesh) -> None:
    if recipe.batch_size % mesh.devices.size:
        raise ValueError(
            f"the recipe's batch_size={recipe.batch_size} must be a multiple of the "
            f"{mesh.devices.size} devices; use a multiple of it"
        )
