"""Convolution whose kernel gradient is fast on CPUs too."""

import functools
from collections.abc import Callable
from typing import Any

import jax

PIECE = 32  # images per piece; XLA's CPU kernel gradient is slow for more images
MOST = 8  # largest number of pieces, each of which adds compile time


def convolve(
    images: jax.Array,
    kernel: jax.Array,
    window_strides: Any,
    padding: Any,
    **settings: Any,
) -> jax.Array:
    """Computes `jax.lax.conv_general_dilated`, with a faster kernel gradient on CPUs.

    On CPUs, the kernel gradient of many images is the sum of the gradients of small
    groups of images. It differs from the usual gradient only in the order of additions.
    Other platforms compute the gradient of all images together.

    Args:
        images: [n, h, w, c].
        kernel: [height, width, c, d].
        window_strides: strides, passed to `jax.lax.conv_general_dilated`.
        padding: padding, passed to `jax.lax.conv_general_dilated`.
        **settings: further arguments of `jax.lax.conv_general_dilated`.
    """
    convolution = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=window_strides,
        padding=padding,
        **settings,
    )
    return _with_summed_gradient(convolution)(images, kernel)


def _with_summed_gradient(convolution: Callable) -> Callable:
    """Returns the convolution with the gradient that `convolve` describes."""

    def forward(images, kernel):
        return convolution(images, kernel), (images, kernel)

    def backward(saved, cotangent):
        images, kernel = saved

        def all_together(images, cotangent):
            _, pull_back = jax.vjp(lambda k: convolution(images, k), kernel)
            return pull_back(cotangent)[0]

        def in_pieces(images, cotangent):
            # Without the barrier, XLA would recompute the arguments in each piece.
            images, cotangent = jax.lax.optimization_barrier((images, cotangent))
            size = max(PIECE, -(-len(images) // MOST))
            starts = range(0, len(images), size)
            return sum(
                all_together(images[i : i + size], cotangent[i : i + size])
                for i in starts
            )

        _, pull_back = jax.vjp(lambda x: convolution(x, kernel), images)
        kernel_gradient = jax.lax.platform_dependent(
            images, cotangent, cpu=in_pieces, default=all_together
        )
        return pull_back(cotangent)[0], kernel_gradient

    differentiated = jax.custom_vjp(convolution)
    differentiated.defvjp(forward, backward)
    return differentiated
