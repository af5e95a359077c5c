"""Rates of a ResNet-18's convolutions; the gain of a faster kernel gradient.

    python -m benchmarks.kernel_gradients [--images=128] [--rounds=5]

Measures, on this machine's device, the forward pass, the image gradient and the kernel
gradient of 3x3 convolutions of stride 1 as `networks/_cpu.py` computes them, and a
matrix product. The four sizes have equal FLOPs, and nearly the same part of a ResNet-18
on images of 32 px. The gain of a step is computed from these rates. It is a bound,
because everything else in the step takes time, too.
"""

import argparse
import statistics
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from benchmarks.timing import alternate
from logo_jax.networks._cpu import LAYOUT, convolve

SIZES = ((32, 64), (16, 128), (8, 256), (4, 512))  # side in pixels, channels
PASSES = ("forward", "images", "kernel")
# of MoCo-LoGo through its encoder: forward passes, image gradients, kernel gradients
STEPS = {"joint": (6, 4, 4), "released": (8, 6, 6)}


def rates(num_images: int, rounds: int) -> dict[tuple[str, int], float]:
    """Returns GFLOP/s by pass and side, medians of the rounds; ("product", 0) too."""
    runs, operations = {}, {}
    for side, channels in SIZES:
        keys = jax.random.split(jax.random.key(side), 3)
        images = jax.random.normal(keys[0], (num_images, side, side, channels))
        kernel = jax.random.normal(keys[1], (3, 3, channels, channels))
        cotangent = jax.random.normal(keys[2], images.shape)

        def conv(images, kernel):
            return convolve(
                images,
                kernel,
                (1, 1),
                ((1, 1), (1, 1)),
                dimension_numbers=LAYOUT,
            )

        def of_images(images, kernel, cotangent):
            return jax.vjp(lambda x: conv(x, kernel), images)[1](cotangent)

        def of_kernel(images, kernel, cotangent):
            return jax.vjp(lambda x: conv(images, x), kernel)[1](cotangent)

        functions = (
            lambda images, kernel, _: conv(images, kernel),
            of_images,
            of_kernel,
        )
        for name, function in zip(PASSES, functions, strict=True):
            runs[name, side] = _run(function, images, kernel, cotangent)
            operations[name, side] = 2 * 9 * channels**2 * side**2 * num_images
    square = jax.random.normal(jax.random.key(0), (2048, 2048))
    runs["product", 0] = _run(jnp.matmul, square, square)
    operations["product", 0] = 2 * 2048**3
    seconds = alternate(runs, rounds)
    return {
        name: operations[name] / statistics.median(seconds[name]) / 1e9 for name in runs
    }


def _run(function, *arguments):
    compiled = jax.jit(function)
    return lambda: jax.block_until_ready(compiled(*arguments))


def gain(found: dict[tuple[str, int], float], passes: Sequence[int]) -> float:
    """Returns the speedup of all passes if kernel gradients took a product's time.

    Args:
        found: GFLOP/s, as `rates` returns them.
        passes: numbers of forward passes, image gradients and kernel gradients.

    >>> found = {(name, side): 50.0 for name in PASSES for side, _ in SIZES}
    >>> round(gain(found | {("product", 0): 100.0}, (1, 1, 2)), 3)
    1.333
    """
    times = {name: sum(1 / found[name, side] for side, _ in SIZES) for name in PASSES}
    other = sum(n * times[name] for n, name in zip(passes[:2], PASSES[:2], strict=True))
    fast = len(SIZES) / found["product", 0]
    return (other + passes[2] * times["kernel"]) / (other + passes[2] * fast)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args(arguments)
    found = rates(flags.images, flags.rounds)
    print("| side, channels | forward | image gradient | kernel gradient |")
    print("|---|---|---|---|")
    for side, channels in SIZES:
        cells = [f"{found[name, side]:.0f}" for name in PASSES]
        print(" | ".join([f"| {side}, {channels}", *cells, ""]).strip())
    print(f"matrix product: {found['product', 0]:.0f} GFLOP/s")
    for name, passes in STEPS.items():
        print(f"{name}: at most {gain(found, passes):.2f} times as fast")


if __name__ == "__main__":
    main()
