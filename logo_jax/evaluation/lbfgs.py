"""L-BFGS for softmax regression with several regularization strengths in parallel.

L-BFGS runs in preconditioned coordinates: the preconditioner is the inverse of an
approximate Hessian at the starting weights.

Axes are s strengths, n examples, d features and c classes. The last feature is the
constant 1, whose weights (the biases) are not penalized. In arrays [n, s, c] the axis
of strengths is between examples and classes, so that a product with the features is a
single matrix product. A margin is the logit of a class minus the logit of the true
class. Sums over the wrong classes alone keep full precision for an example whose
predicted probability is almost 1, also in float32.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

MEMORY = 10
TRIALS = 20
_LBFGS = optax.scale_by_lbfgs(memory_size=MEMORY)
_einsum = functools.partial(jnp.einsum, precision="highest")
_product = functools.partial(jnp.matmul, precision="highest")


class Problem(NamedTuple):
    """Examples and the regularization strengths to fit them with.

    Attributes:
        features: features of the examples, [n, d]; the last feature is 1.
        own: one-hot labels, [n, c]: whether the class is the true class of the example.
        penalty: strength of the penalty on each feature's weights, [s, d, 1]; 0 for
            the last feature.
    """

    features: Array
    own: Array
    penalty: Array


class Descent(NamedTuple):
    """Result of a descent.

    Attributes:
        weights: weights and biases, [s, d, c].
        start_gaps: half the squared norm of the preconditioned gradient at the initial
            weights, [s]. If the approximate Hessian were exact, a Newton step would
            decrease the objective by this amount.
        iterations: number of iterations, [s].
    """

    weights: Array
    start_gaps: Array
    iterations: Array


class _Point(NamedTuple):
    weights: Array
    moved: Array
    margins: Array
    gradient: Array
    lbfgs: optax.OptState
    done: Array
    iterations: Array


class _Trial(NamedTuple):
    step: Array
    low: Array
    high: Array
    residuals: Array
    accepted: Array
    tried: Array


def residuals(
    margins: Float[Array, "n s c"], own: Bool[Array, "n c"]
) -> Float[Array, "n s c"]:
    """Derivatives of the cross-entropy by the logits: probabilities minus one-hot."""
    top = margins.max(-1, keepdims=True)
    own = own[:, None]
    others = jnp.where(own, 0, jnp.exp(margins - top))
    rest = others.sum(-1, keepdims=True)
    return jnp.where(own, -rest, others) / (rest + jnp.exp(-top))


def whitening(problem: Problem, residual: Float[Array, "n s c"]) -> Array:
    """Returns A [s, d, d] such that A A' is the inverse of the class-averaged Hessian.

    The Hessian averaged over classes is X' diag(w) X + strength, where w_i is the mean
    over classes of p_ik (1 - p_ik).
    """
    probability = jnp.abs(residual)
    weight = (probability * (1 - probability)).mean(-1)
    x, size = problem.features, problem.features.shape[-1]
    hessian = _einsum("nd,ns,ne->sde", x, weight, x)
    eye = jnp.eye(size, dtype=x.dtype)[None]
    # The ridge keeps rounding errors from making a pivot of the Cholesky factorization
    # negative.
    ridge = 100 * float(jnp.finfo(x.dtype).eps)
    hessian += eye * (problem.penalty + ridge * hessian)
    root = jnp.linalg.cholesky(hessian)
    identity = jnp.broadcast_to(eye, root.shape)
    inverse = jax.lax.linalg.triangular_solve(
        root, identity, left_side=True, lower=True
    )
    return jnp.swapaxes(inverse, 1, 2)


@jax.jit
def descend(
    problem: Problem,
    weights: Float[Array, "s d c"],
    tolerance: Float[Array, ""],
    steps: Int[Array, ""],
) -> Descent:
    """Runs at most `steps` iterations of L-BFGS from `weights`.

    The preconditioner is computed at the initial weights. The iterations of a strength
    stop once its gap is at most a tenth of the tolerance times its penalty term
    strength/2 ||W||^2 (at the initial weights: at most the tolerance times that term).
    """
    margins = _margins(problem, weights)
    residual = residuals(margins, problem.own)
    metric = whitening(problem, residual)
    gradient = _gradient(problem, weights, residual, metric)
    done = _gap(gradient) <= tolerance * _penalty(problem, weights)
    start = _Point(
        weights,
        jnp.zeros_like(weights),
        margins,
        gradient,
        jax.vmap(_LBFGS.init)(weights),
        done,
        jnp.zeros(len(weights), jnp.int32),
    )
    _, end = jax.lax.while_loop(
        lambda state: (state[0] < steps) & ~state[1].done.all(),
        lambda state: (state[0] + 1, _iterate(problem, metric, tolerance, state[1])),
        (jnp.int32(0), start),
    )
    return Descent(end.weights, _gap(gradient), end.iterations)


def _iterate(problem: Problem, metric: Array, tolerance: Array, at: _Point) -> _Point:
    move, lbfgs = jax.vmap(_LBFGS.update)(at.gradient, at.lbfgs, at.moved)
    move = jnp.asarray(move)
    uphill = _per_weight(_dot(move, at.gradient) <= 0)
    move = jnp.where(uphill, at.gradient, move)
    move = jnp.where(_per_weight(at.done), 0, -move)
    direction = _einsum("sde,sec->sdc", metric, move)
    slopes = _margins(problem, direction)
    step, residual = _search(problem, at, direction, slopes, _dot(move, at.gradient))
    step = _per_weight(step)
    weights = at.weights + step * direction
    gradient = _gradient(problem, weights, residual, metric)
    near = _gap(gradient) <= tolerance / 10 * _penalty(problem, weights)
    return _Point(
        weights,
        at.moved + step * move,
        at.margins + jnp.swapaxes(step, 0, 1) * slopes,
        gradient,
        lbfgs,
        at.done | near,
        at.iterations + (~at.done).astype(jnp.int32),
    )


def _search(
    problem: Problem, at: _Point, direction: Array, slopes: Array, start: Array
) -> tuple[Array, Array]:
    """Returns step sizes at which the slope is at most halved, and the residuals there.

    The search compares slopes, not values of the objective: near the minimum the
    difference of two objective values, each a sum over all examples, is lost to
    rounding, whereas a convex function decreases until its slope changes sign.
    Margins are linear in the step size, so that a trial needs no product with the
    features.
    """
    linear = _dot(problem.penalty * at.weights, direction)
    quadratic = _dot(problem.penalty * direction, direction)

    def attempt(trial: _Trial) -> _Trial:
        step = trial.step
        residual = residuals(at.margins + step[None, :, None] * slopes, problem.own)
        first = (residual * slopes).sum(-1)
        second = (jnp.abs(residual) * slopes**2).sum(-1) - first**2
        slope = first.sum(0) + linear + quadratic * step
        accepted = trial.accepted | (jnp.abs(slope) <= jnp.abs(start) / 2)
        low = jnp.where(slope < 0, step, trial.low)
        high = jnp.where(slope < 0, trial.high, step)
        newton = step - slope / (second.sum(0) + quadratic)
        inside = (newton > low) & (newton < jnp.minimum(high, 100 * step))
        middle = jnp.where(jnp.isinf(high), 4 * step, (low + high) / 2)
        stay = accepted | (trial.tried + 1 == TRIALS)
        following = jnp.where(stay, step, jnp.where(inside, newton, middle))
        return _Trial(following, low, high, residual, accepted, trial.tried + 1)

    zero = jnp.zeros_like(start)
    first_trial = _Trial(
        zero + 1,
        zero,
        zero + jnp.inf,
        jnp.zeros_like(slopes),
        jnp.zeros_like(at.done),
        jnp.int32(0),
    )
    last = jax.lax.while_loop(
        lambda trial: ~trial.accepted.all() & (trial.tried < TRIALS),
        attempt,
        first_trial,
    )
    return last.step, last.residuals


def _margins(problem: Problem, weights: Array) -> Array:
    count, size, classes = weights.shape
    flat = jnp.swapaxes(weights, 0, 1).reshape(size, -1)
    logits = _product(problem.features, flat).reshape(-1, count, classes)
    own = problem.own[:, None]
    return jnp.where(own, 0, logits - jnp.where(own, logits, 0).sum(-1, keepdims=True))


def _gradient(
    problem: Problem, weights: Array, residual: Array, metric: Array
) -> Array:
    """Returns the gradient in preconditioned coordinates."""
    count, size, classes = weights.shape
    flat = residual.reshape(len(residual), -1)
    of_loss = _product(problem.features.T, flat).reshape(size, count, classes)
    plain = jnp.swapaxes(of_loss, 0, 1) + problem.penalty * weights
    return _einsum("sde,sdc->sec", metric, plain)


def _penalty(problem: Problem, weights: Array) -> Array:
    return _dot(problem.penalty * weights, weights) / 2


def _gap(gradient: Array) -> Array:
    return _dot(gradient, gradient) / 2


def _dot(a: Array, b: Array) -> Array:
    return (a * b).sum((1, 2))


def _per_weight(of_strength: Array) -> Array:
    return of_strength[:, None, None]
