"""SimSiam-LoGo in a custom training loop, on scikit-learn's digits; a minute on a CPU.

python examples/own_loop.py
"""

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from logo_jax import augment, losses
from logo_jax.methods import LearnedAffinity, LoGo, SimSiam
from logo_jax.methods.base import Batch
from logo_jax.methods.pairing import pair_weights
from logo_jax.networks import heads, resnet
from logo_jax.networks.encoder import Encoder
from logo_jax.parallel.mesh import batch_sharding, make_mesh, replicate
from logo_jax.training import optim
from logo_jax.training.train_step import make_train_step

SIZE, BATCH, STEPS = 16, 128, 60
crops = {
    "global_crops": augment.CropSpec(count=2, size=SIZE, scale=(0.5, 1.0)),
    "local_crops": augment.CropSpec(count=2, size=SIZE, scale=(0.2, 0.5)),
    "augment": augment.AugmentSpec(
        flip_prob=0.0,  # a flipped digit is not a digit
        vertical_flip_prob=0.0,
        quarter_turns_prob=0.0,
        jitter=(0.4, 0.4, 0.4, 0.1),
        jitter_prob=0.8,
        grayscale_prob=0.2,
        blur_prob=0.0,
        blur_sigma=(0.1, 2.0),
        solarize_prob=0.0,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        value_range=(0.0, 255.0),
    ),
}
images = load_digits().images.repeat(2, axis=1).repeat(2, axis=2) / 16 * 255
images = np.stack([images.astype(np.uint8)] * 3, axis=-1)


def make_method() -> LoGo:
    """Returns LoGo with SimSiam as base method, and its networks."""
    encoder = Encoder(
        resnet.resnet10(width=16, stem="cifar"), heads.simsiam_head(2, 64, 64)
    )
    predictor = heads.simsiam_predictor(16, 64)
    tx = optim.sgd(0.3, momentum=0.9, weight_decay=5e-4)
    weights = pair_weights("global_targets", num_global=2, num_local=2)
    return LoGo(
        base=SimSiam(encoder, predictor, tx, weights),
        affinity=LearnedAffinity(
            regressor=heads.Regressor(64),
            tx=tx,
            loss=losses.jensen_shannon,
            trained=True,
            noise=0.3,
            noise_on="both",
            negatives="flip",
            regressor_norm="joint",
            both_orders=False,
            normalize=True,
        ),
        repel_tx=tx,  # used by the released update only
        update_kind="joint",
        weight=1e-4,
        clip_ratio=0.015,
        reset_norm=False,
        steps_per_epoch=1,
        update_momentum_before_repel=False,
    )


def cut(key: jax.Array, ids: jax.Array, epoch: jax.Array) -> Batch:
    """Returns crops of the images with these indices, cut on the device."""
    sizes = jnp.full((len(ids), 2), SIZE)
    chosen = jnp.asarray(images)[ids]
    return Batch(
        *augment.make_views(jax.random.fold_in(key, epoch), chosen, sizes, ids, **crops)
    )


def main() -> None:
    """Trains and prints the loss."""
    method, mesh, rng = make_method(), make_mesh(), np.random.default_rng(0)
    keys = jax.random.split(jax.random.key(0))
    example = jax.eval_shape(cut, keys[0], jnp.arange(BATCH), jnp.int32(0))
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), example)
    state = replicate(jax.jit(method.init)(jax.random.key(1), blank), mesh)
    train_step = make_train_step(method.update, cut, mesh, keys)
    for i in range(STEPS):
        ids = rng.permutation(len(images))[:BATCH].astype(np.int32)
        ids = jax.device_put(ids, batch_sharding(mesh))
        state, metrics = train_step(state, ids, np.int32(i))
        if i % 10 == 9:
            print(f"step {i + 1}: loss {metrics['loss']:.3f}")


if __name__ == "__main__":
    main()
