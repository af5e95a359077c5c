"""Whether a training step fits the memory of the devices, and settings that do."""

import bisect
import contextlib
import dataclasses
import functools
import itertools
import logging
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from logo_jax.data.loader import Examples, OnDeviceLoader
from logo_jax.experiment.config import Config
from logo_jax.experiment.data import usable_memory
from logo_jax.experiment.experiment import Experiment, compiled_step
from logo_jax.experiment.networks import norm_groups
from logo_jax.experiment.spec import ExperimentSpec, make_spec
from logo_jax.networks.encoder import Encoder
from logo_jax.parallel import program_cache
from logo_jax.training.train_step import TrainStep

_log = logging.getLogger(__name__)

SURE = 0.5  # a step whose arrays take less than this share of the memory surely fits
AIM = 0.9  # share of the memory that a proposed setting may need
GIB = 2**30


def fitted(experiment: Experiment) -> Experiment:
    """Returns the experiment, after checking that its step fits the devices' memory.

    A step that is kept on disk is loaded, and is not traced. If it is not obvious from
    the sizes of the arrays that another step fits, it is compiled. In both cases the
    experiment that is returned has the compiled step.

    Raises:
        ValueError: if the step does not fit; the message has settings that fit.
    """
    limit, owner = usable_memory(experiment.mesh)
    step, stored = experiment.train_step, stored_bytes(experiment)
    compiled = program_cache.load(step.compiled)
    if compiled is None:
        examples = experiment.loader.shapes()
        traced = traced_step(experiment.spec, step, experiment.mesh, examples)
        if _largest(traced.jaxpr.jaxpr) + stored < SURE * limit:
            return experiment
        compiled = program_cache.compile(step.compiled, traced.lower())
    needed = step_bytes(compiled) + stored
    if needed > limit:
        _log.warning("the step does not fit the memory; compiling smaller ones")
        raise ValueError(
            f"a training step needs {needed / GIB:.3g} GiB per device, more than "
            f"{owner} {limit / GIB:.3g} GiB; use {remedy(experiment, limit, needed)}"
        )
    return dataclasses.replace(experiment, train_step=step._replace(compiled=compiled))


def traced_step(
    spec: ExperimentSpec, step: TrainStep, mesh: Mesh, examples: Examples
) -> Any:
    """Returns the traced step of a spec; nothing is placed on the devices.

    Args:
        spec: the objects that a config describes.
        step: its step.
        mesh: the devices, which may be elsewhere.
        examples: shapes, dtypes and shardings of the examples.
    """
    sharding = NamedSharding(mesh, P())
    state = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), spec.shapes
    )
    return step.trace(state, examples, np.int32(0))


def remedy(experiment: Experiment, limit: float, needed: float) -> str:
    """Returns two settings, each compiled, with which a step fits that does not.

    Args:
        experiment: the experiment whose step does not fit.
        limit: bytes of a device that a run can use.
        needed: bytes of a device that the step needs.
    """
    settings = itertools.islice(_settings_that_fit(experiment, limit, needed), 2)
    return " or ".join(settings) or "smaller crops or a smaller network"


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


def forward_bytes(encoder: Encoder, side: int, channels: int) -> int:
    """Returns the bytes of all arrays of an image's forward pass in evaluation mode.

    A training step needs less for an image: 0.37 of it on a CPU for a ResNet-18 and
    crops of 224 and 96 px, 0.32 with the CIFAR stem and crops of 32 px. The rest is a
    margin, also for images that are kept in the memory of the devices.

    Args:
        encoder: the backbone and the head.
        side: side of the image in pixels.
        channels: number of channels of the image.
    """
    image = jax.ShapeDtypeStruct((2, side, side, channels), jnp.float32)
    key = jax.random.key(0)
    variables = jax.eval_shape(lambda x: encoder.init(key, x, train=False), image)
    apply = functools.partial(encoder.apply, train=False)
    return _largest(jax.make_jaxpr(apply)(variables, image).jaxpr) // 2


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
    experiment: Experiment, limit: float, needed: float
) -> Iterator[str]:
    """Yields settings whose compiled step fits, as assignments of config fields.

    `needed` is the number of bytes with the config's own settings. The first setting
    computes the batch in parts, the second has a smaller batch, and the third
    recomputes activations, with as large a batch as fits. Those that do not fit are
    left out.
    """
    config = experiment.spec.config
    batch_size, remat = config.data.batch_size, config.encoder.remat
    trial = _Trial(experiment, remat)
    trial.know(needed)
    if parts := trial.fewest_parts(AIM * limit):
        size = trial.needed(batch_size, parts) / GIB
        yield f"config.train.accumulate={parts} ({size:.3g} GiB)"
    without_remat = 0
    for again in dict.fromkeys((remat, True)):
        trial = _Trial(experiment, again)
        fitting = trial.largest_batch(AIM * limit)
        if fitting is None or fitting <= without_remat:
            continue
        without_remat, fields = fitting, []
        if again != remat:
            fields.append("config.encoder.remat=True")
        if fitting != batch_size:
            fields.append(f"config.data.batch_size={fitting}")
        yield f"{' with '.join(fields)} ({trial.needed(fitting) / GIB:.3g} GiB)"


