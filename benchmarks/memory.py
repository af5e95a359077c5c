"""Measures the host memory of saving a checkpoint and of streaming (Linux only).

    python -m benchmarks.memory [--config=imagenet100_r50_moco:released] [--batches=12]

Checkpoint: the state of a config, with random numbers, which cannot be compressed, is
saved once. Reported is the peak memory minus the memory before, in copies of the state.

Streaming: JPEGs of 500x375 pixels are read to canvases of side `--canvas`, in batches
of `--batch`. Reported is the peak memory in MB minus the memory before the first batch,
and the part of it beyond the decoded batches that may be in flight: one per thread,
those being sent or used, and their copies on the device, which on a CPU are in host
memory.

Prints one JSON line for each.
"""

import argparse
import json
import os
import pathlib
import tempfile
from collections.abc import Sequence

import jax
import numpy as np

from benchmarks.jpegs import IMAGENET_LIKE, photographs
from logo_jax import configs
from logo_jax.data.loader import StepReader, StreamingLoader
from logo_jax.data.sources.folder import load_folder
from logo_jax.experiment import make_spec
from logo_jax.parallel.mesh import batch_sharding, make_mesh
from logo_jax.training.checkpoints.manager import CheckpointManager

MB = 10**6
ON_THE_WAY = 3  # batches: read and not yet sent, sent and not yet used, in use


def held(field: str) -> float:
    """Returns memory in MB: VmRSS is current, VmHWM the peak since `forget`."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / MB
    raise ValueError(f"/proc/self/status has no {field}; this benchmark needs Linux")


def forget() -> None:
    """Resets the peak."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def saving(config: str) -> dict:
    """Measures the first save of a config's state; a second save reuses memory."""
    shapes = jax.eval_shape(make_spec(configs.load(config), num_devices=1).init)
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda x: jax.device_put(noise(rng, x)), shapes)
    size = sum(x.nbytes for x in jax.tree.leaves(state)) / MB
    with tempfile.TemporaryDirectory() as out, CheckpointManager(out) as checkpoints:
        checkpoints.save(
            0, {"x": np.zeros(1)}
        )  # loads modules that the first save needs
        checkpoints.wait()
        forget()
        before = held("VmRSS")
        checkpoints.save(1, state)
        returned = held("VmHWM") - before
        checkpoints.wait()
        written = held("VmHWM") - before
    return {
        "checkpoint_mb": round(size),
        "copies_when_saved": round(returned / size, 2),
        "copies_until_written": round(written / size, 2),
    }


def noise(rng: np.random.Generator, like: jax.ShapeDtypeStruct) -> np.ndarray:
    """Returns random bytes as an array of a shape and dtype."""
    size = int(np.prod(like.shape)) * like.dtype.itemsize
    return np.frombuffer(rng.bytes(size), like.dtype).reshape(like.shape)


def streaming(canvas: int, batch: int, batches: int, threads: int) -> dict:
    """Measures the memory of streaming a number of batches."""
    with tempfile.TemporaryDirectory() as out:
        source = load_folder(write_images(pathlib.Path(out), batch))[0]
        loader = StreamingLoader(
            StepReader(source, (canvas, canvas), batch, (0,)),
            batch_sharding(make_mesh(jax.devices()[:1])),
            max_corrupt=0.0,
            threads=threads,
        )
        jax.block_until_ready(jax.numpy.zeros(()))  # initializes the device
        forget()
        before = held("VmRSS")
        for examples, _ in loader.batches(0, batches):
            jax.block_until_ready(examples.images)
        peak = held("VmHWM") - before
    size = batch * canvas * canvas * 3 / MB
    flight = size * (threads + ON_THE_WAY)
    return {
        "batch_mb": round(size),
        "in_flight_mb": round(flight),
        "peak_mb": round(peak),
        "beyond_mb": round(peak - flight),
    }


def write_images(root: pathlib.Path, count: int) -> pathlib.Path:
    """Writes a folder of `count` photographs of one class; returns the folder."""
    encoded = photographs(IMAGENET_LIKE)
    (root / "class").mkdir()
    for i in range(count):
        (root / "class" / f"{i}.jpg").write_bytes(encoded[i % len(encoded)])
    return root


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", default="imagenet100_r50_moco:released")
    parser.add_argument("--canvas", type=int, default=512)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    flags = parser.parse_args(arguments)
    found = streaming(flags.canvas, flags.batch, flags.batches, flags.threads)
    print(json.dumps(vars(flags) | found), flush=True)
    print(json.dumps({"config": flags.config} | saving(flags.config)))


if __name__ == "__main__":
    main()
