"""Properties that hold for every method, with and without LoGo."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.parallel.mesh import batch_sharding, make_mesh, replicate
from logo_jax.training.checkpoints.manager import CheckpointManager
from logo_jax.training.train_step import make_train_step
from tests.contracts import cases

every_method = pytest.mark.parametrize("name", cases.METHODS)

# The first batch of the test on four devices. With batches 0 to 2, an activation of
# logo_byol_joint is so close to a ReLU's kink that changing the initial state by half a
# unit in the last place changes the state after three steps by 8e-4. With batches 3 to
# 5, that change is 6e-7, so the tolerance below suffices on other CPUs too.
FIRST_BATCH = 3


def assert_equal(a, b, tolerance=0.0):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(
        jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        where = jax.tree_util.keystr(path)
        # traces of the optimizer are as large as 100, with a last place of 8e-6
        last_places = 1e-6 if tolerance else 0
        np.testing.assert_allclose(x, y, last_places, tolerance, err_msg=where)


@every_method
def test_a_run_keeps_its_structure_traces_once_and_resumes_bit_equal(name, tmp_path):
    trainer = cases.one_device(name)
    first = trainer.init()
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), first)
    before = jax.device_get(first)
    state, metrics = trainer.run(first, 2)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == shapes
    assert int(state.step) == 2
    assert all(np.isfinite(value) for value in metrics.values())
    assert_every_statistic_moved(before.batch_stats, state.batch_stats)
    with CheckpointManager(tmp_path) as checkpoints:
        checkpoints.save(2, state)
    uninterrupted, _ = trainer.run(state, 2, start=2)
    with CheckpointManager(tmp_path) as checkpoints:
        found = checkpoints.restore_latest(trainer.init())
    assert found is not None
    resumed, _ = trainer.run(found[1], 2, start=2)
    assert_equal(resumed, uninterrupted)
    assert trainer.traces == 1


def assert_every_statistic_moved(before, after):
    for (path, x), y in zip(
        jax.tree.leaves_with_path(before), jax.tree.leaves(after), strict=True
    ):
        assert np.any(x != np.asarray(y)), (
            f"{jax.tree_util.keystr(path)} did not change"
        )


@every_method
def test_four_devices_equal_one_with_global_batch_norm(name):
    one, four = cases.one_device(name), cases.Trainer(cases.METHODS[name](), 4)
    first = one.init(), replicate(one.first, four.mesh)
    (a, a_metrics), (b, b_metrics) = (
        trainer.run(state, 3, start=FIRST_BATCH)
        for trainer, state in zip((one, four), first, strict=True)
    )
    assert_equal(jax.device_get(a), jax.device_get(b), tolerance=2e-5)
    for key in a_metrics:
        np.testing.assert_allclose(a_metrics[key], b_metrics[key], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "simsiam",
        "moco_shuffled",
        "byol",
        "swav_queue",
        "logo_simsiam_joint",
        "logo_moco",
        "logo_moco_joint",
        "logo_byol_joint",
        "logo_swav",
        "logo_swav_joint",
    ],
)
def test_parts_of_a_batch_equal_the_whole_with_the_same_groups(name):
    groups = cases.Norms(None, groups=2)
    whole = cases.Trainer(cases.METHODS[name](norms=groups))
    parts = cases.Trainer(cases.METHODS[name](norms=groups._replace(parts=2)))
    first = cases.one_device(name).first  # the groups change no weight
    (a, a_metrics), (b, b_metrics) = (
        trainer.run(replicate(first, trainer.mesh), 1) for trainer in (whole, parts)
    )
    a, b = jax.device_get((a, b))
    assert_equal(a.params, b.params, tolerance=1e-6)
    # The momentum is the gradient, with entries up to 1, which sums over more images.
    assert_equal(a, b, tolerance=1e-5)
    assert a_metrics.keys() == b_metrics.keys()
    for key in a_metrics:
        np.testing.assert_allclose(a_metrics[key], b_metrics[key], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swav_queue", "logo_every_option"])
def test_seeds_trained_together_equal_their_single_runs(name):
    method = cases.METHODS[name]()
    mesh = make_mesh(jax.devices()[:2])
    seeds = jax.random.split(jax.random.key(5))
    keys = jax.vmap(jax.random.split)(seeds)

    init = jax.jit(lambda key: method.init(key, cases.batch()))

    def step(keys):
        return make_train_step(
            method.update, lambda key, batch, epoch: batch, mesh, keys
        )

    def train(step, state, batches, several):
        state = replicate(state, mesh)
        for batch in batches:
            batch = jax.device_put(batch, batch_sharding(mesh, several))
            state, metrics = step(state, batch, jnp.int32(0))
        return jax.device_get((state, metrics))

    batches = [[cases.batch(10 * seed + i) for i in range(3)] for seed in range(2)]
    stacked = [
        jax.tree.map(lambda *x: jnp.stack(x), *both)
        for both in zip(*batches, strict=True)
    ]
    together = train(step(keys), jax.vmap(init)(keys[:, 0]), stacked, several=True)
    single = step(keys[0])
    for seed in range(2):
        of_seed = single._replace(keys=step(keys[seed]).keys)  # compiles only once
        alone = train(of_seed, init(keys[seed, 0]), batches[seed], several=False)
        mine = jax.tree.map(lambda x, i=seed: x[i], together)
        assert_equal(mine, alone, tolerance=1e-5)


@pytest.mark.parametrize("name", ["logo_moco", "moco_shuffled", "logo_simsiam_joint"])
def test_replicas_stay_equal_with_batch_norm_per_device(name):
    trainer = cases.Trainer(cases.METHODS[name](norms=cases.PER_DEVICE), 4)
    first = replicate(cases.one_device(name).first, trainer.mesh)
    state, _ = trainer.run(first, 3)
    for leaf in jax.tree.leaves(state):
        copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(copies) == 4
        for copy in copies[1:]:
            np.testing.assert_array_equal(copies[0], copy)


@pytest.mark.parametrize(
    ("base", "update_kind"),
    [
        ("simsiam", "released"),
        ("simsiam", "joint"),
        ("moco", "released"),
        ("moco", "joint"),
        ("byol", "released"),
        ("swav", "joint"),
    ],
)
def test_logo_with_zero_repulsion_equals_its_base_exactly(base, update_kind):
    bare = cases.one_device(base)
    fields = {"update_kind": update_kind, "weight": 0.0, "clip_ratio": 0.0}
    method = cases.logo(bare.method, cases.PER_DEVICE, **fields)
    if update_kind == "released":
        still = cases.optim.clipped_sgd(0.05, momentum=0.0, weight_decay=0.0)
        method = dataclasses.replace(method, repel_tx=still)
    wrapped = cases.Trainer(method)
    a = bare.init()
    b = wrapped.init()
    b = b.replace(  # a copy: both runs donate their state
        params=b.params | jax.tree.map(jnp.array, a.params),
        memory=b.memory | jax.tree.map(jnp.array, a.memory),
    )
    a, _ = bare.run(a, 3)
    b, _ = wrapped.run(b, 3)
    assert_equal(a.params, {name: b.params[name] for name in a.params})
    assert_equal(a.memory, {name: b.memory[name] for name in a.memory})


def test_the_released_update_with_zero_repulsion_doubles_the_weight_decay():
    """The second optimizer only accumulates the decay, and momentum is linear."""
    # a small rate, because the gradient of the base is computed after the first decay
    decay, rates = 0.05, {"learning_rate": 1e-3, "momentum": 0.9}
    once, twice = (
        cases.moco(cases.PER_DEVICE, tx=cases.optim.sgd(weight_decay=each, **rates))
        for each in (decay, 2 * decay)
    )
    wrapped = dataclasses.replace(
        cases.logo(once, cases.PER_DEVICE, clip_ratio=0.0),
        repel_tx=cases.optim.clipped_sgd(weight_decay=decay, **rates),
    )
    first = cases.Trainer(once).init()
    params, memory = jax.device_get((first.params, first.memory))

    def trained(method):
        trainer = cases.Trainer(method)
        state = trainer.init()
        start = jax.tree.map(jnp.array, (params, memory))
        state = state.replace(
            params=state.params | start[0], memory=state.memory | start[1]
        )
        return jax.device_get(trainer.run(state, 4)[0].params["encoder"])

    def distance(a, b):
        return max(
            np.abs(x - y).max()
            for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        )

    of_once, of_twice, of_wrapped = map(trained, (once, twice, wrapped))
    assert distance(of_wrapped, of_twice) < 0.02 * distance(of_once, of_twice)


def test_the_repulsion_moves_the_encoder():
    bare, wrapped = map(cases.one_device, ("simsiam", "logo_simsiam"))
    a, b = bare.init(), wrapped.init()
    b = b.replace(params=b.params | jax.tree.map(jnp.array, a.params))
    a, b = bare.run(a, 2)[0], wrapped.run(b, 2)[0]
    moved = jax.tree.map(
        lambda x, y: float(abs(x - y).max()), a.params["encoder"], b.params["encoder"]
    )
    assert max(jax.tree.leaves(moved)) > 1e-5


def test_frozen_patches_of_a_vision_transformer_keep_their_weights():
    trainer = cases.one_device("logo_moco_vit")
    first = jax.device_get(trainer.init().params["encoder"]["backbone"])
    state, _ = trainer.run(trainer.init(), 2)
    last = jax.device_get(state.params["encoder"]["backbone"])
    assert_equal(first.pop("patches"), last.pop("patches"))
    for path, leaf in jax.tree.leaves_with_path(first):
        # a bias of all keys changes no softmax
        if "key" not in jax.tree_util.keystr(path) or path[-1].key != "bias":
            moved = np.abs(leaf - at(last, path)).max()
            assert moved > 1e-6, jax.tree_util.keystr(path)


def at(tree, path):
    for key in path:
        tree = tree[key.key]
    return tree


@functools.cache
def frozen_keys():
    """Returns MoCo with a fixed key encoder and a queue of two steps."""
    return cases.Trainer(
        cases.moco(norms=cases.PER_DEVICE, momentum=1.0, queue_size=32)
    )


def test_momentum_one_freezes_the_key_encoder():
    trainer = frozen_keys()
    before = jax.device_get(trainer.init().memory["key_encoder"])
    state, _ = trainer.run(trainer.init(), 2)
    assert_equal(before, jax.device_get(state.memory["key_encoder"]))


def test_the_queue_takes_global_keys_in_order_and_wraps():
    trainer = frozen_keys()
    start = trainer.init()
    before = np.asarray(start.memory["queue"])
    once, _ = trainer.run(start, 1)
    queue = np.asarray(once.memory["queue"])
    assert int(once.memory["cursor"]) == 16
    np.testing.assert_array_equal(queue[16:], before[16:])
    assert np.abs(queue[:16] - before[:16]).min(axis=1).max() > 0
    np.testing.assert_allclose(np.linalg.norm(queue, axis=1), 1.0, rtol=1e-5)
    twice, _ = trainer.run(once, 1, start=1)
    assert int(twice.memory["cursor"]) == 0


@pytest.mark.parametrize(("step", "filled"), [(0, 0), (1, 0.5), (2, 1), (2**30, 1)])
def test_the_queue_counts_as_filled_by_the_keys_of_earlier_steps(step, filled):
    """At 2^30, the number of keys would not be an int32."""
    trainer = frozen_keys()
    state = trainer.init()
    _, metrics = trainer.run(state.replace(step=jnp.full_like(state.step, step)), 1)
    assert metrics["health/queue_fill"] == filled


def test_a_queue_that_does_not_fit_is_refused_with_a_remedy():
    method = cases.moco(queue_size=60)
    with pytest.raises(ValueError, match="queue_size=60 .*multiple of the 16 .*use 64"):
        method.init(jax.random.key(0), cases.batch())


def test_joint_logo_refuses_a_pairing_that_leaves_local_crops_out():
    method = cases.logo(cases.simsiam(pairing="symmetric"), update_kind="joint")
    with pytest.raises(ValueError, match="global_targets"):
        method.init(jax.random.key(0), cases.batch())


def test_split_batch_norm_on_one_device_equals_per_device_norm_on_four():
    def method(splits):
        base = cases.moco(norms=cases.PER_DEVICE)
        encoder = dataclasses.replace(
            base.encoder,
            backbone=cases.TinyBackbone((4, 8), splits=splits, parent=None),
            parent=None,
        )
        return dataclasses.replace(base, encoder=encoder)

    one, four = cases.Trainer(method(4)), cases.Trainer(method(1), 4)
    a = one.run(one.init(), 3)[0]
    b = four.run(replicate(one.first, four.mesh), 3)[0]
    assert_equal(jax.device_get(a), jax.device_get(b), tolerance=2e-5)


@pytest.mark.parametrize("name", ["simsiam", "moco", "byol", "swav", "logo_simsiam"])
def test_statistics_from_globals_do_not_depend_on_local_crops(name):
    all_views = cases.one_device(name)
    method, flag = all_views.method, {"running_stats": "globals"}
    if name.startswith("logo"):
        flag = {"base": dataclasses.replace(method.base, **flag)}
    from_globals = cases.Trainer(dataclasses.replace(method, **flag))

    def statistics(trainer, seed):
        batch = cases.batch()._replace(local_crops=cases.batch(seed).local_crops)
        batch = jax.device_put(batch, batch_sharding(trainer.mesh))
        state, _ = trainer.compiled(all_views.init(), batch, jnp.int32(0))
        return jax.device_get(state.batch_stats["encoder"])

    fixed = (statistics(from_globals, seed) for seed in (1, 2))
    assert_equal(*fixed, tolerance=1e-6)
    assert_every_statistic_moved(*(statistics(all_views, seed) for seed in (1, 2)))
