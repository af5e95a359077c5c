"""Folder of a run: its lock, its config, its data and a description of the machine."""

import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from jax.sharding import Mesh

from logo_jax.configs.base import PATHS, complete, may_change
from logo_jax.storage import lease
from logo_jax.storage.paths import as_path, in_bucket, parse_paths
from logo_jax.training import atomic

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

CONFIG_FILE = "config.json"
LOCK_FILE = "lock"


class WorkdirInUseError(ValueError):
    """Another process has locked the folder."""


@contextlib.contextmanager
def lock_workdir(
    workdir: pathlib.Path, *, wait: bool = False, lock: bool = True
) -> Iterator[None]:
    """Locks a folder for this process; reading the folder does not need the lock.

    The kernel releases the lock whenever the process ends, even by a kill, so locks
    are never stale. The host and pid in the lock file are only for error messages. They
    would not suffice as a lock, because pids are reused and pids of other hosts cannot
    be checked. On NFS the lock is kept by the server (flock(2), Linux >= 2.6.12) and
    therefore works between hosts. In a bucket the lock is a lease (`storage.lease`).

    Args:
        workdir: folder to lock; created if it does not exist.
        wait: whether to wait until another process releases the lock.
        lock: the config's `train.lock`; if False, the folder is created and not locked.

    Raises:
        WorkdirInUseError: if another process holds the lock; the message names its host
            and pid.
        ValueError: if the folder cannot be written, or its file system does not support
            locks.
    """
    if in_bucket(workdir):
        with contextlib.ExitStack() as held:
            with _refused(workdir), _in_use(workdir):
                if lock:
                    held.enter_context(
                        lease.hold(workdir / LOCK_FILE, _this_process(), wait=wait)
                    )
            yield
        return
    with _refused(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
    if not lock:
        yield
        return
    with _refused(workdir):
        file = (workdir / LOCK_FILE).open("a+")
    with file, _taken(file, workdir, wait):
        with _refused(workdir):
            file.truncate(0)
            file.write(f"{_this_process()}\n")
            file.flush()
        yield


def require_free(workdir: pathlib.Path) -> None:
    """Raises an error if another process has locked a folder.

    Raises:
        WorkdirInUseError: if another process holds the lock.
        ValueError: if the file system does not support locks.
    """
    if in_bucket(workdir):
        with _refused(workdir), _in_use(workdir):
            lease.require_free(workdir / LOCK_FILE)
    elif (workdir / LOCK_FILE).exists():
        with (workdir / LOCK_FILE).open("a+") as file, _taken(file, workdir):
            pass


@contextlib.contextmanager
def _taken(file: TextIO, workdir: pathlib.Path, wait: bool = False) -> Iterator[None]:
    """Locks the file and unlocks it explicitly.

    Closing the file would not be enough: a process forked in the meantime would keep
    the lock until it ends or executes another program.
    """
    try:
        if fcntl is None:
            raise OSError(0, "this system has no flock")
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        raise WorkdirInUseError(_IN_USE.format(workdir, holder)) from None
    except OSError as error:
        raise ValueError(
            f"workdir {workdir} must be on a file system with locks "
            f"({error.strerror}); use another one, or --config.train.lock=False and "
            "never start two processes in this folder"
        ) from error
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


_IN_USE = "{} is in use by {}; wait for that process, stop it, or use another --workdir"


@contextlib.contextmanager
def _in_use(workdir: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except lease.InUseError as error:
        raise WorkdirInUseError(_IN_USE.format(workdir, error)) from None


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


@contextlib.contextmanager
def _refused(workdir: pathlib.Path) -> Iterator[None]:
    """Raises OSErrors as ValueErrors that name the folder and the remedy."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"workdir {workdir} must be writable ({error.strerror or error}); use "
            "another --workdir, or change its permissions or file system"
        ) from error


def check_config(workdir: pathlib.Path, config: Mapping[str, Any]) -> list[str]:
    """Raises an error if the folder has a run of another config; writes nothing.

    Fields in `may_change` may differ, because they change nothing that is learned.

    Args:
        workdir: folder of a run to resume, or of a new run.
        config: config as nested mappings of plain values.

    Returns:
        The differences in fields that may differ, one line per field.

    Raises:
        ValueError: if the folder has a run of another config (the message lists the
            differences), has checkpoints but no config, or cannot be written.
        OSError: if the config cannot be read.
    """
    require_writable(workdir)
    if (workdir / CONFIG_FILE).exists():
        saved = with_absolute_paths(read_config(workdir))
        changed = differences(saved, as_read(config))
        free = may_change(saved)
        refused = [x for x in changed if x.partition(":")[0] not in free]
        if refused:
            raise ValueError(
                f"{workdir} holds a run of another config ({'; '.join(refused)}); "
                f"{_remedy(workdir, refused)}"
            )
        return changed
    if (workdir / "checkpoints").exists():
        raise ValueError(
            f"{workdir} has checkpoints but no {CONFIG_FILE}; use another --workdir"
        )
    return []


def _remedy(workdir: pathlib.Path, refused: Sequence[str]) -> str:
    """What to do if fields differ that may not: how to train longer, if that is all."""
    length = {"train.num_epochs", "train.epochs_factor", "train.num_steps"}
    if {change.partition(":")[0] for change in refused} <= length:
        return (
            "its learning rates are for the old length: to train longer, start a new "
            f"run from its newest state, --from={shlex.quote(str(workdir))} "
            "--workdir=ANOTHER (train.start_from in Python), whose length starts at 0"
        )
    return "use the old values, or another --workdir"


def as_resumed(changed: Sequence[str]) -> str:
    """Returns a line about differences that do not prevent resuming.

    >>> as_resumed(["data.path: /a -> /b"])
    'the run gets new values that change nothing it learns: data.path: /a -> /b'
    """
    return (
        f"the run gets new values that change nothing it learns: {'; '.join(changed)}"
    )


def require_writable(workdir: pathlib.Path) -> None:
    """Raises an error unless a path is a writable folder or can be created as one.

    Raises:
        ValueError: if the path or its nearest existing parent is a file or is
            write-protected.
    """
    if in_bucket(workdir):
        as_path(workdir)  # its lease is the first object that is written
        return
    there = existing(workdir)
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(
            f"--workdir={workdir} must be a folder that can be written, and {there} is "
            f"{'write-protected' if there.is_dir() else 'a file'}; use another one"
        )


def existing(path: pathlib.Path) -> pathlib.Path:
    """Returns the path itself, or its nearest existing parent."""
    return next(place for place in (path, *path.parents) if place.exists())


def claim_workdir(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Writes the config to a new folder, or compares it with an existing config.

    If fields differ that may differ, the file is replaced atomically, so that later
    evaluations find moved data.

    Args:
        workdir: folder of the run; created if it does not exist.
        config: config as nested mappings of plain values.

    Raises:
        ValueError: if the folder has a run of another config, has checkpoints but no
            config, or cannot be written.
        OSError: if the config cannot be read or written.
    """
    check_config(workdir, config)
    file = workdir / CONFIG_FILE
    if file.exists() and read_config(workdir) == as_read(config):
        return
    workdir.mkdir(parents=True, exist_ok=True)
    atomic.write_text(file, json.dumps(config, indent=2, sort_keys=True) + "\n")


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
    """Reads the config of a folder's run, with the current names of its fields.

    Fields that did not exist in the library version of the run get their defaults.

    Raises:
        FileNotFoundError: if the folder is not that of a run.
        ValueError: if the config is damaged.
    """
    file = workdir / CONFIG_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"{workdir} has no {CONFIG_FILE}, so it is not the folder of a run; give "
            "the --workdir of a run that logo_jax.main has trained"
        )
    try:
        config = as_tuples(json.loads(file.read_text()))
    except ValueError as error:  # not JSON or not text
        raise ValueError(
            f"{file} is damaged ({error}); restore it from a copy, or use another "
            "--workdir"
        ) from error
    if not isinstance(config, dict):
        raise ValueError(
            f"{file} must contain a JSON object, the config of a run; restore it from "
            "a copy, or use another --workdir"
        )
    return complete(config)


def as_read(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config as `read_config` would return it."""
    return as_tuples(json.loads(json.dumps(config)))


def with_absolute_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config whose paths do not depend on the current folder.

    Raises:
        ValueError: if a path is a URL.
    """
    changed = dict(config)
    for field in PATHS:
        group, name = field.split(".")
        fields = changed.get(group)
        if not isinstance(fields, Mapping):
            continue
        value = fields.get(name)
        if value and isinstance(value, str):
            paths = (str(path.absolute()) for path in parse_paths(value))
            changed[group] = {**fields, name: ",".join(paths)}
    return changed


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns the differences between two configs, one line per field.

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
    """Returns (dotted name, value) of all fields."""
    fields = []
    for name, value in config.items():
        path = f"{prefix}{name}"
        nested = isinstance(value, Mapping)
        fields += flatten(value, f"{path}.") if nested else [(path, value)]
    return fields


def as_tuples(value: Any) -> Any:
    """Converts all lists in a JSON value, also nested ones, to tuples.

    Configs contain tuples, which JSON stores as lists.
    """
    if isinstance(value, Mapping):
        return {name: as_tuples(field) for name, field in value.items()}
    if isinstance(value, list):
        return tuple(as_tuples(item) for item in value)
    return value


DATA_FILE = "data.json"  # in the folder of a run, about the images of its first start


def record_data(workdir: pathlib.Path, data: Mapping[str, Any]) -> None:
    """Writes the fingerprint of a run's images, unless the folder has one.

    Args:
        workdir: folder of the run.
        data: as `data.fingerprint` returns it.
    """
    file = workdir / DATA_FILE
    if not file.exists():
        atomic.write_text(file, json.dumps(data, indent=2) + "\n")


def data_changes(workdir: pathlib.Path, data: Mapping[str, Any]) -> dict[str, str]:
    """Returns how the parts of the data differ from those of a run's first start.

    Args:
        workdir: folder of the run; if it has no record, nothing is known to differ.
        data: as `data.fingerprint` returns it.

    Raises:
        ValueError: if the record is damaged.
    """
    file = workdir / DATA_FILE
    if not file.is_file():
        return {}
    try:
        old = json.loads(file.read_text())
        parts = sorted({*old, *data})
        changed = [part for part in parts if old.get(part) != data.get(part)]
        return {x: _data_change(old.get(x), data.get(x)) for x in changed}
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(
            f"{file} is damaged ({error}); delete it to resume without comparing the "
            "images with those of the first start"
        ) from error


def require_same_data(workdir: pathlib.Path, data: Mapping[str, Any]) -> str:
    """Raises an error if a run would resume on other training images.

    Args:
        workdir: folder of the run to resume, or of a new run.
        data: as `data.fingerprint` returns it.

    Returns:
        A note if only the images for evaluation have changed; "" if none have.

    Raises:
        ValueError: if the training images have changed, or the record is damaged.
    """
    changes = data_changes(workdir, data)
    if "train" in changes:
        raise ValueError(
            f"{workdir} holds a run on other training images ({changes['train']}); "
            "restore them, or use another --workdir"
        )
    return changes_note(changes) if changes else ""


def changes_note(changes: Mapping[str, str]) -> str:
    """Returns a sentence about the changes that `data_changes` returns."""
    parts = "; ".join(f"{part}: {change}" for part, change in changes.items())
    return f"the data have changed since the start of the run ({parts})"


def _data_change(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> str:
    if old is None or new is None:
        return "none before" if old is None else "none now"
    before, now = (f"{x['images']:,} in {x['classes']:,} classes" for x in (old, new))
    more = new["images"] - old["images"]
    if before == now:
        return f"{now} as before, but with other names, labels or values"
    return f"{before} before, {now} now" + (f": {more:+,}" if more else "")


MACHINE_FILE = "machine.json"  # in the folder of a run, about its latest start
PACKAGES = ("logo_jax", "jax", "flax", "optax", "scikit-learn", "numpy", "Pillow")


def record_machine(workdir: pathlib.Path, mesh: Mesh) -> None:
    """Writes the machine that this start of the run uses to the run's folder."""
    text = json.dumps(describe_machine(mesh), indent=2)
    atomic.write_text(workdir / MACHINE_FILE, text + "\n")


def describe_machine(mesh: Mesh) -> dict[str, Any]:
    """Returns devices, operating system and package versions as a JSON object."""
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
    except (
        importlib.metadata.PackageNotFoundError
    ):  # source checkout on the Python path
        return "not installed"
