"""The linear classifier on cached features: a grid of settings trained at once.

Features are standardized: each is shifted and scaled to mean 0 and variance 1 over the
rows trained on. A linear classifier of those is one of the raw features, so nothing is
lost or gained but the conditioning: one grid of learning rates then serves encoders
whose features differ in scale a hundredfold (MoCo's probe needs a rate of 30, others
0.1). MAE's probe does the same by a batch norm without parameters. Unit vectors, as kNN
has them, would be another, non-linear, description: it forgets the lengths.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from logo_jax.evaluation.features import Features, require_classes
from logo_jax.evaluation.metrics import top_hits
from logo_jax.methods.linear import cross_entropy, logits, zero_classifier

MOMENTUM = 0.9
LEARNING_RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
WEIGHT_DECAYS = (0.0, 1e-4, 1e-3)
SCHEDULES = {  # of a rate, over a number of steps
    "cosine": optax.cosine_decay_schedule,
    "step": lambda rate, steps: optax.piecewise_constant_schedule(
        rate, {-(-steps * 3 // 5): 0.1, -(-steps * 4 // 5): 0.1}
    ),
}


class GridResult(NamedTuple):
    """What a linear classifier reaches, and how its setting was chosen.

    Attributes:
        top1: of the test set, in percent.
        top5: of the test set, in percent; 100 where there are at most five classes.
        learning_rate: chosen on the validation set.
        weight_decay: chosen on the validation set.
        val_top1: of the validation set, in percent, for every pair [r, w]: whether the
            best lies on the edge of the grid.
    """

    top1: float
    top5: float
    learning_rate: float
    weight_decay: float
    val_top1: np.ndarray


class Training(NamedTuple):
    """How a linear classifier is trained.

    Attributes:
        num_classes: classes to tell apart.
        num_epochs: passes over the rows; what is left of one after its last whole batch
            is left out of it.
        batch_size: rows a step; all, where there are fewer.
        schedule: of the rate: "cosine" to 0, or "step": x0.1 at 60 and 80 %.
        seed: of the order of rows.
    """

    num_classes: int
    num_epochs: int = 100
    batch_size: int = 256
    schedule: str = "cosine"
    seed: int = 0


def best_of_grid(
    train: Features,
    val: Features,
    test: Features,
    training: Training,
    *,
    learning_rates: Sequence[float] = LEARNING_RATES,
    weight_decays: Sequence[float] = WEIGHT_DECAYS,
) -> GridResult:
    """Accuracy on `test` of the pair that is best on `val`, retrained on both others.

    Of pairs equal on `val` the first is taken, rates before decays. The test set takes
    part once, after the choice.

    Args:
        train: to train every pair on.
        val: to choose a pair on.
        test: to report.
        training: the schedule, the same for every pair and for the last training.
        learning_rates: the grid's rows, of standardized features.
        weight_decays: the grid's columns.

    Raises:
        ValueError: where images show several classes, a label is no class, a part or
            the grid is empty, or the schedule is unknown.
    """
    if training.schedule not in SCHEDULES:
        raise ValueError(
            f"schedule={training.schedule!r} must be one of {', '.join(SCHEDULES)}"
        )
    for name, part in (("train", train), ("val", val), ("test", test)):
        require_classes(part, training.num_classes, name)
    pairs = np.array([(r, w) for r in learning_rates for w in weight_decays])
    if not len(pairs):
        raise ValueError(
            "the grid of learning rates and weight decays must not be empty"
        )
    val_top1 = 100 * accuracies(train, val, pairs, training)[:, 0]
    best = pairs[val_top1.argmax()]
    both = Features(*map(np.concatenate, zip(train, val, strict=True)))
    top1, top5 = 100 * accuracies(both, test, best[None], training)[0]
    return GridResult(
        top1=float(top1),
        top5=float(top5),
        learning_rate=float(best[0]),
        weight_decay=float(best[1]),
        val_top1=val_top1.reshape(len(learning_rates), len(weight_decays)),
    )


def accuracies(
    train: Features, held: Features, pairs: Float[np.ndarray, "g 2"], training: Training
) -> Float[np.ndarray, "g 2"]:
    """Fractions of `held` whose label is first, and among the first five, by pair.

    A classifier that has diverged is right nowhere.

    Args:
        train: to train on; its mean and variance standardize both.
        held: to classify.
        pairs: (learning rate, weight decay).
        training: the schedule.
    """
    mean, scale = standardization(train.features)
    x, held_x = (
        jnp.asarray((part.features - mean) / scale, jnp.float32)
        for part in (train, held)
    )
    y, held_y = (jnp.asarray(part.labels, jnp.int32) for part in (train, held))
    classifiers = train_grid(x, y, jnp.asarray(pairs, jnp.float32), training)
    return np.asarray(_hits(classifiers, held_x, held_y)) / len(held_y)


def standardization(
    features: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """Mean and standard deviation of each feature; 1 for one that does not vary."""
    std = features.std(0)
    return features.mean(0), np.where(std > 0, std, 1).astype(features.dtype)


@functools.partial(jax.jit, static_argnames="training")
def train_grid(
    x: Float[Array, "n d"],
    labels: Int[Array, " n"],
    pairs: Float[Array, "g 2"],
    training: Training,
) -> dict[str, Float[Array, "g ..."]]:
    """One classifier a pair, all trained at once on the same batches.

    SGD as PyTorch has it: the decay is added to the gradient, then momentum, then the
    rate is applied; biases decay too. All start from zero.

    Args:
        x: standardized features.
        labels: in [0, num_classes).
        pairs: (learning rate, weight decay).
        training: the schedule.

    Returns:
        `kernel` [g, d, c] and `bias` [g, c].
    """
    size = min(training.batch_size, len(x))
    steps = len(x) // size
    schedule = SCHEDULES[training.schedule]

    def loss(classifier, rows):
        return cross_entropy(logits(classifier, x[rows]), labels[rows]).mean()

    def train_one(pair):
        rate, decay = pair
        rates = schedule(rate, training.num_epochs * steps)
        # optax divides the integer count, which strict promotion refuses
        sgd = optax.sgd(lambda count: rates(jnp.asarray(count, jnp.float32)), MOMENTUM)
        tx = optax.chain(optax.add_decayed_weights(decay), sgd)

        def step(state, rows):
            classifier, opt_state = state
            gradient = jax.grad(loss)(classifier, rows)
            updates, opt_state = tx.update(gradient, opt_state, classifier)
            return (jax.tree.map(jnp.add, classifier, updates), opt_state), None

        def epoch(state, number):
            key = jax.random.fold_in(jax.random.key(training.seed), number)
            order = jax.random.permutation(key, len(x))[: steps * size]
            return jax.lax.scan(step, state, order.reshape(steps, size))

        start = zero_classifier(x.shape[1], training.num_classes)
        state = start, tx.init(start)
        return jax.lax.scan(epoch, state, jnp.arange(training.num_epochs))[0][0]

    with jax.default_matmul_precision("highest"):
        return jax.vmap(train_one)(pairs)


@jax.jit
def _hits(classifiers, x, labels):
    """How many rows each classifier has first, and among its first five, [g, 2]."""
    with jax.default_matmul_precision("highest"):
        return jax.lax.map(lambda each: top_hits(logits(each, x), labels), classifiers)
