"""Memory use, from compiled programs and from live arrays."""

import gc
import math
import re
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.data.loader import OnDeviceLoader, _take
from logo_jax.evaluation import knn, nearest_neighbors
from logo_jax.losses import info_nce
from logo_jax.methods.multi_crop import encode
from logo_jax.parallel.mesh import batch_sharding, make_mesh, replicate
from logo_jax.training.checkpoints.manager import CheckpointManager
from tests.contracts import cases
from tests.cost import programs

FLOAT = 4
MB = 10**6
QUEUE = 65_536


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_the_contrastive_loss_and_its_gradient_hold_one_views_logits_once():
    batch, dim = 256, 128

    def loss(queries, keys, negatives):
        return info_nce(queries, keys, negatives, temperature=0.07).mean()

    arrays = floats(4, batch, dim), floats(2, batch, dim), floats(QUEUE, dim)
    gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    memory = gradient.lower(*arrays).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 1.1 * batch * QUEUE * FLOAT


@pytest.mark.parametrize("update_kind", ["released", "joint"])
def test_nothing_in_a_moco_logo_step_is_larger_than_one_views_logits(update_kind):
    base = cases.moco(norms=cases.PER_DEVICE, queue_size=QUEUE)
    method = cases.logo(base, cases.PER_DEVICE, update_kind=update_kind)
    text = programs.lowered(method, num_devices=1).as_text()
    sizes = [
        math.prod(int(n) for n in shape.split("x") if n)
        for shape in re.findall(r"tensor<([\dx]*x)f32>", text)
    ]
    assert max(sizes) == max(cases.BATCH, cases.DIM) * QUEUE


def test_a_gradient_in_eight_parts_holds_the_activations_of_one():
    shapes = [floats(64, 16, 16, 3)] * 2

    def temporaries(parts):
        norms = cases.Norms(None, groups=8, parts=parts)
        method = cases.swav(norms)
        encoder = method.encoder
        state = jax.eval_shape(method.init, jax.random.key(0), cases.batch())
        variables = state.params["encoder"], state.batch_stats["encoder"]

        def loss(params, stats, views):
            variables = {"params": params, "batch_stats": stats}
            return jnp.square(encode(encoder, variables, views).embeddings).mean()

        compiled = jax.jit(jax.grad(loss)).lower(*variables, shapes).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    images = 2 * 64 * 16 * 16 * 3 * FLOAT  # a copy of the views, part after part
    assert temporaries(8) - images < 1.5 / 8 * (temporaries(1) - images)


@pytest.mark.parametrize("size", [50_000, 1_281_167])
def test_a_table_of_knn_stays_under_512_mb(size):
    num_tiles, rows = nearest_neighbors.tiling(size, num_devices=1)
    compiled = knn._votes.lower(
        floats(knn.QUERIES_AT_ONCE, 512),
        floats(num_tiles, rows, 512),
        jax.ShapeDtypeStruct((size,), jnp.int32),
        mesh=make_mesh(jax.devices()[:1]),
        settings=((20, 0.07), (200, 0.1)),
        num_classes=1000,
    ).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 512 * MB


@pytest.mark.slow
def test_on_device_data_are_on_each_device_once():
    mesh = make_mesh(jax.devices()[:4])
    before = bytes_on_devices(mesh)
    stored = (
        np.zeros((500, 16, 16, 3), np.uint8),
        np.zeros((500, 2), np.int32),
        np.zeros(500, np.int32),
    )
    size = sum(x.nbytes for x in stored)
    data = replicate(stored, mesh)
    loader = OnDeviceLoader(*data, 8, (0,), batch_sharding(mesh))
    batches = list(loader.batches(0, 3))
    batch_bytes = sum(programs.num_bytes(examples) for examples, _ in batches)
    after = bytes_on_devices(mesh)
    for device, held in after.items():
        assert size <= held - before[device] <= size + batch_bytes
    rows = batches[0][0].ids
    memory = _take.lower(*data, rows).compile().memory_analysis()
    assert memory.argument_size_in_bytes <= size + rows.nbytes
    assert memory.temp_size_in_bytes <= batch_bytes


def bytes_on_devices(mesh):
    gc.collect()
    held = dict.fromkeys(mesh.devices.flat, 0)
    for array in jax.live_arrays():
        for shard in array.addressable_shards:
            held[shard.device] = held.get(shard.device, 0) + shard.data.nbytes
    return held


def test_saving_a_checkpoint_copies_the_state_once(tmp_path):
    state = {f"w{i}": jnp.full((2**20,), i, jnp.float32) for i in range(8)}
    with CheckpointManager(tmp_path) as checkpoints:
        tracemalloc.start()  # NumPy reports its arrays to tracemalloc
        checkpoints.save(1, state)
        checkpoints.wait()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1.2 * programs.num_bytes(state)
