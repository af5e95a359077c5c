"""Compares files, bytes, seconds and memory of checkpoint formats (Linux only).

    python -m benchmarks.checkpoints [--out=FOLDER] [--rounds=5] [--saves=200]

The states of two configs are filled with random numbers, which cannot be compressed.
Formats: `ours` is `CheckpointManager`; `files` and `ocdbt` are Orbax's PyTree handler
with one file per leaf or a packed format, with the same copies and checksums as in
`CheckpointManager`. Each is measured in a process of its own. A save blocks until the
state may be donated, and lasts until the state is on disk. Seconds are medians over
rounds, with a warm disk cache. Memory is the peak of the process in the first save or
restore, minus its memory before, in copies of the state. Growth is that of memory and
of the number of Python objects, for the first config, from a tenth of the saves to the
last. Prints a table and one JSON line.
"""

import argparse
import gc
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from benchmarks.memory import MB, forget, held, noise
from logo_jax import configs
from logo_jax.experiment import make_spec
from logo_jax.training.checkpoints.manager import CheckpointManager
from logo_jax.training.checkpoints.manifest import leaf_record

CONFIGS = ("quickstart", "imagenet100_r50_moco:released")
FORMATS = ("ours", "files", "ocdbt")
COLUMNS = {
    "files": "files",
    "mb": "MB",
    "blocked_s": "save blocks, s",
    "saved_s": "until on disk, s",
    "restored_s": "restore, s",
    "copies_saving": "copies in memory, saving",
    "copies_restoring": "restoring",
    "rss_growth_mib": "RSS growth, MiB",
    "object_growth": "objects",
}


class OrbaxPyTree:
    """Orbax's PyTree handler, writing the same contents as `CheckpointManager`."""

    def __init__(self, folder: str, *, use_ocdbt: bool):
        registry = ocp.type_handlers.create_type_handler_registry(
            (np.ndarray, ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False))
        )
        handler = ocp.PyTreeCheckpointHandler(
            type_handler_registry=registry, use_ocdbt=use_ocdbt, use_compression=False
        )
        self._manager = ocp.CheckpointManager(
            folder,
            options=ocp.CheckpointManagerOptions(max_to_keep=3),
            item_handlers={"state": handler, "manifest": ocp.JsonCheckpointHandler()},
        )
        self.wait, self.close = self._manager.wait_until_finished, self._manager.close

    def save(self, step: int, state: Any) -> None:
        """Copies the state, computes checksums and starts writing."""
        self.wait()
        leaves = {path: np.array(x) for path, x in named(state).items()}
        records = {path: leaf_record(x) for path, x in leaves.items()}
        items = {
            "state": ocp.args.PyTreeSave(leaves),
            "manifest": ocp.args.JsonSave(records),
        }
        self._manager.save(step, args=ocp.args.Composite(**items))

    def restore_latest(self, like: Any) -> tuple[int, Any]:
        """Reads the newest checkpoint, checks it and puts it on the device."""
        step = max(self._manager.all_steps())
        blank = {path: np.empty(x.shape, x.dtype) for path, x in named(like).items()}
        items = {
            "state": ocp.args.PyTreeRestore(blank),
            "manifest": ocp.args.JsonRestore(),
        }
        found = self._manager.restore(step, args=ocp.args.Composite(**items))
        for path, leaf in found["state"].items():
            if leaf_record(leaf) != found["manifest"][path]:
                raise ValueError(f"{path} is damaged")
        leaves = [jax.device_put(found["state"][path]) for path in blank]
        return step, jax.tree.unflatten(jax.tree.structure(like), leaves)


