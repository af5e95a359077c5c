"""Trains in one, two and four processes on this machine and compares the results.

    python -m benchmarks.processes OUT

Trains MoCo-LoGo at a tiny size on four simulated CPU devices, with `batch_norm=global`,
with images on the device and streamed. Several processes must reach the final state of
one process to 1e-5, its metrics to 1e-4 and its kNN exactly, and only the first process
may write. Then four processes and one process resume the run of two processes. Prints a
table; exit code 1 if a result differs.
"""

import argparse
import os
import pathlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.kill_soak import metrics
from logo_jax.configs import cifar10_moco
from logo_jax.experiment import make_spec
from logo_jax.training.checkpoints.manager import CheckpointManager

MOST, MOST_OF_METRICS = 1e-5, 1e-4
DEVICES = 4
STEPS = 12  # 6 per epoch, with a checkpoint in the middle
FIELDS = {
    "data.source": "npz",
    "data.batch_size": 16,
    "crops.global_crops": (2, 8, (0.4, 1.0)),
    "crops.local_crops": (2, 8, (0.1, 0.6)),
    "batch_norm": "global",
    "encoder.backbone": "resnet10",
    "encoder.stem": "imagenet",
    "encoder.width": 4,
    "encoder.head_hidden": 8,
    "encoder.embedding_dim": 8,
    "method.queue_size": 64,
    "logo.regressor_width": 8,
    "optimizer.learning_rate": 0.5,
    "train.num_steps": STEPS,
    "train.log_every_steps": 1,
    "train.checkpoint_every_steps": STEPS // 2,
    "monitor.knn": ((3, 0.1), (20, 0.07)),
    "monitor.knn_every_steps": STEPS // 2,
}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=pathlib.Path)
    out = parser.parse_args().out
    write_data(out)
    print(
        "loader    run               state abs  state rel  metrics abs  kNN", flush=True
    )
    passed = [compare(out, loader) for loader in ("on_device", "streaming")]
    sys.exit(0 if all(passed) else 1)


def write_data(folder: pathlib.Path, train: int = 96) -> None:
    """Writes random images of three classes, by color, to train.npz and test.npz."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("test", 60)):
        labels = np.arange(count) % 3
        images = rng.integers(0, 200, (count, 8, 8, 3), dtype=np.uint8)
        images[np.arange(count), ..., labels] += 30
        np.savez(folder / f"{split}.npz", images=images, labels=labels)


def compare(out: pathlib.Path, loader: str) -> bool:
    """Compares one, two and four processes, and resumed runs, with one loader."""
    fields = FIELDS | {"data.path": str(out), "data.loader": loader}
    for count in (1, 2, 4):
        run(fields, out / loader / f"{count}", count)
    for count in (4, 1):
        begun = out / loader / f"2, then {count}"
        shutil.copytree(out / loader / "2", begun)
        shutil.rmtree(begun / "checkpoints" / f"{STEPS}")
        run(fields, begun, count)
    reference = out / loader / "1"
    others = ("2", "4", "2, then 4", "2, then 1")
    return all([report(loader, reference, reference.with_name(x)) for x in others])


def run(fields: Mapping[str, Any], folder: pathlib.Path, count: int) -> None:
    """Trains to the end in `count` processes; only the first may write.

    Raises:
        RuntimeError: if a process fails, or a process other than the first has written.
    """
    folders = [
        folder,
        *(folder.with_name(f"{folder.name}-{i}") for i in range(1, count)),
    ]
    started = start("cifar10_moco.py:logo", fields, folders)
    errors = [process.communicate()[1] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError("\n".join(errors))
    if any(other.exists() for other in folders[1:]):
        raise RuntimeError(f"only the first of {folders} may exist")


def start(
    config: str,
    fields: Mapping[str, Any],
    folders: Sequence[pathlib.Path],
    variables: Mapping[str, str] = {},
) -> list[subprocess.Popen]:
    """Starts a process of the command line for each folder; they share the devices.

    Each process has a process group of its own.
    """
    line = [sys.executable, "-m", "logo_jax.main", f"--config=configs/{config}"]
    line += [f"--config.{name}={value}" for name, value in fields.items()]
    if len(folders) > 1:
        line += [f"--coordinator=127.0.0.1:{free_port()}"]
        line += [f"--num_processes={len(folders)}"]
    devices = DEVICES // len(folders)
    environ = (
        os.environ
        | variables
        | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        }
    )
    ids = [[f"--process_id={i}"] * (len(folders) > 1) for i in range(len(folders))]
    return [
        subprocess.Popen(
            [*line, *own, f"--workdir={folder}"],
            env=environ,
            start_new_session=True,
            stderr=subprocess.PIPE,
            text=True,
        )
        for own, folder in zip(ids, folders, strict=True)
    ]


def free_port() -> int:
    """Returns a port that is free at the moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def report(loader: str, one: pathlib.Path, other: pathlib.Path) -> bool:
    """Compares two runs and prints a row; returns whether they agree."""
    a, b = final_leaves(one), final_leaves(other)
    apart = [np.abs(x - y).max(initial=0) for x, y in zip(a, b, strict=True)]
    size = [np.abs(x).max(initial=0) for x in a]
    relative = max(d / s for d, s in zip(apart, size, strict=True) if d)
    rows = list(zip(*map(metrics, (one, other)), strict=True))
    metric = max(abs(a[k] - b[k]) for a, b in rows for k in a if "knn" not in k)
    knn = all(a[k] == b[k] for a, b in rows for k in a if "knn" in k)
    numbers = f"{max(apart):11.1e}{relative:11.1e}{metric:13.1e}"
    print(f"{loader:9s} {other.name:15s} {numbers}  {'equal' if knn else 'DIFFERS'}")
    sys.stdout.flush()
    return max(apart) <= MOST and metric <= MOST_OF_METRICS and knn


def final_leaves(folder: pathlib.Path) -> list[np.ndarray]:
    """Returns the leaves of a run's final state, as float64."""
    config = cifar10_moco.get_config("logo")
    config.update_from_flattened_dict(FIELDS)
    like = jax.eval_shape(make_spec(config, num_devices=DEVICES).init)
    with CheckpointManager(folder / "checkpoints", read_only=True) as checkpoints:
        found = checkpoints.restore_latest(like)
    if found is None or found[0] != STEPS:
        raise RuntimeError(f"{folder} has no checkpoint of step {STEPS}")
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(found[1])]


if __name__ == "__main__":
    main()
