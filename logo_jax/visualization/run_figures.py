"""What a run shows of itself: pictures from its config, its data and its checkpoint."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from logo_jax.augment.color import AugmentSpec
from logo_jax.augment.multi_crop import crop_boxes
from logo_jax.data.eval_crops import evenly_spaced
from logo_jax.data.load import ExperimentData
from logo_jax.data.loader import Examples
from logo_jax.data.sources.base import NO_LABEL, ImageSource
from logo_jax.evaluation import nearest_neighbors
from logo_jax.evaluation.features import Features
from logo_jax.experiment.experiment import make_eval_crops
from logo_jax.experiment.pretrained import FrozenEncoder
from logo_jax.experiment.spec import ExperimentSpec
from logo_jax.losses import l2_normalize
from logo_jax.visualization.embedding_map import feature_map
from logo_jax.visualization.figure import RenderedFigure
from logo_jax.visualization.image_grids import (
    CropExample,
    NeighborExamples,
    neighbor_grid,
)

NUM_QUERIES, NUM_NEIGHBOURS = 6, 8
NUM_BANK = 2000  # images that neighbours are looked for in, and that the map shows


# What runs once, on a few images, had better be compiled quickly than well.
AT_ONCE = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


class EvalImages(NamedTuple):
    """Images as an encoder is evaluated on them.

    Attributes:
        images: uint8 [n, h, w, 3].
        features: [n, d].
        labels: int32 [n]; NO_LABEL where unknown, or where there may be several.
    """

    images: np.ndarray
    features: np.ndarray
    labels: np.ndarray


def crop_examples(spec: ExperimentSpec, examples: Examples) -> list[CropExample]:
    """The crops that training cuts of some images in its first epoch.

    Args:
        spec: of one seed.
        examples: of the images.
    """

    @functools.partial(jax.jit, compiler_options=AT_ONCE)
    def cut(key, examples):
        epoch_key = jax.random.fold_in(key, 0)
        boxes = crop_boxes(epoch_key, examples.ids, examples.sizes, **spec.crops)
        return jnp.concatenate(boxes, axis=1), spec.make_batch(key, examples, 0)

    boxes, batch = cut(spec.keys("crops"), jax.tree.map(jnp.asarray, examples))
    rows = zip(
        examples.images,
        examples.sizes,
        np.asarray(boxes),
        as_shown(batch.global_crops, spec.config.augment),
        as_shown(batch.local_crops, spec.config.augment),
        strict=True,
    )
    return [
        CropExample(_off_canvas(image, size), (int(size[0]), int(size[1])), *rest)
        for image, size, *rest in rows
    ]


def as_shown(crops: jax.Array, augment: AugmentSpec) -> np.ndarray:
    """Normalised crops [.., 3] as colours in [0, 1]."""
    colours = np.asarray(crops) * np.array(augment.std) + np.array(augment.mean)
    return colours.clip(0, 1).astype(np.float32)


def _off_canvas(image: np.ndarray, size: np.ndarray) -> np.ndarray:
    """What a canvas holds of an image of that size, without what is beside it."""
    height, width = np.minimum(size, image.shape[:2])
    return image[:height, :width]


def feature_figures(
    name: str, subject: FrozenEncoder, data: ExperimentData
) -> list[RenderedFigure]:
    """Nearest neighbours of some images, and a map of the features.

    Without a labelled test set the training images ask for one another.

    Args:
        name: put before the names of the pictures' files.
        subject: of one seed.
        data: of its run.
    """
    bank = _see(subject, data.bank or data.train, NUM_BANK)
    if data.queries:
        asked = _see(subject, data.queries, NUM_QUERIES)
    else:
        rows = evenly_spaced(len(bank.images), NUM_QUERIES)
        asked = EvalImages(*(x[rows] for x in bank))
    classes = getattr(data.train, "class_names", ())
    found = nearest(asked, bank, subject.mesh, selves=data.queries is None)
    return [
        neighbor_grid(f"{name}neighbours", found, classes),
        feature_map(f"{name}features", bank.features, bank.labels, classes),
    ]


def _see(subject: FrozenEncoder, images: ImageSource, limit: int) -> EvalImages:
    cut = make_eval_crops(subject.spec, images, limit)
    pixels = np.concatenate([part for part, _ in cut.batches()])
    features, labels = subject.features_of(cut)
    if labels.ndim > 1:
        labels = np.full(len(labels), NO_LABEL, np.int32)
    return EvalImages(pixels, features, labels)


def nearest(
    asked: EvalImages, bank: EvalImages, mesh: Mesh, *, selves: bool
) -> NeighborExamples:
    """The images of the bank most similar to each.

    Args:
        asked: images that neighbours are looked for.
        bank: where they are looked for.
        mesh: devices that look.
        selves: whether those who ask are in the bank; none is its own neighbour then.
    """
    count = min(NUM_NEIGHBOURS, len(bank.images) - selves)
    known = nearest_neighbors.make_bank(Features(bank.features, bank.labels), mesh)
    queries = nearest_neighbors.replicate(asked.features, mesh)
    find = jax.jit(
        lambda queries: nearest_neighbors.nearest(
            l2_normalize(queries), known, count + selves
        )
    )
    cosines, rows = (np.asarray(x)[:, int(selves) :] for x in find(queries))
    return NeighborExamples(
        asked.images, asked.labels, bank.images[rows], bank.labels[rows], cosines
    )
