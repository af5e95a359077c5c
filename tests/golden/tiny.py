"""The small encoder of the golden files, and steps with given crops and noise."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from logo_jax.methods.base import Batch
from logo_jax.networks.batch_norm import BatchNorm
from logo_jax.training.train_step import make_train_step


class TinyBackbone(nn.Module):
    """Conv BN ReLU, Conv (stride 2) BN ReLU, mean over pixels."""

    channels: tuple[int, int] = (8, 16)
    axis_name: str | None = None
    splits: int = 1

    @nn.compact
    def __call__(self, x, *, train):
        for i, (channels, stride) in enumerate(zip(self.channels, (1, 2), strict=True)):
            x = nn.Conv(
                channels, (3, 3), stride, padding=1, use_bias=False, name=f"conv{i}"
            )(x)
            norm = BatchNorm(self.axis_name, self.splits, name=f"bn{i}")
            x = nn.relu(norm(x, train=train))
        return x.mean((-3, -2))


def stack_crops(golden, step):
    """Returns the batch of crops that the reference used in this step."""

    def stack(kind):
        names = [n for n in (f"crops{step}/{kind}{i}" for i in (1, 2)) if n in golden]
        if names:
            return jnp.stack([jnp.asarray(golden[n]) for n in names], axis=1)
        return jnp.zeros((golden["config/batch"].item(), 0, 4, 4, 3))

    return Batch(stack("global"), stack("local"))


def compile_update(update, mesh):
    """Returns a step `(state, (batch, noise)) -> (state, metrics)` with given noise."""
    step = make_train_step(
        lambda state, inputs, key: update(state, inputs[0], key, inputs[1]),
        lambda key, inputs, epoch: inputs,
        mesh,
        jax.random.split(jax.random.key(0)),
    )
    return lambda state, batch, noise: step(state, (batch, noise), np.int32(0))
