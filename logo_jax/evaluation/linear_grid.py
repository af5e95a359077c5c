"""Linear classifiers on cached features, trained in parallel on a grid of settings.

Features are standardized: each feature is shifted and scaled to mean 0 and variance 1
over the training rows. A linear classifier of standardized features is also a linear
classifier of the raw features, so standardization changes only the conditioning: one
grid of learning rates is then suitable for encoders whose features differ in scale by a
factor of 100 (MoCo's linear probe needs a learning rate of 30, others 0.1). The linear
probe of MAE standardizes with a batch norm without parameters. Normalizing the features
to unit vectors, as kNN does, would be a non-linear change that discards their lengths.
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
from logo_jax.parallel.keys import make_key

MOMENTUM = 0.9
LEARNING_RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
WEIGHT_DECAYS = (0.0, 1e-4, 1e-3)
SCHEDULES = {  # functions of the initial learning rate and the number of steps
    "cosine": optax.cosine_decay_schedule,
    "step": lambda rate, steps: optax.piecewise_constant_schedule(
        rate, {-(-steps * 3 // 5): 0.1, -(-steps * 4 // 5): 0.1}
    ),
}


class GridResult(NamedTuple):
    """Test accuracy of a linear classifier, and the settings chosen on validation data.

    Attributes:
        top1: top-1 accuracy on the test set, in percent.
        top5: top-5 accuracy on the test set, in percent; 100 if there are at most five
            classes.
        learning_rate: learning rate chosen on the validation set.
        weight_decay: weight decay chosen on the validation set.
        val_top1: top-1 accuracy on the validation set, in percent, for each pair of
            learning rate and weight decay [r, w]; shows whether the best pair is at the
            edge of the grid.
    """

    top1: float
    top5: float
    learning_rate: float
    weight_decay: float
    val_top1: np.ndarray


class Training(NamedTuple):
    """Training settings of a linear classifier.

    Attributes:
        num_classes: number of classes.
        num_epochs: number of passes over the rows; the rows that remain after the last
            full batch of an epoch are dropped.
        batch_size: number of rows per step; all rows if there are fewer.
        schedule: learning rate schedule: "cosine": cosine decay to 0; "step": x0.1 at
            60 % and at 80 % of the steps.
        seed: seed of the order of rows.
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
    """Chooses learning rate and weight decay on `val`, and returns the test accuracy.

    The classifier with the chosen pair is retrained on `train` and `val` together and
    evaluated on `test`, which is not used before. If several pairs are equally accurate
    on `val`, the first learning rate is taken, and then the first weight decay.

    Args:
        train: features and labels to train a classifier on, for each pair of settings.
        val: features and labels by whose accuracy a pair is chosen.
        test: features and labels for which the accuracy is reported.
        training: training settings, the same for each pair and for the retraining.
        learning_rates: learning rates of the grid, for standardized features.
        weight_decays: weight decays of the grid.

    Raises:
        ValueError: if images are multi-label, if a label is not in [0, num_classes), if
            a part or the grid is empty, or if the schedule is unknown.
    """
    if training.schedule not in SCHEDULES:
        raise ValueError(
            f"schedule={training.schedule!r} must be one of {', '.join(SCHEDULES)}"
        )
    for name, part in (("train", train), ("val", val), ("test", test)):
        require_classes(part.labels, training.num_classes, name)
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
    """Returns the top-1 and top-5 accuracies on `held`, in [0, 1], for each pair.

    The accuracies of a classifier that has diverged are 0.

    Args:
        train: features and labels to train on; their mean and variance standardize the
            features of both data sets.
        held: features and labels of the examples that are classified.
        pairs: pairs (learning rate, weight decay).
        training: training settings.
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
    """Mean and standard deviation of each feature; 1 instead of a deviation of 0."""
    std = features.std(0)
    return features.mean(0), np.where(std > 0, std, 1).astype(features.dtype)


@functools.partial(jax.jit, static_argnames="training")
def train_grid(
    x: Float[Array, "n d"],
    labels: Int[Array, " n"],
    pairs: Float[Array, "g 2"],
    training: Training,
) -> dict[str, Float[Array, "g ..."]]:
    """Trains one classifier for each pair, in parallel and on the same batches.

    The optimizer is SGD as in PyTorch: the weight decay is added to the gradient, then
    momentum is applied, then the learning rate. Biases are decayed too. All parameters
    are initialized to zero.

    Args:
        x: standardized features.
        labels: classes, in [0, num_classes).
        pairs: pairs (learning rate, weight decay).
        training: training settings.

    Returns:
        Parameters `kernel` [g, d, c] and `bias` [g, c].
    """
    size = min(training.batch_size, len(x))
    steps = len(x) // size
    schedule = SCHEDULES[training.schedule]

    def loss(classifier, rows):
        return cross_entropy(logits(classifier, x[rows]), labels[rows]).mean()

    def train_one(pair):
        rate, decay = pair
        rates = schedule(rate, training.num_epochs * steps)
        # optax divides the integer count, which is an error under strict promotion
        sgd = optax.sgd(lambda count: rates(jnp.asarray(count, jnp.float32)), MOMENTUM)
        tx = optax.chain(optax.add_decayed_weights(decay), sgd)

        def step(state, rows):
            classifier, opt_state = state
            gradient = jax.grad(loss)(classifier, rows)
            updates, opt_state = tx.update(gradient, opt_state, classifier)
            return (jax.tree.map(jnp.add, classifier, updates), opt_state), None

        def epoch(state, number):
            key = jax.random.fold_in(make_key(training.seed), number)
            order = jax.random.permutation(key, len(x))[: steps * size]
            return jax.lax.scan(step, state, order.reshape(steps, size))

        start = zero_classifier(x.shape[1], training.num_classes)
        state = start, tx.init(start)
        return jax.lax.scan(epoch, state, jnp.arange(training.num_epochs))[0][0]

    with jax.default_matmul_precision("highest"):
        return jax.vmap(train_one)(pairs)


@jax.jit
def _hits(classifiers, x, labels):
    """Number of top-1 and top-5 hits of each classifier, [g, 2]."""
    with jax.default_matmul_precision("highest"):
        return jax.lax.map(lambda each: top_hits(logits(each, x), labels), classifiers)
