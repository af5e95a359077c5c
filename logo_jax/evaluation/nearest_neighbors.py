"""The nearest rows of a bank: exact, tiled, split over devices.

The bank is split over the devices and the queries visit all of it: a device holds its
share of the larger of the two, and per query only k similarities and rows travel. The
other way round, every device would be sent, and would hold, the whole bank. Memory is
bounded by one table of similarities a device: the queries times a tile of the bank.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from logo_jax.evaluation.features import Features
from logo_jax.losses import l2_normalize
from logo_jax.parallel.mesh import place, replicate

BANK_AT_ONCE = 2**17  # a device; for 256 queries a table of 134 MB at most


class Bank(NamedTuple):
    """Labelled unit vectors, split over devices.

    Attributes:
        tiles: [t, m, d], t a multiple of the number of devices, the rows in order; the
            last ones may be padding.
        labels: of all rows, on every device: [n], or [n, c] of 1 where a class shows.
        mesh: the devices, of one axis.
    """

    tiles: jax.Array
    labels: jax.Array
    mesh: Mesh


def make_bank(data: Features, mesh: Mesh) -> Bank:
    """The bank of a data set that every process of the mesh holds."""
    size = len(data.features)
    num_tiles, rows = tiling(size, mesh.devices.size)
    features = np.pad(data.features, [(0, num_tiles * rows - size), (0, 0)])
    tiles = features.reshape(num_tiles, rows, -1)
    split = NamedSharding(mesh, P(mesh.axis_names))
    return Bank(
        tiles=jax.jit(l2_normalize)(place(tiles, split)),
        labels=replicate(data.labels.astype(np.int32), mesh),
        mesh=mesh,
    )


def tiling(size: int, num_devices: int) -> tuple[int, int]:
    """How many tiles hold a bank of that size, on all devices, and rows of each.

    >>> tiling(300_000, num_devices=2)
    (4, 75000)
    """
    share = -(-size // num_devices)
    tiles_each = -(-share // BANK_AT_ONCE)
    return num_devices * tiles_each, -(-share // tiles_each)


def nearest(
    queries: Float[Array, "q d"], bank: Bank, k: int
) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """The k rows of the bank most similar to each query: cosines, falling, and rows.

    Of equals the one that comes first in the bank, on any number of devices.

    Args:
        queries: unit vectors, the same on all devices.
        bank: of at least k rows.
        k: neighbors.
    """
    axes = bank.mesh.axis_names

    def of_this_device(queries, tiles):
        first = jax.lax.axis_index(axes) * tiles.shape[0] * tiles.shape[1]
        best = _nearest_of_tiles(queries, tiles, first, len(bank.labels), k, axes)
        gather = functools.partial(
            jax.lax.all_gather, axis_name=axes, axis=1, tiled=True, to="invarying"
        )
        return _best(gather(best[0]), gather(best[1]), k)

    return jax.shard_map(
        of_this_device, mesh=bank.mesh, in_specs=(P(), P(axes)), out_specs=P()
    )(queries, bank.tiles)


def _nearest_of_tiles(queries, tiles, first, size, k, axes):
    """The k most similar rows of a device's tiles, whose first row is `first`.

    Rows from `size` on are padding.
    """
    rows_a_tile = tiles.shape[1]

    def merged(best, numbered):
        i, tile = numbered
        rows = first + i * rows_a_tile + jnp.arange(rows_a_tile)
        similarity = jnp.matmul(queries, tile.T, precision="highest")
        similarity = jnp.where((rows < size)[None], similarity, -jnp.inf)
        found, at = jax.lax.top_k(similarity, min(k, rows_a_tile))
        # those before come first, so that of equals the earlier row is kept
        similarity = jnp.concatenate([best[0], found], axis=1)
        return _best(similarity, jnp.concatenate([best[1], rows[at]], axis=1), k), None

    shape = (len(queries), k)
    nothing = jnp.full(shape, -jnp.inf, queries.dtype), jnp.zeros(shape, jnp.int32)
    nothing = jax.lax.pcast(nothing, axes, to="varying")
    return jax.lax.scan(merged, nothing, (jnp.arange(len(tiles)), tiles))[0]


def _best(similarity, rows, k):
    """The k largest of each query's similarities, and the rows they belong to."""
    best, at = jax.lax.top_k(similarity, k)
    return best, jnp.take_along_axis(rows, at, axis=1)
