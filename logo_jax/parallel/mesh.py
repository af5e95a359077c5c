"""The device mesh, and how arrays are placed on it."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "data"


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A one-axis mesh over the given devices, or over all devices of all processes.

    Devices are ordered by process, because `StreamingLoader` splits its rows in that
    order; the ids of a TPU slice are ordered differently.
    """
    chosen = jax.devices() if devices is None else devices
    ordered = sorted(chosen, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(ordered), (AXIS,))


def batch_sharding(mesh: Mesh, several: bool = False) -> NamedSharding:
    """The sharding of a batch: its first axis, or second if several, over devices.

    Args:
        mesh: of devices.
        several: whether the first axis is of several seeds.
    """
    return NamedSharding(mesh, batch_spec(several))


def batch_spec(several: bool = False) -> P:
    """The partition of a batch over devices, as in `batch_sharding`."""
    return P(None, AXIS) if several else P(AXIS)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies every leaf of a tree to each device of the mesh.

    All processes hold the tree, and each copies it to its own devices.
    """
    return jax.tree.map(lambda x: place(x, NamedSharding(mesh, P())), tree)


def place(x: Any, sharding: NamedSharding) -> jax.Array:
    """Places an array that all processes hold on the devices of a sharding.

    `jax.device_put` would first compare the arrays of all processes.
    """
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, host.__getitem__)
