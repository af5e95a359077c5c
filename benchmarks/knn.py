"""Times exact kNN, compared with its matrix product alone and with PyTorch.

python -m benchmarks.knn --bank=50000 --queries=10000 --dim=512 --k=200 [--peer=torch]

Timed alternately, on the same random unit vectors: our search and votes; the same
products of the same tiles, without selection; and, with `--peer=torch`, `torch.mm` and
`topk` on batches of as many queries. Prints a table and one JSON line. `--peer=torch`
needs PyTorch (`-e ".[bench]"`), which logo_jax imports only for .pth files.
"""

import argparse
import json
import resource
import statistics
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import alternate
from logo_jax.evaluation.features import Features
from logo_jax.evaluation.knn import QUERIES_AT_ONCE, knn_accuracy
from logo_jax.evaluation.nearest_neighbors import make_bank, tiling
from logo_jax.parallel.mesh import make_mesh

NUM_CLASSES = 10


def unit_vectors(rng: np.random.Generator, size: int, dim: int) -> Features:
    x = rng.standard_normal((size, dim), np.float32)
    labels = rng.integers(0, NUM_CLASSES, size).astype(np.int32)
    return Features(x / np.linalg.norm(x, axis=1, keepdims=True), labels)


def ours(bank: Features, queries: Features, k: int) -> Callable[[], object]:
    """Returns a function that computes the kNN accuracy: transfer, search and votes."""
    settings = [(min(20, k), 0.07), (k, 0.1)]
    mesh = make_mesh()
    return lambda: knn_accuracy(
        bank, queries, settings, num_classes=NUM_CLASSES, mesh=mesh
    )


def product(bank: Features, queries: Features) -> Callable[[], object]:
    """Returns a function that computes the products only, tile by tile."""
    tiles = make_bank(bank, make_mesh()).tiles
    multiply = jax.jit(lambda x, tile: jnp.matmul(x, tile.T, precision="highest"))

    def run() -> None:
        for start in range(0, len(queries.features), QUERIES_AT_ONCE):
            rows = jnp.asarray(queries.features[start : start + QUERIES_AT_ONCE])
            for tile in tiles:
                jax.block_until_ready(multiply(rows, tile))

    return run


def peer(bank: Features, queries: Features, k: int) -> Callable[[], object]:
    """Returns PyTorch's product and selection on all cores, or on its first GPU."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows, asked = (torch.from_numpy(part.features) for part in (bank, queries))

    def run() -> None:
        on_device = rows.to(device)
        for part in asked.split(QUERIES_AT_ONCE):
            values, _ = torch.mm(part.to(device), on_device.T).topk(k, dim=1)
            values.cpu()

    return run


def report(seconds: dict[str, list[float]], flags: argparse.Namespace) -> dict:
    """Returns median seconds, and median ratios to ours within a round."""
    mine = seconds["ours"]
    result = {"jax": jax.__version__, "device": jax.devices()[0].device_kind}
    result |= vars(flags) | {"devices": len(jax.devices())}
    for name, values in seconds.items():
        ratios = [a / b for a, b in zip(values, mine, strict=True)]
        result[name] = {
            "seconds": round(statistics.median(values), 2),
            "over_ours": round(statistics.median(ratios), 3),
            "range": [round(min(ratios), 3), round(max(ratios), 3)],
        }
    _, rows = tiling(flags.bank, make_mesh().devices.size)
    result["tile_bytes"] = QUERIES_AT_ONCE * rows * 4
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return result | {"peak_rss_mb": peak // 1024}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, size in (("bank", 50000), ("queries", 10000), ("dim", 512), ("k", 200)):
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", choices=["none", "torch"], default="none")
    flags = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    bank = unit_vectors(rng, flags.bank, flags.dim)
    queries = unit_vectors(rng, flags.queries, flags.dim)
    runs = {"ours": ours(bank, queries, flags.k), "product": product(bank, queries)}
    if flags.peer == "torch":
        runs["torch"] = peer(bank, queries, flags.k)
    result = report(alternate(runs, flags.rounds), flags)
    for name in runs:
        row = "{seconds:8.2f} s  {over_ours:.2f} times ours, {range}"
        print(f"{name:10s}", row.format(**result[name]))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
