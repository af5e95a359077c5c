"""Adds the encoder of a run to the zoo: weights, description, results and log.

    python -m logo_jax.evaluate --workdir=RUN --protocol=knn --trivial_baselines
    python -m logo_jax.evaluate --workdir=RUN --protocol=linear --recipe=features
    python -m benchmarks.add_to_zoo RUN NAME CONFIG --side=32

The results are those of all evaluations of the run on its own data set. CONFIG is the
config with its variant, for the description. SIDE is the side of the images, in pixels.
"""

import argparse
import hashlib
import json
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Sequence

import logo_jax
from logo_jax import convert, zoo

MOST_BYTES = 3_000_000


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("name")
    parser.add_argument("config")
    parser.add_argument("--side", type=int, required=True)
    flags = parser.parse_args(arguments)
    subject = convert.read(flags.run)
    with tempfile.TemporaryDirectory() as folder:
        made = pathlib.Path(folder) / "encoder.safetensors"
        convert.convert(subject, convert.TARGETS["torchvision"], made)
        content = made.read_bytes()
    if len(content) > MOST_BYTES:
        sys.exit(f"{flags.run} has {len(content):,} bytes, more than {MOST_BYTES:,}")
    assert subject.augment is not None
    reports = {
        file.stem: json.loads(file.read_text())
        for file in sorted((flags.run / "evaluations").glob("*.json"))
    }
    found = {
        "config": flags.config,
        "step": logo_jax.load_encoder(flags.run).step,
        "resize": flags.side,
        "crop": flags.side,
        "mean": subject.augment.mean,
        "std": subject.augment.std,
        "sha256": hashlib.sha256(content).hexdigest(),
        "results": {
            name: {
                "protocol": report["protocol"],
                "values": {key: round(x, 2) for key, x in report["values"].items()},
                "splits": report["splits"],
            }
            for name, report in reports.items()
        },
    }
    weights = zoo.FOLDER / f"{flags.name}.safetensors"
    weights.write_bytes(content)
    text = json.dumps(found, indent=1)
    (zoo.FOLDER / f"{flags.name}.json").write_text(text + "\n", encoding="utf-8")
    shutil.copy(flags.run / "metrics.csv", zoo.FOLDER / f"{flags.name}.csv")
    print(f"{weights}: {len(content):,} bytes, SHA-256 {found['sha256']}")


if __name__ == "__main__":
    main()
