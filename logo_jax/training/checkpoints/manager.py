"""Saves training states, keeps some of them and never restores a damaged one.

    checkpoints/300/                        the state after 300 updates
        state/arrays.safetensors            all leaves, by their paths
        state/manifest.json                 dtype, shape and CRC-32 of each leaf
        _CHECKPOINT_METADATA, commit_success.txt, state/commit_success.txt   of Orbax

An example of a leaf's path is `params/encoder/conv1/kernel`. The format has version 1,
which is stored in the manifest; `old_formats` reads older checkpoints. Orbax renames a
folder to 300 only when the folder is complete, and removes incomplete folders of killed
processes. The manifest detects flipped bits and truncated or missing files. A folder
has one writer, the first of several processes, and any number of readers.
"""

import contextlib
import functools
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from logo_jax.methods.base import EMA_ENCODER, ENCODER, LINEAR
from logo_jax.storage.paths import as_os_errors, in_bucket, parse_path
from logo_jax.training.checkpoints import (
    array_file,
    manifest,
    old_formats,
    orbax_handler,
)
from logo_jax.training.checkpoints.keep import Keep
from logo_jax.training.checkpoints.manifest import DamagedError
from logo_jax.training.checkpoints.orbax_handler import Leaves, StateArgs, StateHandler

State = TypeVar("State")

_DEFAULT = Keep()
_ITEM = "state"
_TRASH = "trash"
# the errors of a file that is not there
_MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_COMPLETE = "commit_success.txt"  # of Orbax, written last


