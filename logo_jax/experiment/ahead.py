"""A training step that is compiled for devices that are not here."""

import dataclasses
import re
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
from jaxlib import _jax  # pyright: ignore[reportAttributeAccessIssue]

from logo_jax.data import datasets
from logo_jax.data.canvas import canvas_size
from logo_jax.data.load import ExperimentData
from logo_jax.data.loader import example_shapes
from logo_jax.experiment.config import DataConfig
from logo_jax.experiment.experiment import compiled_step
from logo_jax.experiment.memory import step_bytes, traced_step
from logo_jax.experiment.spec import ExperimentSpec
from logo_jax.parallel.mesh import batch_sharding
from logo_jax.parallel.programs import collectives, moved_bytes, num_instructions
from logo_jax.parallel.targets import Target

LEVELS = {"O0": 9, "O1": 19, "default": 0}  # with XLA's numbers
# Of a TPU's step at O0, the default level needed 0.9 to 2 times the memory (ResNet-18,
# -34 and -50; libtpu 0.0.42)
LEAST_OF_O0, MOST_OF_O0 = 0.9, 2.0


class CompilerError(ValueError):
    """A compiler fails on a step, which says nothing about the step."""


@dataclasses.dataclass(frozen=True)
class KnownImages:
    """What a step depends on of its images.

    Attributes:
        count: number of training images.
        canvas: (height, width) of the stored images in pixels.
        dtype: type of the stored values.
        num_classes: number of classes; 0 if there are none.
        origin: what this is known from.
    """

    count: int
    canvas: tuple[int, int]
    dtype: Any
    num_classes: int
    origin: str


@dataclasses.dataclass(frozen=True)
class AheadStep:
    """What a compiler says about a step on each device.

    Attributes:
        num_bytes: bytes of memory, with its code; if it does not fit, those that the
            compiler wants.
        refused: why the compiler refuses the step: it does not fit; "" if it fits.
        code: bytes of its code.
        flops: floating-point operations.
        moved: bytes that its operations read and write.
        exchanges: number and bytes of exchanges between devices, by kind.
        loops: whether exchanges are in a loop, and count once.
        instructions: number of instructions of the program.
        donated: bytes of the state that the step overwrites.
        seconds: time of a step by the compiler's own model; None if it has none.
        compilation: processor seconds of the compilation.
    """

    num_bytes: int
    refused: str = ""
    code: int = 0
    flops: float = 0.0
    moved: float = 0.0
    exchanges: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    loops: bool = False
    instructions: int = 0
    donated: int = 0
    seconds: float | None = None
    compilation: float = 0.0


def known_images(config: DataConfig, load: Callable[[], ExperimentData]) -> KnownImages:
    """Returns what is known of the images: from them, or from the paper's list.

    Args:
        config: the data group.
        load: function that returns the images, if they are here.

    Raises:
        FileNotFoundError: if the images are neither here nor in the paper's list.
        ValueError: if the images are here and cannot be used.
    """
    dtype = config.location.decoding.dtype or "uint8"
    try:
        train = load().train
    except FileNotFoundError:
        published = datasets.find(config.name) if config.source == "tfds" else None
        parts = published.pretrain.split("+") if published else []
        if published is None or not {*parts} <= {*published.examples}:
            raise
        count = sum(published.examples[x] for x in parts)
        side = min(config.canvas, published.side or config.canvas)
        return KnownImages(
            count - config.val_size,
            (side, side),
            dtype,
            published.num_classes,
            f"{published.name}, by its published size",
        )
    canvas = canvas_size(train, config.canvas)
    return KnownImages(len(train), canvas, dtype, train.num_classes, train.origin)


def compile_ahead(
    spec: ExperimentSpec, target: Target, images: KnownImages, level: str
) -> AheadStep:
    """Compiles the step of a config for devices that are not here.

    Args:
        spec: the objects that the config describes.
        target: the devices.
        images: the images of the step.
        level: level of optimization, one of `LEVELS`.

    Raises:
        CompilerError: if the compiler fails for another reason than the memory.
    """
    lowered = lower_ahead(spec, target, images)
    start = time.process_time()
    try:
        compiled = _compiled(lowered, level)
    except jax.errors.JaxRuntimeError as error:
        reason = " ".join(str(error).split())
        if "RESOURCE_EXHAUSTED" in reason:
            return _refused(reason)
        others = " or ".join(f"--level={each}" for each in LEVELS if each != level)
        raise CompilerError(
            f"the compiler of {target.chip.name} fails at level {level}, which is a "
            f"fault of the compiler ({reason[:120]}); use {others}"
        ) from error
    return _described(lowered, compiled, time.process_time() - start)