@dataclasses.dataclass
class _Trial:
    """Compiles the step of an experiment with other settings.

    Attributes:
        experiment: the experiment.
        remat: value of config.encoder.remat.
    """

    experiment: Experiment
    remat: bool

    def __post_init__(self):
        self._known: dict[tuple[int, int], float] = {}

    def know(self, needed: float) -> None:
        """Records the bytes that the step of the config itself needs."""
        config = self.experiment.spec.config
        self._known[config.data.batch_size, config.train.accumulate] = needed

    def fewest_parts(self, limit: float) -> int | None:
        """Returns the smallest number of parts in which the batch fits; None if none.

        More parts need less memory, so a binary search compiles few steps.
        """
        config = self.experiment.spec.config
        whole, now = config.data.batch_size, config.train.accumulate
        possible = [
            parts
            for parts in _numbers_of_parts(config, self.experiment.mesh.devices.size)
            if parts > now
        ]
        first = bisect.bisect(
            possible, False, key=lambda parts: self.needed(whole, parts) <= limit
        )
        return possible[first] if first < len(possible) else None

    def largest_batch(self, limit: float) -> int | None:
        """Returns the largest batch size at most the config's that fits; None if none.

        The memory is nearly linear in the batch size, so two compilations predict the
        size, and a third one confirms it. Only sizes that the method accepts are tried;
        a queue, for example, holds whole batches.
        """
        config = self.experiment.spec.config
        whole = config.data.batch_size
        if self.remat != config.encoder.remat and self.needed(whole) <= limit:
            return whole
        half = self._accepted(whole // 2)
        smaller = self._accepted(half // 2)
        if not smaller:
            return half if half and self.needed(half) <= limit else None
        each = (self.needed(half) - self.needed(smaller)) / (half - smaller)
        rest = self.needed(half) - each * half
        size = self._accepted(min(int((limit - rest) / each), whole - 1))
        while size:
            if self.needed(size) <= limit:
                return size
            size = self._accepted(size - size // 8 - 1)
        return None

    def _accepted(self, most: int) -> int:
        """Returns the largest batch size of at most `most` that the method accepts.

        It is 0 if there is none.
        """
        config, mesh = self.experiment.spec.config, self.experiment.mesh
        unit = mesh.devices.size * norm_groups(config.norm)
        for size in range(most // unit * unit, 0, -unit):
            with contextlib.suppress(ValueError):  # the method does not accept the size
                spec = self._spec(size, config.train.accumulate)
                jax.eval_shape(spec.init)
                return size
        return 0

    def needed(self, batch_size: int, parts: int = 0) -> float:
        """Returns the bytes of a device that the step needs with a batch size.

        The number of parts is that of the config, unless it is given.
        """
        key = batch_size, parts or self.experiment.spec.config.train.accumulate
        if key not in self._known:
            self._known[key] = self._compile(*key)
        return self._known[key]

    def _compile(self, batch_size: int, parts: int) -> float:
        spec = self._spec(batch_size, parts)
        step = compiled_step(spec, self.experiment.mesh)
        axis = len(spec.schedule.seeds) > 1
        examples = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(
                (*x.shape[:axis], batch_size, *x.shape[axis + 1 :]),
                x.dtype,
                sharding=x.sharding,
            ),
            self.experiment.loader.shapes(),
        )
        traced = traced_step(spec, step, self.experiment.mesh, examples)
        compiled = traced.lower().compile()
        return step_bytes(compiled) + stored_bytes(self.experiment)

    def _spec(self, batch_size: int, parts: int) -> ExperimentSpec:
        mesh, config = self.experiment.mesh, self.experiment.spec.config
        return make_spec(
            dataclasses.replace(
                config,
                data=dataclasses.replace(config.data, batch_size=batch_size),
                encoder=dataclasses.replace(config.encoder, remat=self.remat),
                train=dataclasses.replace(config.train, accumulate=parts),
                monitor=dataclasses.replace(config.monitor, linear=False),
            ),
            num_devices=mesh.devices.size,
            steps_per_epoch=self.experiment.spec.schedule.steps_per_epoch,
        )


def _numbers_of_parts(config: Config, num_devices: int) -> list[int]:
    """Returns the values that config.train.accumulate may have, increasing."""
    images = config.data.batch_size // num_devices
    split = config.batch_norm.startswith("split:")
    divided = norm_groups(config.batch_norm) if split else images
    # a part of one image would be normalized to 0
    return [
        k for k in range(1, images // 2 + 1) if images % k == 0 and divided % k == 0
    ]
