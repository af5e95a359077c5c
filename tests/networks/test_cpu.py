"""Convolutions whose kernel gradient is summed over pieces of the batch."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.networks import _cpu

SETTINGS = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_are_those_of_jax_whatever_the_number_of_images(stride, monkeypatch):
    monkeypatch.setattr(_cpu, "PIECE", 2)
    keys = jax.random.split(jax.random.key(0), 3)
    images = jax.random.normal(keys[0], (5, 4, 4, 3))  # two full pieces and a remainder
    kernel = jax.random.normal(keys[1], (3, 3, 3, 2))
    strides, padding = (stride, stride), ((1, 1), (1, 1))

    def loss(convolve, images, kernel):
        y = convolve(images, kernel, strides, padding, **SETTINGS)
        return jnp.sum(jnp.sin(y))

    ours, jaxs = (
        jax.jit(jax.value_and_grad(lambda *a, f=f: loss(f, *a), argnums=(0, 1)))
        for f in (_cpu.convolve, jax.lax.conv_general_dilated)
    )
    for mine, theirs in zip(
        jax.tree.leaves(ours(images, kernel)),
        jax.tree.leaves(jaxs(images, kernel)),
        strict=True,
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_kernel_gradients_on_a_cpu_have_the_layout_of_the_forward_pass(stride):
    """Inside a loop XLA computes no other convolutions fast on a CPU."""
    images, kernel = jnp.zeros((4, 8, 8, 3)), jnp.zeros((3, 3, 3, 2))

    def loss(kernel, images):
        y = _cpu.convolve(images, kernel, (stride,) * 2, ((1, 1),) * 2, **SETTINGS)
        return y.sum()

    text = (
        jax.jit(jax.grad(loss)).trace(kernel, images).lower(lowering_platforms=("cpu",))
    )
    convolutions = re.findall(r"stablehlo.convolution.*", text.as_text())
    assert len(convolutions) == 1  # of one piece
    assert "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in convolutions[0]
    assert "reverse = [true" not in convolutions[0]


def test_image_gradients_of_stride_1_have_it_too():
    images, kernel = jnp.zeros((4, 8, 8, 3)), jnp.zeros((3, 3, 3, 2))

    def loss(images, kernel):
        y = _cpu.convolve(images, kernel, (1, 1), ((1, 1), (1, 1)), **SETTINGS)
        return y.sum()

    lowered = (
        jax.jit(jax.grad(loss)).trace(images, kernel).lower(lowering_platforms=("cpu",))
    )
    (convolution,) = re.findall(r"stablehlo.convolution.*", lowered.as_text())
    assert "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in convolution
    assert "reverse = [true" not in convolution
