"""Keeps the newest training states on disk and never hands back a damaged one.

    checkpoints/300/                        the state after 300 updates
        state/arrays.safetensors            all leaves, by their paths
        state/manifest.json                 dtype, shape and crc32 of each leaf
        _CHECKPOINT_METADATA, commit_success.txt, state/commit_success.txt   Orbax's

A path is such as `params/encoder/conv1/kernel`. Format version 1; its number is in the
manifest, and `old_formats` reads what was written before. Orbax names a folder 300 only
once all is in it, and removes what a killed process left; the manifest tells a flipped
bit, a file cut short and one that is missing. A folder has one writer at a time, the
first of several processes, and any number of readers.
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

from logo_jax.methods.base import LINEAR
from logo_jax.training.checkpoints import (
    array_file,
    manifest,
    old_formats,
    orbax_handler,
)
from logo_jax.training.checkpoints.manifest import DamagedError
from logo_jax.training.checkpoints.orbax_handler import Leaves, StateArgs, StateHandler

State = TypeVar("State")

MAX_TO_KEEP = 3
_ITEM = "state"
_TRASH = "trash"


class CheckpointManager:
    """The checkpoints of one run: a folder of states by step; a context manager.

    Args:
        folder: where checkpoints live; made if absent.
        max_to_keep: how many of the newest are kept, ≥ 1.
        read_only: leaves the folder exactly as it is, so that a run which is still
            training in it is not disturbed; `save` is then an error.
        report: receives one line for each damaged checkpoint that was passed over.

    Raises:
        ValueError: if the folder cannot be written, or max_to_keep is not positive.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        max_to_keep: int = MAX_TO_KEEP,
        read_only: bool = False,
        report: Callable[[str], None] | None = None,
    ):
        self.folder = Path(folder).absolute()
        self._read_only = read_only
        self._report = report or functools.partial(print, file=sys.stderr)
        if not read_only:
            _require_writable(self.folder)
        logging.getLogger("absl").addFilter(_not_by_orbax)
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=_options(max_to_keep, read_only),
            item_handlers={_ITEM: StateHandler()},
        )
        self._empty_trash()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, sound or not, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any) -> None:
        """Starts writing state and returns once it is copied to the host.

        The state may be donated to the next step at once. A write that fails in the
        background raises from the next call of `save`, `wait` or `close`; the
        checkpoints before it are whole, and those after it are written as ever.

        Args:
            step: updates done so far; must be newer than every checkpoint here.
            state: any pytree of numeric arrays.

        Raises:
            ValueError: if the step is not newer, the folder was opened read-only, or a
                leaf has a dtype that safetensors does not have.
            SaveError: if this state or the one before it cannot be written.
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
                f"{self.folder}, and those not opened read-only; restore the latest "
                "before training on, or choose another work folder"
            )

    def restore_latest(self, like: State) -> tuple[int, State] | None:
        """The newest sound checkpoint, its step and state; None where there is none.

        A classifier that learned beside the network may be in the checkpoint alone.

        Damaged checkpoints that are newer are reported and thrown away, so that their
        steps can be saved again.

        Args:
            like: what the state must look like: arrays or `jax.ShapeDtypeStruct`s whose
                structure, dtypes and shardings the restored state takes.

        Raises:
            ValueError: if all checkpoints are damaged, or if the newest readable one
                was made by a different network, method or optimizer.
        """
        self.wait()
        damage: dict[int, str] = {}
        for step in reversed(self.steps()):
            try:
                state = self._restore(step, like)
            except DamagedError as error:
                damage[step] = str(error)
                continue
            self._pass_over(damage, step)
            return step, state
        if damage:
            reasons = "; ".join(f"{step}: {reason}" for step, reason in damage.items())
            raise ValueError(
                f"all checkpoints in {self.folder} are damaged ({reasons}), and a run "
                "must not restart unnoticed; move that folder away to start again"
            )
        return None

    def wait(self) -> None:
        """Returns once the last `save` is safe on disk.

        Raises:
            SaveError: if it cannot be written.
        """
        with self._writing():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        self._empty_trash()

    def close(self) -> None:
        """Finishes the last `save` and lets go of the folder."""
        try:
            self.wait()
        finally:
            self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        # what a full disk raises depends on the file that it met, ours or Orbax's
        except Exception as error:
            raise SaveError(
                f"a checkpoint cannot be written to {self.folder} ({_reason(error)}); "
                "those before it are whole: make room and run the same command again"
            ) from error

    def _restore(self, step: int, like: State) -> State:
        folder = epath.Path(self.folder) / str(step)
        wanted = dict(_flatten(like))
        stored = manifest.sound_records(_read_manifest(folder))
        stored = manifest.without_part(stored, wanted, part=LINEAR)
        manifest.require_same(stored, wanted, f"checkpoint {step} in {self.folder}")
        placed = {}
        for path, leaf in _read_leaves(folder, wanted):
            if manifest.leaf_record(leaf) != stored[path]:
                raise DamagedError(f"{path}: checksum differs")
            sharding = getattr(wanted[path], "sharding", None)
            placed[path] = jax.device_put(leaf, sharding)
        leaves = [placed[path] for path in wanted]  # files have their own order
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def _pass_over(self, damage: Mapping[int, str], taken: int) -> None:
        for step, reason in damage.items():
            self._report(f"checkpoint {step} is damaged ({reason}): taking {taken}")
            if not self._read_only:
                self._manager.delete(step)

    def _empty_trash(self) -> None:
        # Orbax renames what it deletes into the trash, so that a kill cannot leave half
        # a checkpoint among the good ones, and never empties it.
        if not self._read_only:
            shutil.rmtree(self.folder / _TRASH, ignore_errors=True)


class SaveError(OSError):
    """A checkpoint that could not be written; the message is one line."""


def _read_manifest(folder: epath.Path) -> dict[str, Any]:
    with _damage("manifest"):
        if old_formats.is_old(folder):
            return old_formats.read_manifest(folder)
        return orbax_handler.read_manifest(folder / _ITEM)


def _read_leaves(folder: epath.Path, wanted: Mapping[str, Any]) -> Leaves:
    """Leaves by path, one by one; what the caller does with them is not caught."""
    with _damage(_ITEM):
        if old_formats.is_old(folder):
            yield from old_formats.read_leaves(folder, wanted)
        else:
            yield from orbax_handler.read_leaves(folder / _ITEM, wanted)


@contextlib.contextmanager
def _damage(item: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:  # says nothing of the checkpoint
        raise
    # Damage has many kinds: a missing file is an OSError, a torn one a ValueError, a
    # header of other names a KeyError, and TensorStore raises bare Exceptions.
    except Exception as error:
        raise DamagedError(f"{item}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The kind of an error, what it says first, and what the system said, last."""
    text = " ".join(f"{type(error).__name__} {error}".split())
    text = text.partition(" [tensorstore_spec")[0]
    return text if len(text) <= 120 else f"{text[:60]} ... {text[-60:]}"


