"""Two figures that compare the learned affinity of a run with the cosine similarity.

The first figure compares one crop with 40 other crops, ten of each of four classes, as
in the paper; if images have no classes, ten crops of each of four images are used. The
second figure plots both measures against the overlap (IoU) of the boxes of two local
crops of an image, for 512 pairs. Crops are cut like the local crops of the run, but
without color augmentation and flips. Batch norms use running statistics for embeddings
and for scores.
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
from logo_jax.data.load import load_images, load_unsplit
from logo_jax.data.sources.base import ImageSource, class_of
from logo_jax.experiment import pretrained
from logo_jax.experiment.pretrained import FrozenEncoder
from logo_jax.losses import cosine_affinity
from logo_jax.methods import LearnedAffinity
from logo_jax.methods.base import ENCODER
from logo_jax.parallel.keys import make_key
from logo_jax.parallel.mesh import all_devices, make_mesh
from logo_jax.training.workdir import read_config
from logo_jax.visualization import similarity_plot
from logo_jax.visualization.figure import class_name
from logo_jax.visualization.rendered import RenderedFigure
from logo_jax.visualization.run_crops import to_pixels
from logo_jax.visualization.similarity_plot import Comparison, Scores

NUM_GROUPS, EACH = 4, 10
# Classes are looked up for this many images only: reading a class from TFDS reads the
# image, too.
NUM_LOOKED_AT = 2000
NUM_PAIRS = 512
BATCH_SIZE = 64  # pairs per encoder call


class LocalCrops(NamedTuple):
    """Crops of images, and their boxes.

    Attributes:
        crops: normalized crops, [n, count, s, s, 3].
        boxes: (top, left, height, width) in pixels of the images, [n, count, 4].
    """

    crops: jax.Array
    boxes: np.ndarray


def make_figures(
    workdir: Path, *, images: Path | None = None, seed: int | None = None, draw: int = 0
) -> tuple[str, list[RenderedFigure]]:
    """Returns a line that names checkpoint and data, and both figures of a run.

    Args:
        workdir: work folder of the run.
        images: folder of images to use instead of the run's images; its sub-folders are
            classes.
        seed: seed to use, if the run has several.
        draw: seed of the random crops.

    Raises:
        FileNotFoundError: if there is no run in the folder.
        ValueError: if the run has no learned affinity, or if images cannot be read.
    """
    config = read_config(workdir)
    mesh = make_mesh(all_devices()[:1])
    run = pretrained.from_run(workdir.absolute(), config, mesh)
    judge = AffinityScorer(run.of_seed(seed))
    source = _images(run, images)
    keys = jax.random.split(make_key(draw))
    figures = [
        similarity_plot.compared("similarity", compare(judge, source, keys[0])),
        similarity_plot.over_overlap("overlap", *over_overlaps(judge, source, keys[1])),
    ]
    return f"{run.source}, crops of {source.origin}", figures


class AffinityScorer:
    """Scores pairs of local crops by two similarities: learned affinity and cosine.

    The learned affinity is the output of LoGo's regressor, which the run has trained to
    score higher if both crops are of one image. The cosine is that of the embeddings.

    Args:
        frozen: frozen encoder with one seed.

    Raises:
        ValueError: if the run has no learned affinity.
    """

    def __init__(self, frozen: FrozenEncoder):
        affinity = getattr(frozen.spec.method, "affinity", None)
        if not (isinstance(affinity, LearnedAffinity) and affinity.trained):
            raise ValueError(
                "the run has learned no affinity, which needs config.logo.affinity="
                "'regressor' and config.logo.update_kind='joint' or 'released'; give "
                "the --workdir of a run with these settings"
            )
        self.spec = frozen.spec
        self._state = frozen.state
        self._score = jax.jit(self._scores)

    def cut(
        self, images: ImageSource, rows: np.ndarray, count: int, key: jax.Array
    ) -> LocalCrops:
        """Returns local crops of images, without color augmentation and flips.

        Args:
            images: images to crop.
            rows: indices of images, [n]; an index may be repeated and gets different
                crops each time.
            count: number of crops for each row.
            key: random key of the boxes.
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
        plain = spec.config.augment.policy.without_changes()
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
    """Scores a crop of the first image of the first group against all other crops."""
    names, rows = groups(images)
    rows = np.concatenate([rows[0, :1], rows.ravel()])
    crops = scorer.cut(images, rows, 1, key).crops[:, 0]
    reference = jnp.broadcast_to(crops[:1], crops[1:].shape)
    shown = to_pixels(crops, scorer.spec.config.augment.policy)
    return Comparison(shown[0], shown[1:], names, scorer.scores(reference, crops[1:]))


def groups(images: ImageSource) -> tuple[list[str], np.ndarray]:
    """Returns the names of the groups and the indices of their images, [groups, EACH].

    Groups are the first classes, each with evenly spaced images, which are repeated if
    a class has too few. If any image is unlabeled, each group is one image. Only
    NUM_LOOKED_AT images are read.
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
    """Scores pairs of crops of the same image, and pairs of crops of two images.

    Returns:
        The overlap (IoU) of the boxes of each pair of crops of the same image, [n]; the
        scores of these pairs; the scores of their first crops paired with a crop of
        another image.

    Raises:
        ValueError: if there is only one image.
    """
    if len(images) < 2:
        raise ValueError(f"{images.origin} has one image; give at least two images")
    rows = np.arange(NUM_PAIRS) * len(images) // NUM_PAIRS
    crops, boxes = scorer.cut(images, rows, 2, key)
    overlap = similarity_plot.overlaps(boxes[:, 0], boxes[:, 1])
    first, second = crops[:, 0], crops[:, 1]
    # shifting by half of the rows pairs each row with another image, even if images
    # are repeated
    others = jnp.roll(second, NUM_PAIRS // 2, axis=0)
    return overlap, scorer.scores(first, second), scorer.scores(first, others)


def _images(run: FrozenEncoder, given: Path | None) -> ImageSource:
    location = run.spec.config.data.location
    if given is not None:
        return load_unsplit(str(given), decoding=location.decoding)
    data = load_images(location)
    return data.train if data.queries is None else data.queries
