"""The state before the first step: initialized, or with the weights of a file or run.

`config.encoder.weights` gives the backbone starting weights; the head and the other
networks are initialized. `config.train.start_from` takes the whole state of a run. The
config of a run records what was read (`encoder.weights_record`, `train.start_record`),
so that it is known later, and a run that starts again starts from the same weights.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from logo_jax import zoo
from logo_jax.experiment import pretrained
from logo_jax.experiment.measured import completed
from logo_jax.experiment.spec import ExperimentSpec, make_spec
from logo_jax.interop import channels, pretrained_files
from logo_jax.methods.base import ENCODER, TrainState
from logo_jax.parallel import processes
from logo_jax.parallel.mesh import all_devices, make_mesh
from logo_jax.storage.paths import as_path
from logo_jax.training import workdir
from logo_jax.training.checkpoints.manager import CheckpointManager

# (group, field with the source, field with its record)
FIELDS = (
    ("encoder", "weights", "weights_record"),
    ("train", "start_from", "start_record"),
)


def recorded(config: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """Returns a config with absolute paths and records of its starting weights.

    The weights are read for their record. If the folder has a run of the same source,
    its record is kept and nothing is read: a run can be resumed without the source.

    Args:
        config: the config as nested mappings.
        folder: the folder of the run; None if it is not known.

    Raises:
        FileNotFoundError: if the source does not exist.
        ValueError: if the source cannot be read or does not fit the config's networks;
            the message names the first tensor that differs.
    """
    config = with_known_records(config, folder)
    groups = [(config[group], *names) for group, *names in FIELDS]
    if not any(group[source] and not group[record] for group, source, record in groups):
        return config
    spec = make_spec(config, num_devices=1)
    _, records = _with_sources(spec.shapes, spec)
    for (group, _, record), text in zip(FIELDS, records, strict=True):
        config[group] |= {record: text}
    return config


def with_known_records(
    config: Mapping[str, Any], folder: Path | None
) -> dict[str, Any]:
    """Returns a config with absolute paths, and a run's records and measured fields.

    Args:
        config: the config as nested mappings.
        folder: the folder of the run; None if it is not known.
    """
    has_run = folder is not None and (folder / workdir.CONFIG_FILE).exists()
    saved = workdir.read_config(folder) if folder and has_run else {}
    saved, changed = map(workdir.with_absolute_paths, (saved, config))
    changed = completed(changed, dict(workdir.flatten(saved)))
    for group, source, record in FIELDS:
        fields, known = dict(config.get(group, {})), saved.get(group, {})
        same = fields.get(source) == known.get(source)
        changed[group] = fields | {record: known.get(record, "") if same else ""}
    return changed


def first_state(spec: ExperimentSpec) -> TrainState:
    """Returns the state before the first step, with the config's starting weights.

    The sources are read by the first process only.

    Raises:
        FileNotFoundError: if a source does not exist.
        ValueError: if a source cannot be read, does not fit the networks, or has
            changed since the run began.
    """
    state = spec.first_state()
    sources = (spec.config.encoder.weights, spec.config.train.start_from)
    if not any(sources) or not processes.is_first():
        return state
    state, records = _with_sources(state, spec)
    expected = (spec.config.encoder.weights_record, spec.config.train.start_record)
    for source, before, now in zip(sources, expected, records, strict=True):
        if before and before != now:
            raise ValueError(
                f"{source} has changed since the run began (from {before} to {now}); "
                "restore it, or use another --workdir"
            )
    return state


def _with_sources(
    state: Any, spec: ExperimentSpec
) -> tuple[TrainState, tuple[str, str]]:
    """Returns the state with the weights of both sources, and their records."""
    weights, start = spec.config.encoder.weights, spec.config.train.start_from
    if weights and start:
        raise ValueError(
            f"config.encoder.weights={weights!r} and config.train.start_from={start!r} "
            "exclude each other; remove one of the two"
        )
    if weights:
        step = _recorded_step(spec.config.encoder.weights_record)
        state, record = _with_backbone(state, weights, step)
        return state, (record, "")
    if start:
        step = _recorded_step(spec.config.train.start_record)
        state, record = _continued(state, start, step)
        return state, ("", record)
    return state, ("", "")


def _recorded_step(record: str) -> int | None:
    """Returns the step of the run that a record names; None: the newest one.

    A run that is still trained has newer steps when the new run is started again.

    >>> _recorded_step("step 20, 4 tensors"), _recorded_step("no prefix, 4 tensors")
    (20, None)
    """
    found = re.match(r"step (\d+)", record)
    return int(found[1]) if found else None


def _with_backbone(
    state: TrainState, source: str, step: int | None
) -> tuple[TrainState, str]:
    """Replaces the backbone of the encoder and of momentum encoders."""
    field = f"config.encoder.weights={source!r}"
    path = _existing(source, field)
    if pretrained.is_run(path):
        one_device = make_mesh(all_devices()[:1])
        with _naming(field):
            run = pretrained.from_run(
                path.absolute(), workdir.read_config(path), one_device, step=step
            )
        if len(run.spec.schedule.seeds) > 1:
            raise ValueError(
                f"{field} has several seeds; write one of them to a file by "
                "python -m logo_jax.convert --seed, and give that"
            )
        backbone, origin = run.backbone, run.source
    else:
        backbone = pretrained_files.read(path)
        origin = f"prefix {backbone.prefix!r}" if backbone.prefix else "no prefix"
    weights = jax.tree.map(lambda x: np.asarray(x, np.float32), backbone.variables)
    encoder = state.variables(ENCODER)
    own = {name: group.get("backbone", {}) for name, group in encoder.items()}
    seed_axes = len(state.step.shape)
    fitted = jax.tree.map(lambda x: x, weights)
    if jax.tree.structure(weights) == jax.tree.structure(own):
        fitted = jax.tree.map_with_path(
            lambda path, x, y: channels.for_channels(path, x, np.shape(y)[seed_axes:]),
            weights,
            own,
        )
    _require_same(fitted, own, seed_axes, field)
    record = pretrained.describe_weights(origin, weights)
    if _shapes(fitted) != _shapes(weights):
        record += f", {channels.NOTE}"
    return pretrained.with_backbone(state, fitted), record


def _continued(
    state: TrainState, source: str, step: int | None
) -> tuple[TrainState, str]:
    """Takes a state of a run, and sets its step and schedules to 0."""
    field = f"config.train.start_from={source!r}"
    path = _existing(source, field)
    workdir.read_config(path)  # raises if it is not the folder of a run
    with CheckpointManager(path.absolute() / "checkpoints", read_only=True) as saved:
        if step is None:
            found = saved.restore_latest(state, start_average=True)
        else:
            with _naming(field):
                found = step, saved.restore(step, state, start_average=True)
    if found is None:
        raise ValueError(f"{field} has no checkpoint yet; train it first")
    step, state = found
    record = pretrained.describe_weights(f"step {step}", state)
    return _from_step_0(state), record


@contextlib.contextmanager
def _naming(field: str) -> Iterator[None]:
    """Adds the field to an error about the checkpoint that the run began with."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{field}: {error}; or use another --workdir") from error


