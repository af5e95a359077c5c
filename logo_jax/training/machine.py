"""What a process runs on: its devices, its system, and versions of what it uses."""

import importlib.metadata
import os
import platform
from typing import Any

from jax.sharding import Mesh

MACHINE_FILE = "machine.json"  # in a run's folder: of its latest start
PACKAGES = ("logo_jax", "jax", "flax", "optax", "scikit-learn", "numpy", "Pillow")


def describe(mesh: Mesh) -> dict[str, Any]:
    """Devices, system and versions, ready for JSON."""
    kinds = sorted({device.device_kind for device in mesh.devices.flat})
    return {
        "devices": f"{mesh.devices.size} x {', '.join(kinds)}",
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a checkout on the path
        return "not installed"