def _options(max_to_keep: int, read_only: bool) -> ocp.CheckpointManagerOptions:
    if max_to_keep < 1:
        raise ValueError(f"max_to_keep={max_to_keep} must be at least 1; use 3")
    make = ocp.CheckpointManagerOptions
    alone = ocp.options.MultiprocessingOptions(active_processes={0})  # waits for none
    # At once, because our handler writes into the folder without waiting for it.
    created = ocp.AsyncOptions(create_directories_asynchronously=False)
    fields: dict[str, Any] = {
        "create": False,
        "multiprocessing_options": alone,
        "async_options": created,
    }
    if read_only:
        return make(read_only=True, save_interval_steps=0, **fields)
    fields |= {"todelete_subdir": _TRASH, "cleanup_tmp_directories": True}
    return make(max_to_keep=max_to_keep, **fields)


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"checkpoint folder {folder} must be writable ({error.strerror}); "
            "choose another work folder or change its permissions"
        ) from error


def _flatten(tree: Any) -> list[tuple[str, Any]]:
    """The leaves of tree by slash-joined path, in the tree's order."""
    leaves = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree.leaves_with_path(tree)
    ]
    if len(dict(leaves)) != len(leaves):
        raise ValueError(
            "two leaves of the state have the same slash-joined path, which must name "
            "one; take '/' out of its keys"
        )
    return leaves


def _own(x: Any) -> np.ndarray:
    """A leaf on the host that stays as it is when the state is donated, copied once.

    NumPy looks at what is on a CPU, and gets a copy of what is elsewhere.
    """
    devices = x.devices() if isinstance(x, jax.Array) else ()
    elsewhere = devices and all(device.platform != "cpu" for device in devices)
    return np.asarray(x) if elsewhere else np.array(x)


def _not_by_orbax(record: logging.LogRecord) -> bool:
    """Keeps Orbax's pages of log about what we say in a line off the terminal."""
    return "orbax" not in Path(record.pathname).parts