def _from_step_0(state: TrainState) -> TrainState:
    """Sets the step and the steps that learning-rate schedules count to 0."""

    def is_schedule(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    def restart(node: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, node) if is_schedule(node) else node

    return state.replace(
        step=jnp.zeros_like(state.step),
        opt_states=jax.tree.map(restart, state.opt_states, is_leaf=is_schedule),
    )


def _existing(source: str, field: str) -> Path:
    path = zoo.located(as_path(source))
    if not path.exists():
        raise FileNotFoundError(
            f"{field} does not exist; give the folder of a run"
            + (", or a file of weights" if "weights" in field else "")
        )
    return path


def _require_same(weights: Any, own: Any, seed_axes: int, field: str) -> None:
    """Raises an error that names the first tensor in which two backbones differ."""
    given, wanted = _shapes(weights), _shapes(own)
    wanted = {name: shape[seed_axes:] for name, shape in wanted.items()}
    for name in sorted(given | wanted):
        if given.get(name) != wanted.get(name):
            texts = [str(x.get(name, "no such tensor")) for x in (given, wanted)]
            raise ValueError(
                f"{field} does not fit the config's backbone: {name} has shape "
                f"{texts[0]} in the weights and {texts[1]} in the backbone; use the "
                "weights and the config of the same network"
            )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }
