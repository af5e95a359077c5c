"""Backbones give the features of torchvision's ResNets and of the small AlexNet.

Both implementations compute their weights from a formula, so the files contain only the
features.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.networks import alexnet, resnet
from logo_jax.networks.batch_norm import BatchNorm
from tests.golden import torch_names as names

# for float32 convolutions in another order, relative to the largest feature
TOLERANCE = 1e-4
# In training, a batch norm over four nearly equal rows of fc6 amplifies the rounding of
# the convolutions: this network in float64 differs from the file by 2.3e-4, which is
# the file's rounding error. A wrong order of fc6's inputs gives a difference of 1.
ALEXNET_TOLERANCE = {"eval": TOLERANCE, "train": 2e-3}
# given the file's conv5, its fc7 differs by 8.0e-5 from that in float64
ALEXNET_HEAD_TOLERANCE = 2e-4

RESNETS = {
    "resnet18_cifar": (resnet.resnet18(stem="cifar"), "x32", "layer4_1/bn2"),
    "resnet18": (resnet.resnet18(), "x64", "layer4_1/bn2"),
    "resnet34": (resnet.resnet34(), "x64", "layer4_2/bn2"),
    "resnet50": (resnet.resnet50(), "x64", "layer4_2/bn3"),
}
ALEXNET_LAYERS = [f"{kind}{i}" for i in range(1, 6) for kind in ("conv", "bn")]
ALEXNET_LAYERS += ["fc6", "bn6", "fc7", "bn7"]


def load(name):
    if not (names.DATA / name).exists():
        pytest.skip(f"LOGO_GOLDEN_DIR={names.DATA} has no {name}")
    return names.load(name)


def wave(shape, number):
    """Returns the sine wave of the tensor with this number, in PyTorch's layout."""
    return np.sin(0.7 * np.arange(np.prod(shape)) + 1.3 * number).reshape(shape)


def formula_weights(layers, shapes):
    """Returns (params, batch_stats) of layers given in the state_dict's order."""
    count = itertools.count()
    params, stats = {}, {}
    for layer in layers:
        shape = at(shapes["params"], layer)
        if "kernel" in shape:
            kernel = shape["kernel"].shape
            put(params, layer, {"kernel": formula_kernel(kernel, next(count))})
            continue
        (size,) = shape["scale"].shape
        scale, bias, mean, var = (wave((size,), next(count)) for _ in range(4))
        put(params, layer, {"scale": 1 + 0.2 * scale, "bias": 0.1 * bias})
        put(stats, layer, {"mean": 0.1 * mean, "var": 1 + 0.2 * var})
    filled = {"params": params, "batch_stats": stats}
    assert jax.tree.structure(filled) == jax.tree.structure(shapes)
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), filled)


def formula_kernel(shape, number):
    """Returns a kernel of our shape whose values follow PyTorch's order of axes."""
    theirs = (shape[-1], shape[-2], *shape[:-2])
    fan_in = np.prod(theirs[1:])
    return names.layout(0.3 * np.sqrt(2 / fan_in) * wave(theirs, number))


def at(tree, path):
    for name in path.split("/"):
        tree = tree[name]
    return tree


def put(tree, path, value):
    *outer, last = path.split("/")
    for name in outer:
        tree = tree.setdefault(name, {})
    tree[last] = value


def shapes_of(module, images):
    """Returns the shapes of params and batch_stats, for images [b, h, w, c]."""
    init = jax.eval_shape(
        lambda: module.init(jax.random.key(0), images[None], train=True)
    )
    return {name: init[name] for name in ("params", "batch_stats")}


def small_resnet():
    """Returns the module and the variables of a ResNet-10 of width 4."""
    module = resnet.resnet10(width=4)
    shapes = shapes_of(module, np.zeros((1, 8, 8, 3), np.float32))
    return module, formula_weights(resnet_layers(shapes["params"]), shapes)


def resnet_layers(params):
    """Returns a ResNet's layers in torchvision's order."""
    in_block = [f"{kind}{i}" for i in (1, 2, 3) for kind in ("conv", "bn")]
    in_block += ["downsample_conv", "downsample_bn"]
    blocks = sorted(name for name in params if name.startswith("layer"))
    return ["conv1", "bn1"] + [
        f"{block}/{layer}"
        for block in blocks
        for layer in in_block
        if layer in params[block]
    ]


def passes(module, variables, images):
    """Returns features and collected variables in evaluation and in training mode."""
    collect = ["batch_stats", "intermediates"]

    @jax.jit
    def run(variables, images):
        return [
            module.apply(variables, x, train=train, mutable=collect)
            for x, train in ((images, False), (images[None], True))
        ]

    evaluated, trained = run(variables, jnp.asarray(images))
    return evaluated, trained


def assert_close(got, want, tolerance=TOLERANCE):
    error = np.abs(np.asarray(got).reshape(want.shape) - want).max()
    assert error <= tolerance * np.abs(want).max()


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("name", RESNETS)
def test_resnet_features_and_statistics_are_torchvisions(name):
    golden = load("resnet_features.npz")
    module, images, last_norm = RESNETS[name]
    images = golden[images]
    shapes = shapes_of(module, images)
    assert count(shapes["params"]) == golden[f"{name}/params"]
    variables = formula_weights(resnet_layers(shapes["params"]), shapes)
    (evaluated, _), (trained, moved) = passes(module, variables, images)
    assert_close(evaluated, golden[f"{name}/eval"])
    assert_close(trained, golden[f"{name}/train"])
    assert_close(
        at(moved["batch_stats"], last_norm)["var"],
        golden[f"{name}/last_running_var_after_train"],
    )


def alexnet_of(golden):
    """Returns the network, and the formula's weights in our order."""
    module = alexnet.SmallAlexNet()
    shapes = shapes_of(module, golden["x64"])
    assert count(shapes["params"]) == golden["params_to_fc7"]
    variables = formula_weights(ALEXNET_LAYERS, shapes)
    fc6 = variables["params"]["fc6"]
    height, width, channels = golden["eval/conv5"].shape[1:]
    # the reference flattens channels first
    kernel = fc6["kernel"].reshape(channels, height, width, -1)
    fc6["kernel"] = kernel.transpose(1, 2, 0, 3).reshape(fc6["kernel"].shape)
    return module, variables


def test_small_alexnet_features_are_wang_and_isolas():
    golden = load("small_alexnet_features.npz")
    module, variables = alexnet_of(golden)
    results = passes(module, variables, golden["x64"])
    for mode, (fc7, collected) in zip(("eval", "train"), results, strict=True):
        (block5,) = collected["intermediates"]["block5"]
        assert_close(block5, golden[f"{mode}/conv5"])
        assert_close(fc7, golden[f"{mode}/fc7"], ALEXNET_TOLERANCE[mode])


def test_small_alexnet_fc7_in_training_follows_from_the_files_own_conv5():
    golden = load("small_alexnet_features.npz")
    _, variables = alexnet_of(golden)
    x = jnp.asarray(golden["train/conv5"]).reshape(1, 4, -1)
    for i in (6, 7):
        x = x @ variables["params"][f"fc{i}"]["kernel"]
        norm = {kind: variables[kind][f"bn{i}"] for kind in variables}
        x, _ = BatchNorm().apply(norm, x, train=True, mutable=["batch_stats"])
        x = jax.nn.relu(x)
    assert_close(x, golden["train/fc7"], ALEXNET_HEAD_TOLERANCE)