class CheckpointManager:
    """Context manager that saves and restores the checkpoints of one run by step.

    Args:
        folder: folder of the checkpoints; created if it does not exist.
        keep: which checkpoints are kept; by default the newest three.
        read_only: if True, the folder is never modified, so a run that is still
            training is not disturbed, and `save` raises an error.
        report: function that receives one line for each damaged checkpoint that was
            skipped; the default prints to stderr.

    Raises:
        ValueError: if the folder cannot be written.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        keep: Keep = _DEFAULT,
        read_only: bool = False,
        report: Callable[[str], None] | None = None,
    ):
        self.folder = parse_path(folder).absolute()
        self._read_only = read_only
        self._report = report or functools.partial(print, file=sys.stderr)
        if not read_only:
            _require_writable(self.folder)
        logging.getLogger("absl").addFilter(_is_not_from_orbax)
        with as_os_errors(self.folder):
            self._manager = ocp.CheckpointManager(
                self.folder,
                options=_options(keep, read_only, in_bucket(self.folder)),
                item_handlers={_ITEM: StateHandler()},
            )
        self._empty_trash()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def steps(self) -> list[int]:
        """Returns the steps of all checkpoints, damaged ones included, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any) -> None:
        """Starts writing a checkpoint; returns when the state is copied to the host.

        After the call, the state may be donated to the next step. If writing fails in
        the background, the next call of `save`, `wait` or `close` raises the error.
        Earlier checkpoints remain valid, and later ones are written as usual.

        Args:
            step: number of updates so far; must be larger than the steps of all
                checkpoints in the folder.
            state: pytree of numeric arrays.

        Raises:
            ValueError: if the step is not larger, the folder was opened read-only, or a
                leaf has a dtype that safetensors does not have.
            SaveError: if this state or the previous one cannot be written.
        """
        self.wait()
        leaves = {path: _own(x) for path, x in _flatten(state)}
        array_file.require_storable(leaves)
        args = ocp.args.Composite(**{_ITEM: StateArgs(leaves)})
        with self._writing():
            started = self._manager.save(step, args=args)
        if not started:
            raise ValueError(
                f"step {step} must be newer than the checkpoints {self.steps()} in "
                f"{self.folder}, which must not be opened read-only; restore the "
                "latest checkpoint before training, or use another --workdir"
            )

    def restore_latest(
        self, like: State, *, start_average: bool = False
    ) -> tuple[int, State] | None:
        """Returns the step and state of the newest valid checkpoint; None if none.

        The checkpoint may have an online linear classifier or an average of the encoder
        that `like` does not have; they are ignored. Newer damaged checkpoints are
        reported and deleted, so that their steps can be saved again.

        Args:
            like: arrays or `jax.ShapeDtypeStruct`s with the structure, shapes, dtypes
                and shardings of the state.
            start_average: whether a checkpoint without an average of the encoder may be
                restored to a state with one, which starts at the encoder.

        Raises:
            ValueError: if all checkpoints are damaged, or if the newest valid one is of
                a different network, method or optimizer.
            OSError: if a file is there and cannot be read; no checkpoint is deleted.
        """
        self.wait()
        damage: dict[int, str] = {}
        for step in reversed(self.steps()):
            try:
                state = self._restore(step, like, start_average)
            except DamagedError as error:
                damage[step] = str(error)
                continue
            self._pass_over(damage, step)
            return step, state
        if damage:
            reasons = "; ".join(f"{step}: {reason}" for step, reason in damage.items())
            raise ValueError(
                f"all checkpoints in {self.folder} are damaged ({reasons}); the run "
                "does not restart by itself: move that folder away to start again"
            )
        return None

    def restore(self, step: int, like: State, *, start_average: bool = False) -> State:
        """Returns the state of one checkpoint.

        Args:
            step: step of the checkpoint.
            like: as for `restore_latest`.
            start_average: as for `restore_latest`.

        Raises:
            ValueError: if there is no such checkpoint, it is damaged, or it is of a
                different network, method or optimizer.
            OSError: if a file is there and cannot be read.
        """
        self.wait()
        if step not in self.steps():
            raise ValueError(
                f"{self.folder} has no checkpoint of step {step}, only of "
                f"{self.steps() or 'none'}"
            )
        try:
            return self._restore(step, like, start_average)
        except DamagedError as error:
            raise ValueError(
                f"checkpoint {step} in {self.folder} is damaged ({error}); use another"
            ) from error

    def wait(self) -> None:
        """Waits until the last `save` is on disk.

        Raises:
            SaveError: if the checkpoint cannot be written.
        """
        with self._writing():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        self._empty_trash()

    def close(self) -> None:
        """Waits for the last `save` and closes the folder."""
        try:
            self.wait()
        finally:
            self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        # The error of a full disk depends on which file fails, ours or one of Orbax.
        except Exception as error:
            raise SaveError(
                f"a checkpoint cannot be written to {self.folder} ({_reason(error)}); "
                "earlier ones are valid: free disk space and run the same command again"
            ) from error

    def _restore(self, step: int, like: State, start_average: bool = False) -> State:
        folder = epath.Path(self.folder) / str(step)
        wanted = dict(_flatten(like))
        stored = manifest.valid_records(_read_manifest(folder))
        for part in (LINEAR, EMA_ENCODER):
            stored = manifest.without_part(stored, wanted, part=part)
        read = {path: path for path in wanted}
        if start_average:
            read = {path: path if path in stored else _start(path) for path in wanted}
        needed = {path: wanted[own] for own, path in read.items()}
        manifest.require_same(stored, needed, f"checkpoint {step} in {self.folder}")
        placed = {}
        for path, leaf in _read_leaves(folder, needed):
            if manifest.leaf_record(leaf) != stored[path]:
                raise DamagedError(f"{path}: checksum differs")
            sharding = getattr(needed[path], "sharding", None)
            placed[path] = jax.device_put(leaf, sharding)
        # the order of the file differs from that of the tree
        leaves = [placed[read[path]] for path in wanted]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def _pass_over(self, damage: Mapping[int, str], taken: int) -> None:
        for step, reason in damage.items():
            self._report(f"checkpoint {step} is damaged ({reason}): taking {taken}")
            if not self._read_only:
                self._manager.delete(step)

    def _empty_trash(self) -> None:
        # Orbax deletes checkpoints by moving them to the trash, so that a kill cannot
        # leave a partial checkpoint. Orbax never empties the trash.
        if not self._read_only and not in_bucket(self.folder):
            shutil.rmtree(self.folder / _TRASH, ignore_errors=True)


def saved_steps(folder: Path) -> list[int]:
    """Returns the steps of the checkpoints in a folder, damaged ones included."""
    found = [x for x in folder.glob("*") if x.name.isdecimal()]
    if in_bucket(folder):
        found = [x for x in found if (x / _COMPLETE).is_file()]
    return sorted(int(x.name) for x in found)


class SaveError(OSError):
    """A checkpoint cannot be written; the message is one line."""


