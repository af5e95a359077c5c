"""A run's folder: its lock, its config, and the machine it runs on."""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import pathlib
import platform
import socket
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from jax.sharding import Mesh

from logo_jax.training import atomic

CONFIG_FILE = "config.json"
LOCK_FILE = "lock"


class WorkdirInUseError(ValueError):
    """Another process holds the folder."""


@contextlib.contextmanager
def lock_workdir(workdir: pathlib.Path, *, wait: bool = False) -> Iterator[None]:
    """Holds a folder for this process alone; readers need no lock.

    The kernel keeps the lock and lets go of it when the process ends, however it ends:
    so there are no stale ones. A file with a host and a pid alone cannot be trusted:
    pids are used again, and those of another host cannot be looked up. They are in the
    file, for people. On NFS the server keeps the lock (flock(2), Linux >= 2.6.12), so
    it holds between hosts.

    Args:
        workdir: made if absent.
        wait: until the process that holds it lets go.

    Raises:
        InUse: where another process holds the folder, with its host and pid.
        ValueError: where the folder cannot be written, or lies on a file system without
            locks.
    """
    with _refused(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / LOCK_FILE).open("a+")
    with file, _taken(file, workdir, wait):
        with _refused(workdir):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        yield


def require_free(workdir: pathlib.Path) -> None:
    """Refuses a folder that another process holds now, before anything is loaded.

    Raises:
        ValueError: as `locked`.
    """
    if (workdir / LOCK_FILE).exists():
        with (workdir / LOCK_FILE).open("a+") as file, _taken(file, workdir):
            pass


@contextlib.contextmanager
def _taken(file: TextIO, workdir: pathlib.Path, wait: bool = False) -> Iterator[None]:
    """Holds the file's lock, and lets go by name.

    Closing alone would leave the lock with a process forked meanwhile, until that one
    ends or starts its program.
    """
    try:
        with _refused(workdir):
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        raise WorkdirInUseError(
            f"{workdir} is in use by {holder}: wait for it or stop it, or use another "
            "--workdir"
        ) from None
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


@contextlib.contextmanager
def _refused(workdir: pathlib.Path) -> Iterator[None]:
    """Names the folder and the remedy where the system refuses it."""
    try:
        yield
    except BlockingIOError:
        raise
    except OSError as error:
        raise ValueError(
            f"workdir {workdir} must be writable and allow locks ({error.strerror}); "
            "change that, or use another --workdir"
        ) from error


def check_config(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Looks whether the folder is this config's, or can be; writes nothing.

    Args:
        workdir: of a run that goes on, or of none so far.
        config: nested mappings of plain values.

    Raises:
        ValueError: where it is another config's, with the difference, or no folder.
        OSError: where it cannot be read.
    """
    require_writable(workdir)
    if (workdir / CONFIG_FILE).exists():
        text = json.dumps(config)
        changed = differences(read_config(workdir), as_tuples(json.loads(text)))
        if changed:
            raise ValueError(
                f"{workdir} holds a run of another config ({'; '.join(changed)}): "
                "give the old values, or another --workdir"
            )
    elif (workdir / "checkpoints").exists():
        raise ValueError(
            f"{workdir} has checkpoints but no {CONFIG_FILE}; use another --workdir"
        )


def require_writable(workdir: pathlib.Path) -> None:
    """Refuses a folder that is not one, or cannot be written.

    Raises:
        ValueError: where it cannot.
    """
    there = existing(workdir)
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(
            f"--workdir={workdir} must be a folder that can be written, and {there} is "
            f"{'write-protected' if there.is_dir() else 'a file'}; give another"
        )


def existing(path: pathlib.Path) -> pathlib.Path:
    """The path itself, or the nearest folder above it that is there."""
    return next(place for place in (path, *path.parents) if place.exists())


def claim_workdir(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Makes the folder this config's, or checks that it already is.

    Args:
        workdir: made if absent.
        config: nested mappings of plain values.

    Raises:
        ValueError: as `check`.
        OSError: where it cannot be read or written.
    """
    check_config(workdir, config)
    file = workdir / CONFIG_FILE
    if file.exists():
        return
    workdir.mkdir(parents=True, exist_ok=True)
    atomic.write_text(file, json.dumps(config, indent=2, sort_keys=True) + "\n")


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
    """The config that the folder's run was started with.

    Raises:
        FileNotFoundError: where there is no run.
        ValueError: where its config is not readable.
    """
    file = workdir / CONFIG_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"{workdir} has no {CONFIG_FILE}: it is not the folder of a run; give "
            "--workdir=DIR of one that logo_jax.main has trained"
        )
    try:
        config = as_tuples(json.loads(file.read_text()))
    except ValueError as error:  # not JSON, or not even text
        raise ValueError(
            f"{file} is damaged ({error}); put back a copy, or use another --workdir"
        ) from error
    if not isinstance(config, dict):
        raise ValueError(f"{file} must hold a config; use another --workdir")
    return config


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What changed between two configs, a line each.

    >>> differences({"a": {"b": 1}, "c": 0}, {"a": {"b": 2}, "c": 0})
    ['a.b: 1 -> 2']
    """
    before, after = dict(flatten(old)), dict(flatten(new))
    return [
        f"{name}: {before.get(name, 'absent')} -> {after.get(name, 'absent')}"
        for name in sorted(before | after)
        if before.get(name, "absent") != after.get(name, "absent")
    ]


def flatten(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Fields by dotted name."""
    fields = []
    for name, value in config.items():
        path = f"{prefix}{name}"
        nested = isinstance(value, Mapping)
        fields += flatten(value, f"{path}.") if nested else [(path, value)]
    return fields


def as_tuples(value: Any) -> Any:
    """JSON's lists as tuples, as configs have them."""
    if isinstance(value, Mapping):
        return {name: as_tuples(field) for name, field in value.items()}
    if isinstance(value, list):
        return tuple(as_tuples(item) for item in value)
    return value


MACHINE_FILE = "machine.json"  # in a run's folder: of its latest start
PACKAGES = ("logo_jax", "jax", "flax", "optax", "scikit-learn", "numpy", "Pillow")


def describe_machine(mesh: Mesh) -> dict[str, Any]:
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
