"""Fine-tuning takes the steps of PyTorch: losses, weights and running statistics.

`make_finetune` computed the file.
"""

import functools

import jax
import numpy as np
import pytest

from logo_jax.experiment.networks import make_norm
from logo_jax.methods import FineTune
from logo_jax.methods.base import Batch
from logo_jax.methods.fine_tune import Setting
from logo_jax.networks.encoder import Encoder
from logo_jax.networks.resnet import BasicBlock, ResNet
from logo_jax.parallel.mesh import batch_sharding, make_mesh, place, replicate
from logo_jax.protocols.finetune import cosine
from logo_jax.training import optim
from logo_jax.training.train_step import make_train_step
from tests.golden import make_finetune as golden
from tests.golden import torch_names as names

# For float32 sums in another order, relative to the largest value: differences are up
# to 2e-7. With momentum that is not Nesterov's they are up to 0.12, in the losses 0.06.
TOLERANCE = 1e-5


def ours(tensors):
    """Returns the backbone's variables and the classifier, from PyTorch's tensors."""
    tree = {"params": {}, "batch_stats": {}}
    leaves = {"running_mean": "mean", "running_var": "var", "bias": "bias"}
    for name, x in tensors.items():
        layer, _, leaf = name.rpartition(".")
        group = "batch_stats" if leaf.startswith("running") else "params"
        layer = layer.replace("downsample.0", "downsample_conv")
        *path, last = layer.replace("downsample.1", "downsample_bn").split(".")
        block = ["_".join(path)] if path else []
        place = tree[group]
        for key in (*block, last):
            place = place.setdefault(key, {})
        kind = "kernel" if x.ndim > 1 else "scale"
        place[leaves.get(leaf, kind)] = names.layout(x) if x.ndim > 1 else x
    return tree, tree["params"].pop("fc")


def tuned(num_devices):
    """Returns our losses and the state after the last step."""
    mesh = make_mesh(jax.devices()[:num_devices])
    norm = make_norm("global")
    backbone = ResNet((1, 1), BasicBlock, golden.WIDTH, "cifar", norm=norm)
    variables, linear = ours(golden.weights())
    method = FineTune(
        encoder=Encoder(backbone, head=None),
        variables={group: {"backbone": x} for group, x in variables.items()},
        num_classes=golden.CLASSES,
        make_optimizer=lambda rate, decay: optim.sgd(
            rate, momentum=golden.MOMENTUM, weight_decay=decay, nesterov=True
        ),
        schedule=cosine,
    )
    setting = Setting(golden.RATE, golden.DECAY, golden.STEPS)
    first = method.init(jax.random.key(0), Batch(golden.images(0)[:, None], None))
    state = first.replace(
        params=first.params | {"linear": linear},
        memory={name: np.float32(x) for name, x in setting._asdict().items()},
    )
    state, losses = replicate(jax.device_get(state), mesh), []
    keys = jax.random.split(jax.random.key(0))
    step = make_train_step(method.update, lambda key, x, epoch: x, mesh, keys)
    put = functools.partial(place, sharding=batch_sharding(mesh))
    for i in range(golden.STEPS):
        crops = golden.images(i)[:, None]
        batch = Batch(put(crops), put(crops[:, :0]), put(golden.labels(i)))
        state, metrics = step(state, batch, np.int32(0))
        losses.append(metrics["loss"])
    return np.array(losses), jax.device_get(state)


def test_five_steps_on_four_devices_are_those_of_pytorch():
    if not (names.DATA / "finetune.npz").exists():
        pytest.skip(f"LOGO_GOLDEN_DIR={names.DATA} has no finetune.npz")
    tensors = names.load("finetune.npz")
    losses, state = tuned(num_devices=4)
    np.testing.assert_allclose(losses, tensors.pop("losses"), rtol=TOLERANCE)
    variables, linear = ours(tensors)
    found = {
        "params": state.params["encoder"]["backbone"],
        "batch_stats": state.batch_stats["encoder"]["backbone"],
    }
    for got, want in ((found, variables), (state.params["linear"], linear)):
        jax.tree.map(assert_close, got, want)


def assert_close(got, want):
    error = np.abs(np.asarray(got) - want).max()
    assert error <= TOLERANCE * np.abs(want).max()