def lower_ahead(spec: ExperimentSpec, target: Target, images: KnownImages) -> Any:
    """Returns the step of a config as it is passed to the compiler of a target."""
    several = len(spec.schedule.seeds) > 1
    examples = example_shapes(
        spec.config.data.batch_size,
        spec.schedule.seeds,
        (*images.canvas, spec.config.data.channels),
        images.dtype,
        batch_sharding(target.mesh, several),
    )
    step = compiled_step(spec, target.mesh)
    return traced_step(spec, step, target.mesh, examples).lower()


def _compiled(lowered: Any, level: str) -> Any:
    """Compiles a lowered program, on a GPU without Triton if there is no other way.

    On a GPU, XLA tries several tilings of a matrix product. Without one it takes the
    first one, which it cannot compile for some products of ViTs.
    """
    try:
        return compile_at(lowered, level)
    except jax.errors.JaxRuntimeError as error:
        if "tile sizes" not in str(error):
            raise
    return compile_at(lowered, level, xla_gpu_enable_triton_gemm=False)


def compile_at(lowered: Any, level: str, **options: Any) -> Any:
    """Compiles a lowered program at one of `LEVELS`, with other options of XLA.

    The cache of compiled programs can keep a program for devices that are not here, but
    cannot read it, which would be a warning.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Error reading persistent compilation cache")
        return lowered.compile({"optimization_level": LEVELS[level], **options})


def _refused(reason: str) -> AheadStep:
    """Returns the bytes that a step needs that does not fit."""
    wanted = re.search(r"\(([\d.]+)([MG])\) exceeds|Used ([\d.]+)([MG]) of", reason)
    if wanted is None:
        return AheadStep(0, reason)
    number, unit = (x for x in wanted.groups() if x)
    return AheadStep(int(float(number) * 2 ** (30 if unit == "G" else 20)), reason)


def _described(lowered: Any, compiled: Any, compilation: float) -> AheadStep:
    text, used = compiled.as_text(), compiled.memory_analysis()
    found = collectives(text)
    exchanges = {
        kind: (
            sum(each.kind == kind for each in found),
            sum(each.num_bytes for each in found if each.kind == kind),
        )
        for kind in sorted({each.kind for each in found})
    }
    # a TPU's compiler has a model of costs, a GPU's has none
    cost = compiled.cost_analysis() or {}
    seconds = cost.get("optimal_seconds")
    if seconds is not None:  # it counts each of these free operations as -1
        seconds += text.count('custom_call_target="ConcatBitcast"')
    return AheadStep(
        num_bytes=step_bytes(compiled),
        code=used.generated_code_size_in_bytes,
        flops=cost.get("flops") or lowered_flops(lowered),
        moved=cost.get("bytes accessed") or moved_bytes(text),
        exchanges=exchanges,
        loops=any(each.is_in_a_loop for each in found),
        instructions=num_instructions(text),
        donated=used.alias_size_in_bytes,
        seconds=seconds,
        compilation=compilation,
    )


def lowered_flops(lowered: Any) -> float:
    """Returns a device's operations of a program, before a compiler optimizes it.

    `lowered.cost_analysis()` would need a device of the program's platform.
    """
    module = lowered.compiler_ir("hlo").as_hlo_module()
    client = jax.devices("cpu")[0].client
    return _jax.hlo_module_cost_analysis(client, module)["flops"]


def floor_seconds(step: AheadStep, target: Target, dtype: str) -> tuple[float, float]:
    """Returns the least seconds of a step by memory and by matrix products.

    Args:
        step: the compiled step.
        target: the devices, with their stated peaks.
        dtype: dtype of the computation, "float32" or "bfloat16".
    """
    rate = getattr(target.chip, dtype)
    return step.moved / target.chip.bandwidth, step.flops / rate
