"""When LoGo's repulsion has a gradient."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.contracts import cases


def repulsion_momentum(**fields):
    """Returns the repulsion momentum's largest entry after each of four steps."""
    method = cases.logo(
        cases.simsiam(norms=cases.PER_DEVICE), cases.PER_DEVICE, clip_ratio=0.3
    )
    bare = cases.optim.clipped_sgd(0.05, momentum=0.0, weight_decay=0.0)
    method = dataclasses.replace(method, repel_tx=bare, **fields)
    trainer = cases.Trainer(method)
    state, sizes = trainer.init(), []
    for i in range(4):
        state, _ = trainer.run(state, 1, start=i)
        trace = jax.device_get(state.opt_states["repel"])
        sizes.append(
            max(np.abs(leaf).max() for leaf in jax.tree.leaves(trace) if leaf.ndim)
        )
    return sizes


@pytest.mark.slow
def test_repulsion_has_no_gradient_in_the_first_step_only():
    first, *rest = repulsion_momentum(reset_norm=False)
    assert first == 0
    assert min(rest) > 0


@pytest.mark.slow
def test_a_reset_norm_stops_the_repulsion_at_the_start_of_each_epoch():
    sizes = repulsion_momentum(reset_norm=True, steps_per_epoch=2)
    assert sizes[0] == sizes[2] == 0
    assert min(sizes[1], sizes[3]) > 0
