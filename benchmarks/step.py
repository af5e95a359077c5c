"""Images per second of the CIFAR ResNet-18 MoCo-LoGo step, beside PyTorch's.

python benchmarks/step.py --width=64 --batch_size=64 --peer=torch

Alternates released (ours), joint (ours) and the peer's released-style step on the same
crops, so that a busy machine touches all alike, and prints a table and one JSON line.
`--peer=torch` needs PyTorch (`-e ".[bench]"`; tested: 2.13.0), which logo_jax
imports for .pth alone.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from benchmarks.turns import alternate
from configs import cifar10_moco
from logo_jax import compose, step
from logo_jax.state import Batch


def crops_of(batch_size: int) -> Batch:
    """The same random crops for everyone, two global and two local of 32 px."""
    crops = np.random.default_rng(0).normal(size=(2, batch_size, 2, 32, 32, 3))
    return Batch(*crops.astype(np.float32))


def moco(update_kind: str, width: int) -> ConfigDict:
    """MoCo-LoGo on CIFAR-10 as one device without shuffling runs it."""
    config = cifar10_moco.get_config()
    config.logo.update_kind = update_kind
    config.encoder.width = width
    config.batch_norm = "per_device"
    config.method.shuffle = False
    return config


def ours(config: ConfigDict, batch: Batch) -> Callable[[], None]:
    """One step of ours, done when it returns."""
    config.data.batch_size = len(batch.global_crops)
    description = compose.describe(config, num_devices=1)
    mesh = step.make_mesh(jax.devices()[:1])
    compiled = step.make_train_step(
        description.method.update,
        lambda key, examples, epoch: examples,
        mesh,
        description.keys("crops", "steps"),
    )
    state = step.replicate(jax.jit(description.init)(), mesh)
    examples = jax.device_put(batch, step.batch_sharding(mesh))

    def run() -> None:
        nonlocal state
        state, metrics = compiled(state, examples, np.int32(0))
        jax.block_until_ready(metrics)

    return run


def peer(width: int, batch: Batch) -> Callable[[], None]:
    """One step of PyTorch's, as released."""
    import torch
    import torch_logo

    torch.manual_seed(0)
    released = torch_logo.ReleasedStep(width)
    crops = [
        torch.from_numpy(np.ascontiguousarray(group[:, i].transpose(0, 3, 1, 2)))
        for group in batch
        for i in range(2)
    ]
    crops = [crop.contiguous(memory_format=torch.channels_last) for crop in crops]
    return lambda: released(crops) and None


def rows(seconds: dict[str, list], batch_size: int) -> Iterator[dict]:
    """One row a step: images per second, and the ratio to the last in each round."""
    reference = list(seconds.values())[-1]
    for name, values in seconds.items():
        ratios = [theirs / mine for mine, theirs in zip(values, reference, strict=True)]
        yield {
            "step": name,
            "images_per_second": round(batch_size / statistics.median(values), 2),
            "speed_over_last": round(statistics.median(ratios), 3),
            "range": [round(min(ratios), 3), round(max(ratios), 3)],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", choices=["none", "torch"], default="none")
    flags = parser.parse_args()
    batch = crops_of(flags.batch_size)
    kinds = ("released", "joint")
    runs = {kind: ours(moco(kind, flags.width), batch) for kind in kinds}
    if flags.peer == "torch":
        runs["torch released"] = peer(flags.width, batch)
    table = list(rows(alternate(runs, flags.rounds), flags.batch_size))
    for row in table:
        print("{step:16s} {images_per_second:8.2f} images/s".format(**row), end="  ")
        print("{speed_over_last:.2f}x the last, {range}".format(**row))
    print(json.dumps({"jax": jax.__version__, **vars(flags), "rows": table}))


if __name__ == "__main__":
    main()
