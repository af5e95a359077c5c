"""Whether a training step fits the memory of the devices, and settings that do."""

import dataclasses
import logging
import math
from collections.abc import Iterator
from typing import Any

import jax
from jax.extend.core import jaxprs_in_params
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from logo_jax.data.loader import OnDeviceLoader
from logo_jax.experiment.data import usable_memory
from logo_jax.experiment.experiment import Experiment, compiled_step
from logo_jax.experiment.networks import norm_groups
from logo_jax.experiment.spec import ExperimentSpec, make_spec
from logo_jax.training.train_step import TrainStep

_log = logging.getLogger(__name__)

SURE = 0.5  # a step whose arrays take less than this share of the memory surely fits
AIM = 0.9  # share of the memory that a proposed setting may need
GIB = 2**30


def fitted(experiment: Experiment) -> Experiment:
    """Returns the experiment, after checking that its step fits the devices' memory.

    If it is not obvious from the sizes of the arrays that the step fits, the step is
    compiled, and the experiment that is returned has the compiled step.

    Raises:
        ValueError: if the step does not fit; the message has settings that fit.
    """
    limit, owner = usable_memory(experiment.mesh)
    ((examples, epoch),) = experiment.loader.batches(0, 1)
    state = _on_mesh(jax.eval_shape(experiment.spec.init), experiment)
    traced = experiment.train_step.trace(state, examples, epoch)
    stored = stored_bytes(experiment)
    if _largest(traced.jaxpr.jaxpr) + stored < SURE * limit:
        return experiment
    compiled = traced.lower().compile()
    needed = step_bytes(compiled) + stored
    if needed > limit:
        _log.warning("the step does not fit the memory; compiling smaller ones")
        settings = _settings_that_fit(experiment, examples, epoch, limit)
        remedy = " or ".join(settings) or "smaller crops or a smaller network"
        raise ValueError(
            f"a training step needs {needed / GIB:.3g} GiB per device, more than "
            f"{owner} {limit / GIB:.3g} GiB; use {remedy}"
        )
    step = experiment.train_step._replace(compiled=compiled)
    return dataclasses.replace(experiment, train_step=step)


def step_bytes(compiled: Any) -> int:
    """Returns the bytes of a device that a compiled step needs, with its code."""
    used = compiled.memory_analysis()
    return (
        used.argument_size_in_bytes
        + used.output_size_in_bytes
        + used.temp_size_in_bytes
        + used.generated_code_size_in_bytes
        - used.alias_size_in_bytes
    )


def stored_bytes(experiment: Experiment) -> int:
    """Returns the bytes of the images kept in the memory of each device."""
    loader = experiment.loader
    return loader.images.nbytes if isinstance(loader, OnDeviceLoader) else 0


def _on_mesh(tree: Any, experiment: Experiment) -> Any:
    """Gives shapes the sharding of an array that every device has."""
    sharding = NamedSharding(experiment.mesh, P())
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )


def _largest(jaxpr: Any) -> int:
    """An upper bound of the bytes of a program: those of all its arrays together."""
    total = 0
    for equation in jaxpr.eqns:
        total += sum(_bytes(x.aval) for x in equation.outvars)
        for inner in jaxprs_in_params(equation.params):
            total += _largest(inner)
    return total


def _bytes(aval: Any) -> int:
    shape, dtype = getattr(aval, "shape", ()), getattr(aval, "dtype", None)
    return math.prod(shape) * getattr(dtype, "itemsize", 0)


def _settings_that_fit(
    experiment: Experiment, examples: Any, epoch: Any, limit: float
) -> Iterator[str]:
    """Yields settings whose compiled step fits, as assignments of config fields.

    One has a smaller batch, and one recomputes activations, with as large a batch as
    fits.
    """
    config, without_remat = experiment.spec.config, 0
    for remat in dict.fromkeys((config.encoder.remat, True)):
        trial = _Trial(experiment, examples, epoch, remat)
        batch_size = trial.largest_batch(AIM * limit)
        if batch_size is None or batch_size <= without_remat:
            continue
        without_remat, fields = batch_size, []
        if remat != config.encoder.remat:
            fields.append("config.encoder.remat=True")
        if batch_size != config.data.batch_size:
            fields.append(f"config.data.batch_size={batch_size}")
        yield f"{' with '.join(fields)} ({trial.needed(batch_size) / GIB:.3g} GiB)"


@dataclasses.dataclass
class _Trial:
    """Compiles the step of an experiment with other batch sizes.

    Attributes:
        experiment: the experiment.
        examples: a batch of it, for the shapes.
        epoch: the epoch of the batch.
        remat: value of config.encoder.remat.
    """

    experiment: Experiment
    examples: Any
    epoch: Any
    remat: bool

    def __post_init__(self):
        self._known: dict[int, float] = {}

    def largest_batch(self, limit: float) -> int | None:
        """Returns the largest batch size at most the config's that fits; None if none.

        The memory is nearly linear in the batch size, so two compilations predict the
        size, and a third one confirms it.
        """
        config = self.experiment.spec.config
        groups = norm_groups(config.batch_norm)
        unit = self.experiment.mesh.devices.size * groups
        whole = config.data.batch_size
        if self.remat != config.encoder.remat and self.needed(whole) <= limit:
            return whole
        half = max(unit, whole // 2 // unit * unit)
        smaller = max(unit, half // 2 // unit * unit)
        if smaller == half:
            return half if self.needed(half) <= limit else None
        each = (self.needed(half) - self.needed(smaller)) / (half - smaller)
        rest = self.needed(half) - each * half
        size = int((limit - rest) / each) // unit * unit
        while size >= unit:
            if self.needed(size) <= limit:
                return size
            size -= max(unit, size // 8 // unit * unit)
        return None

    def needed(self, batch_size: int) -> float:
        """Returns the bytes of a device that the step needs with a batch size."""
        if batch_size not in self._known:
            self._known[batch_size] = self._compile(batch_size)
        return self._known[batch_size]

    def _compile(self, batch_size: int) -> float:
        spec, step = self._step(batch_size)
        axis = len(spec.schedule.seeds) > 1
        examples = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(
                (*x.shape[:axis], batch_size, *x.shape[axis + 1 :]),
                x.dtype,
                sharding=x.sharding,
            ),
            self.examples,
        )
        state = _on_mesh(jax.eval_shape(spec.init), self.experiment)
        compiled = step.trace(state, examples, self.epoch).lower().compile()
        return step_bytes(compiled) + stored_bytes(self.experiment)

    def _step(self, batch_size: int) -> tuple[ExperimentSpec, TrainStep]:
        mesh, config = self.experiment.mesh, self.experiment.spec.config
        spec = make_spec(
            dataclasses.replace(
                config,
                data=dataclasses.replace(config.data, batch_size=batch_size),
                encoder=dataclasses.replace(config.encoder, remat=self.remat),
                monitor=dataclasses.replace(config.monitor, linear=False),
            ),
            num_devices=mesh.devices.size,
            steps_per_epoch=self.experiment.spec.schedule.steps_per_epoch,
        )
        return spec, compiled_step(spec, mesh)
