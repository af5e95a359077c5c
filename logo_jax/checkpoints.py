"""Keeps the newest training states on disk and never hands back a damaged one.

A checkpoint is two Orbax items: `state`, the leaves by their paths, such as
`params/encoder/conv1/kernel`, and `manifest`, the dtype, shape and crc32 of each. Orbax
restores a flipped bit without a word; the manifest is what notices. A folder has one
writer at a time, the first of several processes, and any number of readers.
"""

import contextlib
import functools
import json
import logging
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

State = TypeVar("State")

_TRASH = "trash"


class Checkpoints:
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
        max_to_keep: int = 3,
        read_only: bool = False,
        report: Callable[[str], None] | None = None,
    ):
        self.folder = Path(folder).absolute()
        self._read_only = read_only
        self._report = report or functools.partial(print, file=sys.stderr)
        if not read_only:
            _require_writable(self.folder)
        with _silent_logs():
            self._manager = ocp.CheckpointManager(
                self.folder,
                options=_options(max_to_keep, read_only),
                item_handlers=_handlers(),
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
        background raises from the next call of `save`, `wait` or `close`.

        Args:
            step: updates done so far; must be newer than every checkpoint here.
            state: any pytree of numeric arrays.

        Raises:
            ValueError: if the step is not newer, or the folder was opened read-only.
        """
        self.wait()
        leaves = {path: np.asarray(x) for path, x in _flatten(jax.device_get(state))}
        args = ocp.args.Composite(
            state=ocp.args.PyTreeSave(leaves),
            manifest=ocp.args.JsonSave(_manifest(leaves)),
        )
        if not self._manager.save(step, args=args):
            raise ValueError(
                f"step {step} must be newer than the checkpoints {self.steps()} in "
                f"{self.folder}, and those not opened read-only; restore the latest "
                "before training on, or choose another work folder"
            )

    def restore_latest(self, like: State) -> tuple[int, State] | None:
        """The newest sound checkpoint, its step and state; None where there is none.

        Damaged checkpoints that are newer are reported and thrown away, so that their
        steps can be saved again.

        Args:
            like: what the state must look like: arrays or `jax.ShapeDtypeStruct`s whose
                structure, dtypes and shardings the restored state takes.

        Raises:
            ValueError: if all checkpoints are damaged, or if the newest readable one
                was made by a different network, method or optimiser.
        """
        self.wait()
        damage: dict[int, str] = {}
        for step in reversed(self.steps()):
            try:
                state = self._restore(step, like)
            except _DamagedError as error:
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
        """Returns once the last `save` is safe on disk."""
        self._manager.wait_until_finished()
        self._manager.check_for_errors()
        self._empty_trash()

    def close(self) -> None:
        """Finishes the last `save` and lets go of the folder."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def _restore(self, step: int, like: State) -> State:
        stored = _sound_manifest(self._read(step, "manifest", ocp.args.JsonRestore()))
        wanted = dict(_flatten(like))
        _require_same(stored, wanted, f"checkpoint {step} in {self.folder}")
        blank = {path: np.empty(x.shape, x.dtype) for path, x in wanted.items()}
        leaves = self._read(step, "state", ocp.args.PyTreeRestore(blank))
        for path, leaf in leaves.items():
            if _record(leaf) != stored[path]:
                raise _DamagedError(f"{path}: checksum differs")
        # By path, because Orbax returns the leaves in its own order.
        placed = [
            jax.device_put(leaves[path], getattr(x, "sharding", None))
            for path, x in wanted.items()
        ]
        return jax.tree.unflatten(jax.tree.structure(like), placed)

    def _read(self, step: int, item: str, args: Any) -> Any:
        try:
            with _silent_logs():
                items = ocp.args.Composite(**{item: args})
                return self._manager.restore(step, args=items)[item]
        # Orbax and TensorStore have no error of their own for damage: a torn file comes
        # as a bare Exception, a missing one as KeyError, ValueError or JSONDecodeError.
        except Exception as error:
            reason = " ".join(f"{type(error).__name__} {error}".split())
            raise _DamagedError(f"{item}: {reason[:120]}") from error

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


class _DamagedError(Exception):
    """A checkpoint that must not be used; the message says why."""


class _SerialHandler(ocp.type_handlers.NumpyHandler):
    """Reads leaf by leaf, so that no other read is under way when one fails.

    Orbax would abandon the others, and TensorStore's threads print their tracebacks.
    """

    async def deserialize(self, infos: Sequence[Any], args: Any = None) -> list[Any]:
        args = args or [None] * len(infos)
        leaves = []
        for info, arg in zip(infos, args, strict=True):
            leaves += await super().deserialize([info], arg and [arg])
        return leaves


def _handlers() -> dict[str, ocp.CheckpointHandler]:
    registry = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, _SerialHandler())
    )
    return {
        "state": ocp.PyTreeCheckpointHandler(type_handler_registry=registry),
        "manifest": ocp.JsonCheckpointHandler(),
    }


def _options(max_to_keep: int, read_only: bool) -> ocp.CheckpointManagerOptions:
    if max_to_keep < 1:
        raise ValueError(f"max_to_keep={max_to_keep} must be at least 1; use 3")
    make = ocp.CheckpointManagerOptions
    alone = ocp.options.MultiprocessingOptions(active_processes={0})  # waits for none
    fields: dict[str, Any] = {"create": False, "multiprocessing_options": alone}
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


def _record(leaf: np.ndarray) -> dict[str, Any]:
    flat = np.ascontiguousarray(leaf).reshape(-1)
    return {"array": _form(leaf), "crc32": zlib.crc32(flat.view(np.uint8).data)}


def _form(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _manifest(leaves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    records = {path: _record(leaf) for path, leaf in leaves.items()}
    return {"leaves": records, "crc32": _crc32_of_json(records)}


def _sound_manifest(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    records = manifest.get("leaves")
    if not records or manifest.get("crc32") != _crc32_of_json(records):
        raise _DamagedError("manifest: checksum differs")
    return records


def _crc32_of_json(value: Any) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def _require_same(
    stored: Mapping[str, dict[str, Any]], wanted: Mapping[str, Any], where: str
) -> None:
    here = {path: _form(leaf) for path, leaf in wanted.items()}
    there = {path: record["array"] for path, record in stored.items()}
    for path in here | there:
        if here.get(path) != there.get(path):
            raise ValueError(
                f"{where} must fit this run, but {path} is {there.get(path, 'absent')} "
                f"there and {here.get(path, 'absent')} here; use the config that made "
                "it, or another work folder"
            )


@contextlib.contextmanager
def _silent_logs() -> Iterator[None]:
    """Keeps Orbax's pages of log about a damaged file off the terminal."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
