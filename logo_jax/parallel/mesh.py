"""The device mesh, and how arrays are placed on it."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "data"


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A one-axis mesh over the devices given, or over all of every process.

    Each process's devices are neighbors, in the order of the processes, because
    `StreamingLoader` splits its rows so; the ids of a TPU slice are not in that order.
    """
    chosen = jax.devices() if devices is None else devices
    ordered = sorted(chosen, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(ordered), (AXIS,))


def batch_sharding(mesh: Mesh, several: bool = False) -> NamedSharding:
    """First axis split over the devices of the mesh; the second, for several seeds."""
    return NamedSharding(mesh, _batch_spec(several))


def _batch_spec(several):
    return P(None, AXIS) if several else P(AXIS)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The tree with one copy of every leaf on each device of the mesh.

    All processes hold the tree, and each serves its own devices.
    """
    return jax.tree.map(lambda x: place(x, NamedSharding(mesh, P())), tree)


def place(x: Any, sharding: NamedSharding) -> jax.Array:
    """An array that all processes hold, on the devices of a sharding.

    `jax.device_put` would first send it round, to see that all hold the same.
    """
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, host.__getitem__)