def named(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree by path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def opened(form: str, folder: str) -> Any:
    """Returns a checkpoint manager of a format."""
    if form == "ours":
        return CheckpointManager(folder)
    return OrbaxPyTree(folder, use_ocdbt=form == "ocdbt")


def shapes_of(config: str) -> Any:
    """Returns the shapes and dtypes of the state of a config."""
    return jax.eval_shape(make_spec(configs.load(config), num_devices=1).init)


def peak(action: Callable[[], Any]) -> float:
    """Returns the peak memory during an action minus the memory before, in MB."""
    gc.collect()
    forget()
    before = held("VmRSS")
    action()
    return held("VmHWM") - before


def measured(form: str, config: str, out: str | None, rounds: int) -> dict[str, float]:
    """Measures one format and config."""
    like = shapes_of(config)
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda x: jax.device_put(noise(rng, x)), like)
    size = sum(x.nbytes for x in jax.tree.leaves(state)) / MB
    found: dict[str, float] = {}
    times: dict[str, list[float]] = {"blocked": [], "saved": [], "restored": []}
    with tempfile.TemporaryDirectory(dir=out) as folder:
        checkpoints = opened(form, folder)
        checkpoints.save(
            0, {"x": np.zeros(1)}
        )  # loads modules that the first save needs
        checkpoints.wait()
        checkpoints.restore_latest({"x": np.zeros(1)})

        def save(step: int) -> None:
            start = time.perf_counter()
            checkpoints.save(step, state)
            times["blocked"].append(time.perf_counter() - start)
            checkpoints.wait()
            times["saved"].append(time.perf_counter() - start)

        def restore() -> None:
            start = time.perf_counter()
            jax.block_until_ready(checkpoints.restore_latest(like))
            times["restored"].append(time.perf_counter() - start)

        found["copies_saving"] = peak(lambda: save(1)) / size
        found["copies_restoring"] = peak(restore) / size
        for i in range(rounds):
            save(2 + i)
            restore()
        checkpoints.close()
        newest = pathlib.Path(folder, str(1 + rounds))
        files = [x for x in newest.rglob("*") if x.is_file()]
        found |= {"files": len(files), "mb": sum(x.stat().st_size for x in files) / MB}
    for name, seconds in times.items():
        found[f"{name}_s"] = statistics.median(seconds[1:])
    return found


def growth(form: str, config: str, out: str | None, saves: int) -> dict[str, float]:
    """Measures the growth of memory and objects after a tenth of the saves."""
    state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes_of(config))
    with tempfile.TemporaryDirectory(dir=out) as folder:
        checkpoints = opened(form, folder)
        before = rss = 0.0
        for step in range(saves):
            if step == saves // 10:
                gc.collect()
                before, rss = sys.getallocatedblocks(), held("VmRSS")
            checkpoints.save(step, state)
            checkpoints.wait()
        gc.collect()
        after, rss = sys.getallocatedblocks(), held("VmRSS") - rss
        checkpoints.close()
    return {"rss_growth_mib": rss * MB / 2**20, "object_growth": after - before}


def in_own_process(flags: argparse.Namespace, form: str, config: str, what: str) -> Any:
    """Measures in a new process."""
    line = [sys.executable, "-m", "benchmarks.checkpoints", f"--one={what}"]
    line += [f"--formats={form}", f"--configs={config}", f"--rounds={flags.rounds}"]
    line += [f"--saves={flags.saves}"] + [f"--out={flags.out}"] * bool(flags.out)
    return json.loads(subprocess.run(line, check=True, capture_output=True).stdout)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--saves", type=int, default=200)
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--configs", default=",".join(CONFIGS))
    parser.add_argument("--one", choices=("size", "growth"), help=argparse.SUPPRESS)
    flags = parser.parse_args(arguments)
    forms, configs = flags.formats.split(","), flags.configs.split(",")
    if flags.one == "size":
        print(json.dumps(measured(forms[0], configs[0], flags.out, flags.rounds)))
    elif flags.one == "growth":
        print(json.dumps(growth(forms[0], configs[0], flags.out, flags.saves)))
    else:
        table(flags, forms, configs)


def table(flags: argparse.Namespace, forms: list[str], configs: list[str]) -> None:
    """Measures each config and format, and prints a row for each."""
    names = ("state", "format", *COLUMNS.values())
    print("|", " | ".join(names), "|\n|" + "---|" * len(names))
    rows = []
    for i, config in enumerate(configs):
        for form in forms:
            found = in_own_process(flags, form, config, "size")
            if i == 0 and flags.saves:
                found |= in_own_process(flags, form, config, "growth")
            values = [f"{found[x]:.3g}" if x in found else "" for x in COLUMNS]
            print("|", " | ".join([config, form, *values]), "|", flush=True)
            rows.append({"config": config, "format": form} | found)
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
