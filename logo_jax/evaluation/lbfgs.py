"""L-BFGS for softmax regression, all strengths at once, in their curvature's metric.

Axes: s strengths, n examples, d features of which the last is the constant 1 whose
weights are not penalized, c classes; strengths lie between examples and classes, so
that a product with the features is one of two matrices. A margin is a class's logit
less the own class's: sums over the other classes alone keep all their digits where an
example is almost certain, in float32 too.
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
    """Examples, with the strengths to fit them at.

    Attributes:
        features: [n, d], the last of them 1.
        own: [n, c], whether the class is the example's.
        penalty: [s, d, 1], the strength of each feature's weights; 0 for the last's.
    """

    features: Array
    own: Array
    penalty: Array


class Descent(NamedTuple):
    """Where a descent stands.

    Attributes:
        weights: [s, d, c].
        gaps: [s], half the squared length of the gradient in the metric the descent
            began with: what a Newton step would gain were the metric the Hessian.
        gradient_norms: [s], Euclidean.
        start_gaps: [s], `gaps` of the weights it began with.
        iterations: [s].
    """

    weights: Array
    gaps: Array
    gradient_norms: Array
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
    """Probabilities less 1 for the own class: derivatives of cross-entropy by logit."""
    top = margins.max(-1, keepdims=True)
    own = own[:, None]
    others = jnp.where(own, 0, jnp.exp(margins - top))
    rest = others.sum(-1, keepdims=True)
    return jnp.where(own, -rest, others) / (rest + jnp.exp(-top))


def whitening(problem: Problem, residual: Float[Array, "n s c"]) -> Array:
    """A [s, d, d] such that A A' inverts the Hessian averaged over classes.

    It is of X' diag(w) X + strength, w_i the mean over classes of p_ik (1 - p_ik).
    """
    probability = jnp.abs(residual)
    weight = (probability * (1 - probability)).mean(-1)
    x, size = problem.features, problem.features.shape[-1]
    hessian = _einsum("nd,ns,ne->sde", x, weight, x)
    eye = jnp.eye(size, dtype=x.dtype)[None]
    # Cholesky must not meet a pivot that rounding made negative
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
    """At most `steps` iterations of L-BFGS from `weights`, in the metric found there.

    A strength rests once its gap is below tolerance times its penalty
    strength/2 ||W||^2.
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
    residual = residuals(end.margins, problem.own)
    plain = _plain_gradient(problem, end.weights, residual)
    return Descent(
        end.weights,
        _gap(end.gradient),
        jnp.sqrt(_dot(plain, plain)),
        _gap(gradient),
        end.iterations,
    )


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
    """Steps that halve the slope, and the residuals there.

    Slopes decide, not values: a convex function falls until its slope turns, and the
    difference of two sums over all examples has no digits left near the minimum.
    Margins are linear in the step, so that a trial costs no product with the features.
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

    nought = jnp.zeros_like(start)
    first_trial = _Trial(
        nought + 1,
        nought,
        nought + jnp.inf,
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


def _plain_gradient(problem: Problem, weights: Array, residual: Array) -> Array:
    count, size, classes = weights.shape
    flat = residual.reshape(len(residual), -1)
    of_loss = _product(problem.features.T, flat).reshape(size, count, classes)
    return jnp.swapaxes(of_loss, 0, 1) + problem.penalty * weights


def _gradient(
    problem: Problem, weights: Array, residual: Array, metric: Array
) -> Array:
    plain = _plain_gradient(problem, weights, residual)
    return _einsum("sde,sdc->sec", metric, plain)


def _penalty(problem: Problem, weights: Array) -> Array:
    return _dot(problem.penalty * weights, weights) / 2


def _gap(gradient: Array) -> Array:
    return _dot(gradient, gradient) / 2


def _dot(a: Array, b: Array) -> Array:
    return (a * b).sum((1, 2))


def _per_weight(of_strength: Array) -> Array:
    return of_strength[:, None, None]
