"""Every method and variant on CIFAR-10 at a size two CPU cores finish, over seeds.

    python benchmarks/methods.py OUT --steps=200 --seeds=3 [--config flags for all runs]

Trains each (method, variant, seed) in a folder of OUT, skips what is finished, resumes
what was interrupted, and prints a table: kNN of each cell, mean and standard deviation
over seeds, and its difference from the baseline of the same seed.
"""

import argparse
import itertools
import json
import pathlib
import statistics
import subprocess
import sys

VARIANTS = ("baseline", "multicrop", "all_pairs", "logo")
CELLS = [
    *itertools.product(("simsiam", "moco", "byol"), VARIANTS),
    ("swav", "baseline"),
    ("swav", "multicrop"),
]
SMALL = {
    "encoder.backbone": "resnet10",
    "encoder.width": 16,
    "encoder.head_hidden": 256,
    "data.batch_size": 128,
    "optimizer.learning_rate": 0.2,
    "train.log_every_steps": 10,
    "monitor.train_examples": 10000,
    "monitor.test_examples": 2000,
}
OF_METHOD = {
    "simsiam": {"encoder.embedding_dim": 256, "method.predictor_hidden": 64},
    "moco": {},
    "byol": {"encoder.embedding_dim": 128, "method.predictor_hidden": 256},
    # LARS and its warm-up are made for longer runs and larger batches
    "swav": {
        "method.num_prototypes": 128,
        "method.frozen_epochs": 0.1,
        "optimizer.name": "sgd",
        "optimizer.warmup_epochs": 0.0,
    },
}
PROTOCOLS = ("knn/k20_t0.07/top1", "knn/k200_t0.1/top1")


def main() -> None:
    """Runs what is missing, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="run nothing")
    options, flags = parser.parse_known_args()
    for seed in range(options.seeds if not options.table else 0):
        for method, variant in CELLS:
            train(options.out, method, variant, seed, options.steps, flags)
    print(table(options.out, options.steps, options.seeds))


def train(
    out: pathlib.Path, method: str, variant: str, seed: int, steps: int, flags: list
) -> None:
    """One run, unless it is finished."""
    folder = out / f"{method}_{variant}_{seed}"
    if accuracy(folder, steps, PROTOCOLS[0]) is not None:
        return
    area = "(0.2,1.0)" if variant == "baseline" else "(0.4,1.0)"
    num_local = 0 if variant == "baseline" else 2
    fields = SMALL | OF_METHOD[method]
    fields |= {
        "seed": seed,
        "crops.global_crops": f"(2,16,{area})",
        "crops.local_crops": f"({num_local},16,(0.08,0.6))",
        "train.num_steps": steps,
        "train.checkpoint_every_steps": steps,
        "monitor.knn_every_steps": steps // 2,
    }
    command = [sys.executable, "-m", "logo_jax.main", "--quiet"]
    command += [f"--config=configs/cifar10_{method}.py:{variant}"]
    command += [f"--workdir={folder}"]
    command += [f"--config.{name}={value}" for name, value in fields.items()]
    subprocess.run([*command, *flags], check=True)


def accuracy(folder: pathlib.Path, step: int, protocol: str) -> float | None:
    """The run's kNN after a step, in percent; None where it has none yet."""
    file = folder / "metrics.jsonl"
    rows = map(json.loads, file.read_text().splitlines()) if file.exists() else ()
    found = [row[protocol] for row in rows if row["step"] == step and protocol in row]
    return found[0] if found else None


def table(out: pathlib.Path, steps: int, seeds: int) -> str:
    """A Markdown table of all cells that have a run."""
    lines = ["| method | variant | n | k=20, T=0.07 | k=200, T=0.1 | over baseline |"]
    lines += ["|---|---|---|---|---|---|"]
    for method, variant in CELLS:
        by_protocol = [
            paired(out, method, variant, steps, seeds, protocol)
            for protocol in PROTOCOLS
        ]
        values, differences = by_protocol[0]
        if values:
            columns = [spread(values), spread(by_protocol[1][0]), spread(differences)]
            lines += [
                f"| {method} | {variant} | {len(values)} | {' | '.join(columns)} |"
            ]
    return "\n".join(lines)


def paired(
    out: pathlib.Path, method: str, variant: str, steps: int, seeds: int, protocol: str
) -> tuple[list[float], list[float]]:
    """Accuracies over seeds, and their differences from the same seed's baseline."""
    values, differences = [], []
    for seed in range(seeds):
        own, base = (
            accuracy(out / f"{method}_{name}_{seed}", steps, protocol)
            for name in (variant, "baseline")
        )
        if own is not None:
            values.append(own)
            differences += [own - base] if base is not None else []
    return values, differences


def spread(values: list[float]) -> str:
    """Mean and, of two or more, standard deviation of a sample."""
    if not values:
        return ""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


if __name__ == "__main__":
    main()
