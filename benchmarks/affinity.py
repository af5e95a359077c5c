"""Measures what learned affinities tell of overlap, class and color, over training.

    python -m benchmarks.affinity OUT.jsonl RUN [RUN ...] [--pairs=2048] [--figure=FILE]

RUN is the folder of a run with a learned affinity, such as OUT/CELL_seed_0 of a sweep
whose cells keep all checkpoints. Each checkpoint is a line of OUT.jsonl, written when
it has been measured; a line that is there is not measured again. The affinity and the
cosine of the embeddings score the same pairs of local crops of the run's test images,
cut without color augmentation and flips:

    overlap    two crops of an image: rank correlation with the overlap of their boxes
    one image  how often such a pair scores above a pair of crops of two images
    class      two images: how often a pair of one class scores above a pair of two
    color      two images of two classes: rank correlation with how close the mean
               colors of the two crops are

Prints, for each cell and step, the mean over seeds, affinity first; chance is 0 for
correlations and 50 % for shares.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from logo_jax.data.load import load_images
from logo_jax.data.sources.base import ImageSource, class_of
from logo_jax.experiment import pretrained
from logo_jax.parallel.keys import make_key
from logo_jax.parallel.mesh import all_devices, make_mesh
from logo_jax.sweeps.table import as_table
from logo_jax.training.checkpoints.manager import saved_steps
from logo_jax.training.workdir import read_config
from logo_jax.visualization import curves
from logo_jax.visualization.similarity import AffinityScorer
from logo_jax.visualization.similarity_plot import (
    Scores,
    overlaps,
    rank_correlation,
    roc_auc,
)

MEASURES = ("affinity", "cosine")  # the fields of Scores
KINDS = ("overlap", "one image", "class", "color")


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs of images for crops, as indices of images.

    Attributes:
        same: images of which two crops are cut, [n].
        one_class: pairs of two images of one class, [n, 2].
        two_classes: pairs of two images of two classes, [n, 2].
    """

    same: np.ndarray
    one_class: np.ndarray
    two_classes: np.ndarray


def choose_pairs(labels: np.ndarray, count: int) -> Pairs:
    """Returns random pairs, the same for each call.

    Args:
        labels: class of each image, [images]; at least two classes.
        count: number of pairs of each kind.
    """
    rng = np.random.default_rng(0)
    pairs: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    while min(map(len, pairs.values())) < count:
        for i, j in rng.integers(len(labels), size=(count, 2)).tolist():
            if i != j:
                pairs[bool(labels[i] == labels[j])].append((i, j))
    return Pairs(
        rng.integers(len(labels), size=count),
        *(np.array(pairs[same][:count]) for same in (True, False)),
    )


def measured(
    scorer: AffinityScorer, images: ImageSource, pairs: Pairs
) -> dict[str, dict[str, float]]:
    """Returns each of KINDS for each of MEASURES.

    Args:
        scorer: affinity and encoder of a checkpoint.
        images: images to crop.
        pairs: pairs of these images.
    """
    keys = jax.random.split(make_key(0), 3)
    two, boxes = scorer.cut(images, pairs.same, 2, keys[0])
    overlap = overlaps(boxes[:, 0], boxes[:, 1])
    same = scorer.scores(two[:, 0], two[:, 1])
    (one_class, _), (two_classes, near) = (
        scores_of(scorer, images, rows, key)
        for rows, key in zip(
            (pairs.one_class, pairs.two_classes), keys[1:], strict=True
        )
    )
    return {
        measure: {
            "overlap": rank_correlation(overlap, own),
            "one image": roc_auc(own, apart),
            "class": roc_auc(together, apart),
            "color": rank_correlation(near, apart),
        }
        for measure, own, together, apart in zip(
            MEASURES, same, one_class, two_classes, strict=True
        )
    }