def _start(path: str) -> str:
    """Returns the leaf of the encoder at which a leaf of its average starts.

    >>> _start("memory/ema_encoder/head/bias")
    'params/encoder/head/bias'
    >>> _start("memory/queue")
    'memory/queue'
    """
    for group, source in (("memory", "params"), ("batch_stats", "batch_stats")):
        start = f"{group}/{EMA_ENCODER}/"
        if path.startswith(start):
            return f"{source}/{ENCODER}/{path.removeprefix(start)}"
    return path


def _read_manifest(folder: epath.Path) -> dict[str, Any]:
    with _damage("manifest", folder):
        if old_formats.is_old(folder):
            return old_formats.read_manifest(folder)
        return orbax_handler.read_manifest(folder / _ITEM)


def _read_leaves(folder: epath.Path, wanted: Mapping[str, Any]) -> Leaves:
    """Yields leaves by path; errors of the caller's code are not caught."""
    with _damage(_ITEM, folder):
        if old_formats.is_old(folder):
            yield from old_formats.read_leaves(folder, wanted)
        else:
            yield from orbax_handler.read_leaves(folder / _ITEM, wanted)


@contextlib.contextmanager
def _damage(item: str, folder: epath.Path) -> Iterator[None]:
    """Raises what an item of a checkpoint raises as damage, if it is damage."""
    try:
        with as_os_errors(folder):
            yield
    except MemoryError:  # does not mean that the checkpoint is damaged
        raise
    # Damage raises many types of errors: OSError for a missing file, ValueError for a
    # truncated file, KeyError for a header with other names, Exception by TensorStore.
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, _MISSING):
            # the disk, the network or the bucket fails, and may work later
            raise OSError(
                f"{folder}/{item} cannot be read ({_reason(error)}); run the same "
                f"command again, or move {folder} away to take the checkpoint before it"
            ) from error
        raise DamagedError(f"{item}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Returns the type and the message of an error, shortened in the middle."""
    text = " ".join(f"{type(error).__name__} {error}".split())
    text = text.partition(" [tensorstore_spec")[0]
    return text if len(text) <= 120 else f"{text[:60]} ... {text[-60:]}"


def _options(keep: Keep, read_only: bool, remote: bool) -> ocp.CheckpointManagerOptions:
    make = ocp.CheckpointManagerOptions
    # no barrier with other processes
    alone = ocp.options.MultiprocessingOptions(active_processes={0})
    # Created synchronously, because our handler does not wait for the folder.
    created = ocp.AsyncOptions(create_directories_asynchronously=False)
    fields: dict[str, Any] = {
        "create": False,
        "multiprocessing_options": alone,
        "async_options": created,
    }
    if remote:
        # Nothing can be renamed: the last object marks a checkpoint as complete. For
        # s3:// Orbax would copy each object to its final name.
        mode = ocp.options.AtomicityMode.COMMIT_FILE
        fields["atomicity_options"] = ocp.options.AtomicityOptions(mode)
    if read_only:
        return make(read_only=True, save_interval_steps=0, **fields)
    fields |= {"cleanup_tmp_directories": True}
    fields |= {} if remote else {"todelete_subdir": _TRASH}
    return make(preservation_policy=keep, **fields)


def _require_writable(folder: Path) -> None:
    if in_bucket(folder):
        return  # the folder of the run has been written, at least its lease
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"checkpoint folder {folder} must be writable ({error.strerror}); use "
            "another --workdir or change the permissions"
        ) from error


def _flatten(tree: Any) -> list[tuple[str, Any]]:
    """Returns (slash-joined path, leaf) of all leaves, in the order of the tree."""
    leaves = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree.leaves_with_path(tree)
    ]
    if len(dict(leaves)) != len(leaves):
        raise ValueError(
            "two leaves of the state have the same slash-joined path; remove '/' from "
            "the keys of the state"
        )
    return leaves


def _own(x: Any) -> np.ndarray:
    """Returns a host copy of a leaf that stays valid after the state is donated.

    `np.asarray` returns a view of an array on the CPU, which must be copied, and a copy
    of an array on another device, which need not be copied again.
    """
    devices = x.devices() if isinstance(x, jax.Array) else ()
    elsewhere = devices and all(device.platform != "cpu" for device in devices)
    return np.asarray(x) if elsewhere else np.array(x)


def _is_not_from_orbax(record: logging.LogRecord) -> bool:
    """Filters out Orbax's log records, which repeat our messages at length."""
    return "orbax" not in Path(record.pathname).parts
