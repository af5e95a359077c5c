"""Writes an index of random features and searches it: seconds and memory (Linux only).

    python -m benchmarks.index [--images=1000000] [--width=128] [--k=10]

Prints one JSON line: seconds to write the index and to search it for 1 and for 256
queries, the second time each, the size of the file, and the peak memory of writing and
of searching in MB, minus the memory before.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.memory import MB, forget, held
from logo_jax.evaluation import feature_index

AT_ONCE = 1000  # images


def parts(images: int, width: int) -> Iterator[feature_index.Entries]:
    """Yields random features of images, a few at a time."""
    rng = np.random.default_rng(0)
    for start in range(0, images, AT_ONCE):
        rows = range(start, min(start + AT_ONCE, images))
        features = rng.standard_normal((len(rows), width), np.float32)
        files = [f"some/folder/image_{i:08}.jpg" for i in rows]
        yield feature_index.Entries(files, [None] * len(rows), features)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--k", type=int, default=10)
    options = parser.parse_args(arguments)
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.index")
        forget()
        before, start = held("VmRSS"), time.perf_counter()
        feature_index.write(path, {}, parts(options.images, options.width))
        result["write_s"] = round(time.perf_counter() - start, 2)
        result["write_peak_mb"] = round(held("VmHWM") - before)
        result["file_mb"] = round(path.stat().st_size / MB)
        index = feature_index.read(path)
        forget()
        before = held("VmRSS")
        for count in (1, 1, 256, 256):
            queries = np.random.default_rng(0).standard_normal(
                (count, options.width), np.float32
            )
            start = time.perf_counter()
            _, rows = index.nearest(queries, options.k)
            result[f"search_{count}_s"] = round(time.perf_counter() - start, 2)
            # the first rows of the index are the queries
            assert rows[:, 0].tolist() == list(range(count))
        result["search_peak_mb"] = round(held("VmHWM") - before)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
