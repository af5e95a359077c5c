"""Learned affinity of a run's crops beside their cosine similarity: two figures.

One crop against 40 others, ten of each of four classes: the paper's figure; where
images have no classes, ten of each of four images. And both measures over the overlap
(IoU) of the boxes of two local crops of an image, for 512 pairs. Crops are cut as the
run's local ones, without changes of color and without mirroring; embeddings and
scores are by running statistics.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from logo_jax.augment import CropSpec, crop_boxes, make_views
from logo_jax.data.canvas import canvas_size, read_canvases
from logo_jax.data.eval_crops import evenly_spaced
from logo_jax.data.load import load_images
from logo_jax.data.sources.base import ImageSource, class_of
from logo_jax.data.sources.folder import load_unsplit_folder
from logo_jax.experiment import pretrained
from logo_jax.experiment.pretrained import FrozenEncoder
from logo_jax.losses import cosine_affinity
from logo_jax.methods import LearnedAffinity
from logo_jax.methods.base import ENCODER
from logo_jax.parallel.mesh import make_mesh
from logo_jax.training.workdir import read_config
from logo_jax.visualization import similarity_plot
from logo_jax.visualization.figure import RenderedFigure, class_name
from logo_jax.visualization.run_figures import to_pixels
from logo_jax.visualization.similarity_plot import Comparison, Scores

NUM_GROUPS, EACH = 4, 10
NUM_LOOKED_AT = 2000  # their classes; a record of TFDS comes with its image
NUM_PAIRS = 512
BATCH_SIZE = 64  # pairs that are encoded together


class LocalCrops(NamedTuple):
    """Crops of images, and their boxes.

    Attributes:
        crops: normalized, [n, count, s, s, 3].
        boxes: (top, left, height, width) in pixels of the images, [n, count, 4].
    """

    crops: jax.Array
    boxes: np.ndarray


def make_figures(
    workdir: Path, *, images: Path | None = None, seed: int | None = None, draw: int = 0
) -> tuple[str, list[RenderedFigure]]:
    """Both figures of a run, and a line that says what they were made of.

    Args:
        workdir: folder of the run.
        images: a folder of other images than the run's; its sub-folders are classes.
        seed: which one, of a run of several.
        draw: number of the random draw of crops.

    Raises:
        FileNotFoundError: where there is no run.
        ValueError: where it has learned no affinity, or images cannot be read.
    """
    config = read_config(workdir)
    mesh = make_mesh(jax.devices()[:1])
    run = pretrained.from_run(workdir.absolute(), config, mesh)
    judge = AffinityScorer(run.of_seed(seed))
    source = _images(run, images)
    keys = jax.random.split(jax.random.key(draw))
    figures = [
        similarity_plot.compared("similarity", compare(judge, source, keys[0])),
        similarity_plot.over_overlap("overlap", *over_overlaps(judge, source, keys[1])),
    ]
    return f"{run.source}, crops of {source.origin}", figures


class AffinityScorer:
    """Scores pairs of local crops by a run's learned affinity, and by cosine.

    Args:
        frozen: encoder of one seed.

    Raises:
        ValueError: if the run has no learned affinity.
    """

    def __init__(self, frozen: FrozenEncoder):
        affinity = getattr(frozen.spec.method, "affinity", None)
        if not (isinstance(affinity, LearnedAffinity) and affinity.trained):
            raise ValueError(
                "the run has learned no affinity: it needs config.logo.affinity="
                "'regressor' and config.logo.update_kind='joint' or 'released'; give "
                "the --workdir of one that has"
            )
        self.spec = frozen.spec
        self._state = frozen.state
        self._score = jax.jit(self._scores)

    def cut(
        self, images: ImageSource, rows: np.ndarray, count: int, key: jax.Array
    ) -> LocalCrops:
        """Local crops of images, without color changes and flips.

        Args:
            images: to crop.
            rows: numbers of images, [n]; each occurrence gets other crops.
            count: crops of each row.
            key: randomness of the boxes.
        """
        spec = self.spec
        stored = read_canvases(
            images, rows, canvas_size(images, spec.config.data.canvas)
        )
        local = spec.crops["local_crops"]
        specs = {
            "global_crops": dataclasses.replace(local, count=count),
            "local_crops": CropSpec(0, local.size, local.scale),
        }
        plain = dataclasses.replace(
            spec.config.augment,
            **dict.fromkeys(
                ("flip_prob", "jitter_prob", "grayscale_prob", "blur_prob"), 0.0
            ),
        )
        ids = jnp.arange(len(rows))
        pixels, sizes = jnp.asarray(stored.images), jnp.asarray(stored.sizes)
        views = jax.jit(functools.partial(make_views, **specs, augment=plain))
        crops, _ = views(key, pixels, sizes, ids)
        boxes, _ = crop_boxes(key, ids, sizes, **specs)
        return LocalCrops(crops, np.asarray(boxes))

    def scores(self, first: jax.Array, second: jax.Array) -> Scores:
        """Scores of pairs of crops [n, s, s, 3]; the affinity is symmetrized."""
        parts = [
            self._score(self._state, *(x[i : i + BATCH_SIZE] for x in (first, second)))
            for i in range(0, len(first), BATCH_SIZE)
        ]
        return Scores(*(np.concatenate(x) for x in zip(*parts, strict=True)))

    def _scores(self, state: Any, first: jax.Array, second: jax.Array) -> Any:
        encoder: Any = self.spec.encoder
        method: Any = self.spec.method
        variables = {
            "params": state.params[ENCODER],
            "batch_stats": state.batch_stats[ENCODER],
        }
        a, b = (
            encoder.apply(variables, crops, train=False) for crops in (first, second)
        )
        score = method.affinity.scores
        return (score(state, a, b) + score(state, b, a)) / 2, cosine_affinity(a, b)


def compare(scorer: AffinityScorer, images: ImageSource, key: jax.Array) -> Comparison:
    """Scores of a reference crop, of the first group's first image, with all crops."""
    names, rows = groups(images)
    rows = np.concatenate([rows[0, :1], rows.ravel()])
    crops = scorer.cut(images, rows, 1, key).crops[:, 0]
    reference = jnp.broadcast_to(crops[:1], crops[1:].shape)
    shown = to_pixels(crops, scorer.spec.config.augment)
    return Comparison(shown[0], shown[1:], names, scorer.scores(reference, crops[1:]))


