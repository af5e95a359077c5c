"""Convolutions whose gradients XLA computes fast on CPUs as well."""

import functools
from collections.abc import Callable
from typing import Any

import jax

PIECE = 32  # images; XLA's CPU kernel of the weights' gradient is slow for more
MOST = 8  # pieces, each of which takes time to compile


def convolve(
    images: jax.Array,
    kernel: jax.Array,
    window_strides: Any,
    padding: Any,
    **settings: Any,
) -> jax.Array:
    """As `jax.lax.conv_general_dilated`; on CPUs the kernel's gradient is a sum.

    There the gradient of many images is computed of a few at a time, which is the same
    but for the order of additions; elsewhere at once.

    Args:
        images: [n, h, w, c].
        kernel: [height, width, c, d].
        window_strides: as there.
        padding: as there.
        **settings: as there.
    """
    convolution = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=window_strides,
        padding=padding,
        **settings,
    )
    return _with_summed_gradient(convolution)(images, kernel)


def _with_summed_gradient(convolution: Callable) -> Callable:
    """The convolution, differentiated as `convolve` says."""

    def forward(images, kernel):
        return convolution(images, kernel), (images, kernel)

    def backward(saved, cotangent):
        images, kernel = saved

        def at_once(images, cotangent):
            _, pull_back = jax.vjp(lambda k: convolution(images, k), kernel)
            return pull_back(cotangent)[0]

        def in_pieces(images, cotangent):
            # computed once: XLA would else repeat what made them inside each transpose
            images, cotangent = jax.lax.optimization_barrier((images, cotangent))
            size = max(PIECE, -(-len(images) // MOST))
            starts = range(0, len(images), size)
            return sum(
                at_once(images[i : i + size], cotangent[i : i + size]) for i in starts
            )

        _, pull_back = jax.vjp(lambda x: convolution(x, kernel), images)
        kernel_gradient = jax.lax.platform_dependent(
            images, cotangent, cpu=in_pieces, default=at_once
        )
        return pull_back(cotangent)[0], kernel_gradient

    differentiated = jax.custom_vjp(convolution)
    differentiated.defvjp(forward, backward)
    return differentiated