def scores_of(
    scorer: AffinityScorer, images: ImageSource, rows: np.ndarray, key: jax.Array
) -> tuple[Scores, np.ndarray]:
    """Returns scores of crops of two images, and how close their mean colors are.

    Args:
        scorer: affinity and encoder.
        images: images to crop.
        rows: indices of the two images of each pair, [n, 2].
        key: random key of the boxes.

    Returns:
        The scores, and the negative distance of the crops' mean colors, [n].
    """
    crops = scorer.cut(images, rows.ravel(), 1, key).crops[:, 0]
    first, second = crops[::2], crops[1::2]
    apart = np.asarray(first.mean((1, 2)) - second.mean((1, 2)))
    return scorer.scores(first, second), -np.linalg.norm(apart, axis=1)


def measure(run: pathlib.Path, done: set[int], count: int) -> Iterator[dict[str, Any]]:
    """Yields a row for each checkpoint of a run whose step is not in `done`."""
    steps = [step for step in saved_steps(run / "checkpoints") if step not in done]
    if not steps:
        return
    config = read_config(run)
    mesh = make_mesh(all_devices()[:1])
    images: Any = None
    pairs = Pairs(*np.zeros((3, 0)))
    for step in steps:
        frozen = pretrained.from_run(run.absolute(), config, mesh, step=step)
        if images is None:
            data = load_images(frozen.spec.config.data.location)
            images = data.train if data.queries is None else data.queries
            labels = map(class_of, images.records(range(len(images))))
            pairs = choose_pairs(np.array(list(labels)), count)
        scorer = AffinityScorer(frozen)
        yield {"run": run.name, "step": step} | measured(scorer, images, pairs)


def averaged(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Returns the means over seeds, by cell, as rows of metrics named "KIND, MEASURE".

    >>> row = {"step": 2, "affinity": dict.fromkeys(KINDS, 0.5)}
    >>> row["cosine"] = row["affinity"]
    >>> found = averaged([row | {"run": "a_seed_0"}, row | {"run": "a_seed_1"}])
    >>> found["a"][0]["step"], found["a"][0]["overlap, cosine"], found["a"][0]["seeds"]
    (2, 0.5, 2)
    """
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        cell = row["run"].rpartition("_seed_")[0] or row["run"]
        groups.setdefault((cell, row["step"]), []).append(row)
    found: dict[str, list[dict[str, Any]]] = {}
    for (cell, step), own in sorted(groups.items()):
        mean: dict[str, Any] = {"step": step, "seeds": len(own)}
        for kind in KINDS:
            for name in MEASURES:
                values = [row[name][kind] for row in own]
                mean[f"{kind}, {name}"] = statistics.fmean(values)
                mean[f"{kind}, {name}/std"] = (
                    statistics.stdev(values) if len(own) > 1 else None
                )
        found.setdefault(cell, []).append(mean)
    return found


def table(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Returns a Markdown table; each cell has affinity, then cosine."""
    lines = [["cell", "step", "seeds", *KINDS]]
    for cell, rows in found.items():
        for row in rows:
            columns = []
            for kind in KINDS:
                values = [row[f"{kind}, {name}"] for name in MEASURES]
                share = kind in ("one image", "class")
                shown = [f"{100 * x:.0f} %" if share else f"{x:.2f}" for x in values]
                columns.append(", ".join(shown))
            lines.append([cell, str(row["step"]), str(row["seeds"]), *columns])
    return as_table(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("runs", type=pathlib.Path, nargs="*")
    parser.add_argument("--pairs", type=int, default=2048)
    parser.add_argument("--figure", type=pathlib.Path)
    options = parser.parse_args(arguments)
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    rows = [json.loads(line) for line in lines]
    for run in options.runs:
        done = {row["step"] for row in rows if row["run"] == run.name}
        for row in measure(run, done, options.pairs):
            rows.append(row)
            with options.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
    found = averaged(rows)
    print(table(found))
    if options.figure is not None:
        names = {f"{kind}, {name}" for kind in KINDS for name in MEASURES}
        group = curves.ACCURACY._replace(holds=names.__contains__)
        (drawn,) = curves.plot_curves(found, [group])
        options.figure.write_bytes(drawn.png)


if __name__ == "__main__":
    main()