def groups(images: ImageSource) -> tuple[list[str], np.ndarray]:
    """Names of the groups, and the numbers of their images, [groups, EACH].

    Groups are the first classes, with evenly spaced images, repeated if a class has too
    few. If any image is unlabeled, each group is one image instead. Only NUM_LOOKED_AT
    images are read.
    """
    looked_at = evenly_spaced(len(images), NUM_LOOKED_AT)
    labels = np.array(list(map(class_of, images.records(looked_at))))
    if (labels < 0).any():
        rows = evenly_spaced(len(images), NUM_GROUPS)
        return [f"image {i}" for i in rows], np.repeat(rows[:, None], EACH, axis=1)
    kinds = np.unique(labels)[:NUM_GROUPS]
    members = [looked_at[labels == kind] for kind in kinds]
    rows = [own[np.arange(EACH) * len(own) // EACH] for own in members]
    classes = getattr(images, "class_names", ())
    names = [class_name(int(kind), classes) for kind in kinds]
    return names, np.stack(rows)


def over_overlaps(
    scorer: AffinityScorer, images: ImageSource, key: jax.Array
) -> tuple[np.ndarray, Scores, Scores]:
    """Scores of pairs of crops of one image, and of two images.

    Returns:
        Overlap of the boxes of each pair of one image, [n]; scores of these pairs;
        scores of their first crops with a crop of another image.

    Raises:
        ValueError: if there is only one image.
    """
    if len(images) < 2:
        raise ValueError(f"{images.origin} has one image; give two or more to compare")
    rows = np.arange(NUM_PAIRS) * len(images) // NUM_PAIRS
    crops, boxes = scorer.cut(images, rows, 2, key)
    overlap = similarity_plot.overlaps(boxes[:, 0], boxes[:, 1])
    first, second = crops[:, 0], crops[:, 1]
    # half the rows further is another image, however often each is repeated
    others = jnp.roll(second, NUM_PAIRS // 2, axis=0)
    return overlap, scorer.scores(first, second), scorer.scores(first, others)


def _images(run: FrozenEncoder, given: Path | None) -> ImageSource:
    if given is not None:
        return load_unsplit_folder(given)
    data = load_images(run.spec.config.data.location)
    return data.train if data.queries is None else data.queries
