"""InfoNCE of this library in a Flax NNX training loop; takes seconds on a CPU.

python examples/nnx_loop.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from sklearn.datasets import load_digits

from logo_jax.losses import info_nce, l2_normalize

BATCH, STEPS = 256, 100


class Encoder(nnx.Module):
    """Maps digits [b, 64] to unit embeddings [b, 32]."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(64, 128, rngs=rngs)
        self.out = nnx.Linear(128, 32, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the embeddings."""
        return l2_normalize(self.out(nnx.relu(self.hidden(x))))


@nnx.jit
def train_step(encoder, optimizer, first, second, negatives):
    """Runs a step on two views of each digit; negatives are the previous batch."""

    def loss_fn(encoder):
        query, key = encoder(first)[None], encoder(second)[None]
        others = jax.lax.stop_gradient(encoder(negatives))
        return info_nce(query, key, others, temperature=0.2).mean()

    loss, gradients = nnx.value_and_grad(loss_fn)(encoder)
    optimizer.update(encoder, gradients)
    return loss


def main() -> None:
    """Trains and prints the loss."""
    digits = jnp.asarray(load_digits().data, jnp.float32) / 16
    encoder = Encoder(nnx.Rngs(0))
    optimizer = nnx.Optimizer(encoder, optax.adam(1e-3), wrt=nnx.Param)
    negatives = digits[:BATCH]
    for i, key in enumerate(jax.random.split(jax.random.key(0), STEPS)):
        pick, *noise = jax.random.split(key, 3)
        x = digits[jax.random.permutation(pick, len(digits))[:BATCH]]
        views = [x + 0.2 * jax.random.normal(k, x.shape) for k in noise]
        loss = train_step(encoder, optimizer, *views, negatives)
        negatives = x
        if i % 20 == 19:
            print(f"step {i + 1}: loss {loss:.3f}")


if __name__ == "__main__":
    main()
