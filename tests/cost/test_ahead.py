"""Steps compiled for TPUs that are not here, with what their compiler says of them.

They need libtpu (`pip install -e ".[tpu]"`), and are skipped without it: it is a
download of 213 MB, and every start of JAX on a machine without a TPU then takes seconds
longer, unless JAX_PLATFORMS=cpu. `.ci/run` installs it.
"""

import functools
import importlib.util
import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from logo_jax.experiment.ahead import compile_at
from logo_jax.methods.base import ENCODER, PREDICTOR, REGRESSOR
from logo_jax.parallel.mesh import batch_sharding
from logo_jax.parallel.programs import bytes_by_kind, collectives
from logo_jax.parallel.targets import find_target
from logo_jax.training.train_step import make_train_step
from tests.backbones import TwoConvolutions
from tests.contracts import cases
from tests.cost import programs
from tests.cost.test_communication import EMBEDDINGS, HEALTH, KEYS, SCORES, means

HALF = functools.partial(TwoConvolutions, dtype=jnp.bfloat16)
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install -e '.[tpu]'",
)
METHODS = {
    "moco": lambda: cases.logo(
        cases.moco(cases.PER_DEVICE, backbone=HALF()),
        cases.PER_DEVICE,
        update_kind="joint",
    ),
    "simsiam": lambda: cases.METHODS["logo_simsiam_joint"](norms=cases.GLOBAL),
}


@functools.cache
def compiled(name):
    """Returns the state and the step of a method, compiled for four TPUs."""
    method, mesh = METHODS[name](), find_target("v5e:2x2").mesh
    step = make_train_step(
        method.update,
        lambda key, examples, epoch: examples,
        mesh,
        jax.random.split(jax.random.key(0)),
    )
    state = jax.eval_shape(method.init, jax.random.key(1), cases.batch())
    batch = jax.eval_shape(cases.batch)
    traced = step.trace(
        programs._on(NamedSharding(mesh, P()), state),
        programs._on(batch_sharding(mesh), batch),
        jnp.int32(0),
    )
    program = compile_at(traced.lower(), "O0")
    return state, program, program.as_text()


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize("name", METHODS)
def test_a_tpu_overwrites_the_state_in_place(name):
    state, program, text = compiled(name)
    memory = program.memory_analysis()
    assert memory.alias_size_in_bytes >= programs.num_bytes(state)
    aliases = text.partition("\n")[0].count("-alias)")
    assert aliases == len(jax.tree.leaves(state))


@needs_libtpu
def test_tpus_exchange_the_bytes_of_gradients_statistics_and_embeddings():
    state, _, text = compiled("simsiam")
    found = bytes_by_kind(collectives(text))
    assert found["collective-permute"] == EMBEDDINGS // 4
    views = {ENCODER: 4, PREDICTOR: 4, REGRESSOR: 4 + 1}
    moments = 2 * sum(  # means and variances, as in test_communication
        count * programs.num_bytes(means(state.batch_stats[net]))
        for net, count in views.items()
    )
    assert found["all-gather"] == HEALTH + SCORES + 4 * moments  # of four devices
    once = programs.num_bytes((state.params, state.batch_stats))
    assert 0 < found["all-reduce"] - once - moments < 100  # then the metrics
    _, _, text = compiled("moco")
    assert bytes_by_kind(collectives(text))["all-gather"] == KEYS + HEALTH + SCORES


@needs_libtpu
def test_a_tpu_convolves_no_float32_if_the_network_is_bfloat16():
    _, _, text = compiled("moco")
    # products of matrices are convolutions too there, such as those of the regressor
    lines = [line for line in text.splitlines() if "/conv_general_dilated" in line]
    found = [re.search(r" = (\w+)\[\S* convolution\(", line) for line in lines]
    assert [match[1] for match in found if match] == ["bf16"] * 12
