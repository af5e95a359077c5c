"""The device mesh, and the placement of arrays on it."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "data"


def all_devices() -> list[Any]:
    """Returns the devices of all processes.

    Raises:
        ValueError: if JAX has no device, computes with 64 bits, or has other random
            numbers.
    """
    if jax.config.read("jax_enable_x64"):
        raise ValueError(
            "JAX_ENABLE_X64 must be off, because all numbers here have 32 bits; unset "
            "it, or set JAX_ENABLE_X64=0"
        )
    if not jax.config.values["jax_threefry_partitionable"]:
        raise ValueError(
            "JAX_THREEFRY_PARTITIONABLE must be on, because crops and weights would "
            "have other random numbers; unset it, or set JAX_THREEFRY_PARTITIONABLE=1"
        )
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split()) or "none was found"
        raise ValueError(
            f"JAX has no device for JAX_PLATFORMS={jax.config.values['jax_platforms']} "
            f"({reason}); unset JAX_PLATFORMS, or install JAX for that device"
        ) from error


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a one-axis mesh over the given devices; by default over all devices.

    The default includes the devices of all processes. Devices are ordered by process,
    because `StreamingLoader` splits its rows in that order; the ids of a TPU slice are
    ordered differently.

    Raises:
        ValueError: as `all_devices`, if no devices are given.
    """
    chosen = all_devices() if devices is None else devices
    ordered = sorted(chosen, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(ordered), (AXIS,))


def batch_sharding(mesh: Mesh, several: bool = False) -> NamedSharding:
    """Returns the sharding that splits the examples of a batch over devices.

    Args:
        mesh: the devices.
        several: whether the batch has a leading axis of seeds. If so its second axis is
            split over devices, otherwise its first.
    """
    return NamedSharding(mesh, batch_spec(several))


def batch_spec(several: bool = False) -> P:
    """Returns the partition spec that splits the examples of a batch over devices.

    With `several`, the batch has a leading axis of seeds, which is not split.
    """
    return P(None, AXIS) if several else P(AXIS)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies every leaf of a tree to each device of the mesh.

    Every process must have the whole tree; each copies it to its own devices.
    """
    return jax.tree.map(lambda x: place(x, NamedSharding(mesh, P())), tree)


def place(x: Any, sharding: NamedSharding) -> jax.Array:
    """Places an array on the devices of a sharding; every process must have the array.

    `jax.device_put` is not used, because it would first compare the arrays of all
    processes.
    """
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, host.__getitem__)
