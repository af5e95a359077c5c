"""The folder of a run: its lock, its config, and the machine it runs on."""

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

from logo_jax.configs.base import complete
from logo_jax.training import atomic

CONFIG_FILE = "config.json"
LOCK_FILE = "lock"


class WorkdirInUseError(ValueError):
    """Another process has locked the folder."""


@contextlib.contextmanager
def lock_workdir(workdir: pathlib.Path, *, wait: bool = False) -> Iterator[None]:
    """Locks a folder for this process; readers need no lock.

    The kernel releases the lock when the process ends, however it ends, so there are no
    stale locks. A file with host and pid alone would not do: pids are reused, and those
    of another host cannot be looked up. The file holds them for people to read. On NFS
    the server keeps the lock (flock(2), Linux >= 2.6.12), so it works between hosts.

    Args:
        workdir: made if absent.
        wait: whether to wait until another process releases it.

    Raises:
        WorkdirInUseError: if another process holds the folder; names host and pid.
        ValueError: if the folder cannot be written, or its file system has no locks.
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
    """Checks that no other process has locked a folder, before anything is loaded.

    Raises:
        ValueError: as `lock_workdir`.
    """
    if (workdir / LOCK_FILE).exists():
        with (workdir / LOCK_FILE).open("a+") as file, _taken(file, workdir):
            pass


@contextlib.contextmanager
def _taken(file: TextIO, workdir: pathlib.Path, wait: bool = False) -> Iterator[None]:
    """Locks the file, and unlocks it explicitly.

    Closing it would leave the lock to a process forked meanwhile, until that one ends
    or executes another program.
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
    """Names folder and remedy in errors of the system."""
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
    """Checks that the folder is empty or holds a run of this config; writes nothing.

    Args:
        workdir: of a run to resume, or of a new one.
        config: nested mappings of plain values.

    Raises:
        ValueError: if it holds a run of another config, with the differences, or is no
            folder.
        OSError: if it cannot be read.
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
    """Checks that a path is, or can become, a folder that can be written.

    Raises:
        ValueError: if not.
    """
    there = existing(workdir)
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(
            f"--workdir={workdir} must be a folder that can be written, and {there} is "
            f"{'write-protected' if there.is_dir() else 'a file'}; give another"
        )


def existing(path: pathlib.Path) -> pathlib.Path:
    """The path itself, or the nearest parent that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


def claim_workdir(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Writes the config to a new folder, or checks the config that it has.

    Args:
        workdir: made if absent.
        config: nested mappings of plain values.

    Raises:
        ValueError: as `check_config`.
        OSError: if it cannot be read or written.
    """
    check_config(workdir, config)
    file = workdir / CONFIG_FILE
    if file.exists():
        return
    workdir.mkdir(parents=True, exist_ok=True)
    atomic.write_text(file, json.dumps(config, indent=2, sort_keys=True) + "\n")


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
    """The config that the folder's run was started with, under today's names.

    Fields that the run's version of the library did not have get their defaults.

    Raises:
        FileNotFoundError: if there is no run.
        ValueError: if its config is not readable.
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
    return complete(config)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Differences between two configs, a line each.

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
    """A JSON value with tuples in place of lists, as in configs."""
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
