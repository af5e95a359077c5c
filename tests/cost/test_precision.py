"""With bfloat16, networks compute in bfloat16, and all else stays float32."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params

from logo_jax import configs
from logo_jax.data.loader import example_shapes
from logo_jax.evaluation.knn import class_votes
from logo_jax.experiment import make_spec
from logo_jax.experiment.experiment import compiled_step
from logo_jax.experiment.memory import traced_step
from logo_jax.networks.batch_norm import BatchNorm
from logo_jax.parallel.mesh import batch_sharding, make_mesh
from tests.backbones import CHEAP

FIELDS = CHEAP | {
    "crops.global_crops": (2, 8, (0.4, 1.0)),
    "crops.local_crops": (2, 8, (0.1, 0.4)),
    "data.batch_size": 8,
    "batch_norm": "global",
    "encoder.dtype": "bfloat16",
}
METHODS = {"moco": {"method.queue_size": 64}, "simsiam": {}}


@functools.cache
def step_of(method):
    """Returns the shapes of the state and the equations of a step in bfloat16."""
    config = configs.load(f"cifar10_{method}", FIELDS | METHODS[method]).to_dict()
    mesh = make_mesh(jax.devices()[:1])
    spec = make_spec(config, num_devices=1)
    examples = example_shapes(8, (0,), (8, 8, 3), "uint8", batch_sharding(mesh))
    traced = traced_step(spec, compiled_step(spec, mesh), mesh, examples)
    return spec.shapes, list(equations(traced.jaxpr.jaxpr))


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


def types_of(method, *primitives):
    """Returns the floating-point types of the operands of these operations."""
    _, found = step_of(method)
    return {
        operand.aval.dtype.name
        for equation in found
        if equation.primitive.name in primitives
        for operand in equation.invars
        if jnp.issubdtype(operand.aval.dtype, jnp.floating)
    }


@pytest.mark.parametrize("method", METHODS)
def test_parameters_statistics_optimizer_and_queue_stay_float32(method):
    state, _ = step_of(method)
    leaves = jax.tree.leaves(state)
    floats = {x.dtype.name for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)}
    assert floats == {"float32"}
    assert ("queue" in state.memory) == (method == "moco")


@pytest.mark.parametrize("method", METHODS)
def test_convolutions_compute_in_bfloat16(method):
    assert types_of(method, "conv_general_dilated") == {"bfloat16"}


@pytest.mark.parametrize("method", METHODS)
def test_softmax_losses_norms_and_sums_over_devices_stay_float32(method):
    softmax = {"exp", "log", "log1p", "logistic", "reduce_max", "sqrt", "rsqrt"}
    assert types_of(method, *softmax) == {"float32"}
    assert types_of(method, "psum", "psum_invariant", "all_gather") == {"float32"}


def test_similarities_with_the_queue_stay_float32():
    _, found = step_of("moco")
    products = [
        equation
        for equation in found
        if equation.primitive.name == "dot_general"
        and any(64 in operand.aval.shape for operand in equation.invars)
    ]
    assert products
    types = {x.aval.dtype.name for each in products for x in each.invars}
    assert types == {"float32"}


def precisions(function, *arguments):
    """Returns the precision of each matrix product of a function."""
    found = equations(jax.make_jaxpr(function)(*arguments).jaxpr)
    return [
        equation.params["precision"]
        for equation in found
        if equation.primitive.name == "dot_general"
    ]


def test_running_statistics_and_votes_are_not_rounded_on_an_accelerator():
    """By default, the factors of a product in float32 are rounded there."""
    norm, x = BatchNorm(), jnp.ones((2, 4, 3))
    variables = norm.init(jax.random.key(0), x, train=False)

    def statistics(variables, x):
        return norm.apply(variables, x, train=True, mutable=["batch_stats"])[1]

    def votes(similarity, labels):
        return class_votes(similarity, labels, settings=((2, 0.1),), num_classes=3)

    highest = (jax.lax.Precision.HIGHEST,) * 2
    assert precisions(statistics, variables, x) == [highest] * 2  # mean, variance
    assert precisions(votes, jnp.ones((5, 2)), jnp.zeros((5, 2), int)) == [highest]
