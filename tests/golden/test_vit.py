"""The vision transformer gives the numbers of torchvision's, with MoCo v3's positions.

`make_vit` computed the file.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.networks import vit
from tests.golden import make_vit as golden
from tests.golden import torch_names as names

# For float32 products in another order, relative to the largest output: differences are
# up to 5e-7. With 1e-5 as layer norm's epsilon the block differs by 6e-6, with the
# approximate GELU by 1e-4.
TOLERANCE = 3e-6


def load():
    if not (names.DATA / "vit.npz").exists():
        pytest.skip(f"LOGO_GOLDEN_DIR={names.DATA} has no vit.npz")
    return names.load("vit.npz")


def assert_close(got, want):
    error = np.abs(np.asarray(got) - want).max()
    assert error <= TOLERANCE * np.abs(want).max()


def linear(tensors, name):
    weight = tensors[f"{name}.weight"]
    return {"kernel": weight.T, "bias": tensors[f"{name}.bias"]}


def norm(tensors, name):
    return {"scale": tensors[f"{name}.weight"], "bias": tensors[f"{name}.bias"]}


def block(tensors):
    """Returns our parameters of a block."""
    heads, channels = golden.HEADS, golden.CHANNELS
    each = channels // heads
    attention = names.under(tensors, "self_attention.")
    kernels = attention["in_proj_weight"].reshape(3, heads, each, channels)
    biases = attention["in_proj_bias"].reshape(3, heads, each)
    out = linear(attention, "out_proj")
    return {
        "norm1": norm(tensors, "ln_1"),
        "norm2": norm(tensors, "ln_2"),
        "fc1": linear(tensors, "mlp.0"),
        "fc2": linear(tensors, "mlp.3"),
        "attention": {
            name: {"kernel": kernels[i].transpose(2, 0, 1), "bias": biases[i]}
            for i, name in enumerate(("query", "key", "value"))
        }
        | {"out": out | {"kernel": out["kernel"].reshape(heads, each, channels)}},
    }


def blocks(tensors):
    return [
        block(names.under(tensors, f"encoder.layers.encoder_layer_{i}."))
        for i in range(golden.DEPTH)
    ]


def test_a_block_is_torchvisions():
    params = blocks(golden.weights())[0]
    module = vit.Block(golden.HEADS, jnp.float32)
    got = jax.jit(module.apply)({"params": params}, golden.tokens())
    assert_close(got, load()["block"])


def test_features_are_torchvisions_with_the_positions_of_moco_v3():
    tensors = golden.weights()
    kernel = names.layout(tensors["conv_proj.weight"])
    params = {
        "token": tensors["class_token"],
        "patches": {
            "kernel": kernel.reshape(-1, golden.CHANNELS),
            "bias": tensors["conv_proj.bias"],
        },
        "norm": norm(tensors, "encoder.ln"),
    }
    params |= {f"block{i}": found for i, found in enumerate(blocks(tensors))}
    width = golden.CHANNELS // golden.HEADS
    module = vit.ViT(golden.DEPTH, golden.HEADS, width, golden.PATCH)
    images = golden.images()
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
    got = jax.jit(module.apply)({"params": params}, images)
    assert_close(got, load()["features"])
