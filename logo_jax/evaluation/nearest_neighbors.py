"""Exact nearest-neighbor search in a bank that is tiled and split over devices.

Each device holds a shard of the bank, which is larger than the queries, and all
queries. Only k similarities and row numbers per query are communicated. If the queries
were split instead, every device would have to receive and hold the whole bank. Peak
memory is limited by one similarity matrix per device, of the queries and one tile of
the bank.
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

BANK_AT_ONCE = 2**17  # rows per tile; for 256 queries the similarities take <= 134 MB
QUERIES_AT_ONCE = 256


class Bank(NamedTuple):
    """Labeled unit vectors, split over devices.

    Attributes:
        tiles: rows of the bank in order, [t, m, d], where t is a multiple of the number
            of devices; the last rows may be padding.
        labels: labels of all rows, copied to every device: [n], or [n, c] with 1 for
            each class that an image shows.
        mesh: mesh of the devices, with one axis.
    """

    tiles: jax.Array
    labels: jax.Array
    mesh: Mesh


def make_bank(data: Features, mesh: Mesh) -> Bank:
    """Makes a bank: scales features to unit length and splits them over devices.

    Args:
        data: features and labels; every process of the mesh must hold all of them.
        mesh: mesh of the devices, with one axis.
    """
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
    """Returns the number of tiles on all devices, and the number of rows per tile.

    >>> tiling(300_000, num_devices=2)
    (4, 75000)
    """
    share = -(-size // num_devices)
    tiles_each = -(-share // BANK_AT_ONCE)
    return num_devices * tiles_each, -(-share // tiles_each)


def nearest(
    queries: Float[Array, "q d"], bank: Bank, k: int
) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """Returns the k rows of the bank that are most similar to each query.

    Of rows with equal cosines the first of the bank is taken, on any number of devices.

    Args:
        queries: unit vectors, the same on all devices.
        bank: bank with at least k rows.
        k: number of neighbors.

    Returns:
        Cosines in descending order, and the row numbers.
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


def search(
    queries: Float[np.ndarray, "q d"], bank: Bank, k: int
) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
    """Returns the k nearest rows of the bank of any number of queries, as `nearest`.

    `QUERIES_AT_ONCE` queries are searched together.

    Args:
        queries: vectors of any length.
        bank: bank with at least k rows.
        k: number of neighbors.
    """
    at_once = min(QUERIES_AT_ONCE, len(queries))
    parts = []
    for start in range(0, len(queries), at_once):
        part = queries[start : start + at_once]
        padded = np.pad(part, [(0, at_once - len(part)), (0, 0)])
        found = _search(
            replicate(padded, bank.mesh), bank.tiles, bank.labels, mesh=bank.mesh, k=k
        )
        parts.append([np.asarray(x)[: len(part)] for x in found])
    cosines, rows = map(np.concatenate, zip(*parts, strict=True))
    return cosines, rows


@functools.partial(jax.jit, static_argnames=("mesh", "k"))
def _search(queries, tiles, labels, *, mesh, k):
    return nearest(l2_normalize(queries), Bank(tiles, labels, mesh), k)


def _nearest_of_tiles(queries, tiles, first, size, k, axes):
    """The k most similar rows in the tiles of one device, whose first row is `first`.

    Rows with numbers of `size` and above are padding.
    """
    rows_a_tile = tiles.shape[1]

    def merged(best, numbered):
        i, tile = numbered
        rows = first + i * rows_a_tile + jnp.arange(rows_a_tile)
        similarity = jnp.matmul(queries, tile.T, precision="highest")
        similarity = jnp.where((rows < size)[None], similarity, -jnp.inf)
        found, at = jax.lax.top_k(similarity, min(k, rows_a_tile))
        # earlier rows are placed first, so that top_k prefers them among equal cosines
        similarity = jnp.concatenate([best[0], found], axis=1)
        return _best(similarity, jnp.concatenate([best[1], rows[at]], axis=1), k), None

    shape = (len(queries), k)
    nothing = jnp.full(shape, -jnp.inf, queries.dtype), jnp.zeros(shape, jnp.int32)
    nothing = jax.lax.pcast(nothing, axes, to="varying")
    return jax.lax.scan(merged, nothing, (jnp.arange(len(tiles)), tiles))[0]


def _best(similarity, rows, k):
    """The k largest similarities of each query, and their rows."""
    best, at = jax.lax.top_k(similarity, k)
    return best, jnp.take_along_axis(rows, at, axis=1)
