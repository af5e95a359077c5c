"""Programs that benchmarks/step.py times: steps, convolutions, a matrix product."""

import collections
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from logo_jax.data.loader import OnDeviceLoader
from logo_jax.experiment import make_spec
from logo_jax.methods.base import Batch
from logo_jax.parallel.mesh import batch_sharding, make_mesh, replicate
from logo_jax.training.train_step import make_train_step

Run = Callable[[], object]


class Program(NamedTuple):
    """Compiled training step.

    Attributes:
        run: runs one step and waits for its end.
        convolutions: returns a function like `run` that computes only the convolutions
            of the step.
        flops: FLOPs of the lowered program.
        compiled_flops: FLOPs of the compiled program; 0 if the compiler does not count.
        bytes: peak bytes of arguments, results and temporaries.
        cold: seconds to lower and compile.
        warm: seconds to lower and compile with a filled persistent cache.
    """

    run: Run
    convolutions: Callable[[], Run]
    flops: float
    compiled_flops: float
    bytes: int
    cold: float
    warm: float


def program(config: ConfigDict, batch: Batch, *, real: bool = False) -> Program:
    """Compiles the step of a config, on fixed crops or on crops cut in each step.

    Args:
        config: a config for one device.
        batch: the fixed crops.
        real: whether each step takes a batch of random images in device memory and
            cuts new crops, as with `data.loader=on_device`.
    """
    spec = make_spec(config, num_devices=1)
    mesh = make_mesh(jax.devices()[:1])
    make_batch = spec.make_batch if real else lambda key, crops, epoch: crops
    keys = spec.keys("crops", "steps")
    train_step = make_train_step(spec.method.update, make_batch, mesh, keys)
    state = replicate(jax.jit(spec.init)(), mesh)
    if real:
        batches = _resident(config, mesh).batches(0, 10**9)
    else:
        crops = jax.device_put(batch, batch_sharding(mesh))
        batches = itertools.repeat((crops, np.int32(0)))
    first = next(batches)
    cold = _compile(train_step, state, *first)
    jax.clear_caches()  # clears the cache in memory; the persistent cache stays
    warm = _compile(train_step, state, *first)
    lowered, compiled = warm[1:]
    memory = compiled.memory_analysis()
    ready = train_step._replace(compiled=compiled)

    def run() -> None:
        nonlocal state
        state, metrics = ready(state, *next(batches))
        jax.block_until_ready(metrics)

    return Program(
        run=run,
        convolutions=lambda: _convolutions(train_step, state, *first),
        flops=_flops(lowered),
        compiled_flops=_flops(compiled),
        bytes=memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes,
        cold=cold[0],
        warm=warm[0],
    )


def matrix_product(dtype: Any, size: int) -> tuple[Run, float]:
    """Returns a function that multiplies two square matrices, and its FLOPs."""
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(jnp.matmul).lower(a, a).compile()
    return lambda: jax.block_until_ready(product(a, a)), 2.0 * size**3


def _resident(config, mesh):
    rng = np.random.default_rng(0)
    count, side = 4 * config.data.batch_size, config.crops.global_crops[1]
    images = rng.integers(0, 256, (count, side, side, 3), np.uint8)
    sizes, labels = np.full((count, 2), side, np.int32), np.zeros(count, np.int32)
    on_device = replicate((images, sizes, labels), mesh)
    sharding = batch_sharding(mesh)
    return OnDeviceLoader(*on_device, config.data.batch_size, (0,), sharding)


def _compile(train_step, *arguments):
    """Returns the seconds to lower and compile, and both programs."""
    start = time.perf_counter()
    lowered = train_step.trace(*arguments).lower()
    compiled = lowered.compile()
    return time.perf_counter() - start, lowered, compiled


def _flops(stage):
    cost = stage.cost_analysis() or {}
    return float(cost.get("flops", 0.0))


def _convolutions(train_step, *arguments) -> Run:
    """Returns a function that runs each convolution of a step on random numbers."""
    counts: collections.Counter[str] = collections.Counter()
    operations = {}
    for equation in _equations(jax.make_jaxpr(train_step)(*arguments).jaxpr):
        if equation.primitive is jax.lax.conv_general_dilated_p:
            shapes = [(v.aval.shape, v.aval.dtype) for v in equation.invars]
            name = f"{shapes} {equation.params}"
            counts[name] += 1
            operations[name] = (shapes, equation.params)
    calls = [(_alone(*operations[name]), count) for name, count in counts.items()]

    def run() -> None:
        for call, count in calls:
            jax.block_until_ready([call() for _ in range(count)])

    return run


def _alone(shapes, params):
    """Compiles one convolution on random numbers."""
    key = jax.random.key(0)
    operands = [jax.random.normal(key, shape, dtype) for shape, dtype in shapes]
    bind = jax.lax.conv_general_dilated_p.bind
    compiled = jax.jit(lambda x, y: bind(x, y, **params)).lower(*operands).compile()
    return lambda: compiled(*operands)


def _equations(jaxpr) -> Iterator[Any]:
    """Yields all equations of a program; for a platform switch, the branch taken."""
    for equation in jaxpr.eqns:
        yield equation
        values = dict(equation.params)
        if "branches" in values:  # the branch for CPUs, if any, is the first
            chosen = 0 if jax.default_backend() == "cpu" else -1
            values["branches"] = values["branches"][chosen]
        for value in values.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)
