"""Figures of a run: its crops, nearest neighbors and embedding map."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from logo_jax.augment.color import BYTES, AugmentSpec
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
from logo_jax.parallel.mesh import replicate
from logo_jax.visualization.embedding_map import feature_map
from logo_jax.visualization.figure import RenderedFigure
from logo_jax.visualization.image_grids import (
    CropExample,
    NeighborExamples,
    neighbor_grid,
)

NUM_QUERIES, NUM_NEIGHBORS = 6, 8
NUM_BANK = 2000  # images that are searched for neighbors and shown on the map


# Compile without optimization, because the program runs once, on a few images.
COMPILE_QUICKLY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


class EvalImages(NamedTuple):
    """Images cropped for evaluation, with features and labels.

    Attributes:
        images: images, uint8 [n, h, w, 3].
        features: features of the images, [n, d].
        labels: classes, int32 [n]; NO_LABEL if unknown or multi-label.
    """

    images: np.ndarray
    features: np.ndarray
    labels: np.ndarray


def crop_examples(spec: ExperimentSpec, examples: Examples) -> list[CropExample]:
    """Returns the crops of some images in the first epoch of training.

    Args:
        spec: spec of an experiment with one seed.
        examples: images on canvases, with their sizes and numbers in the data set.
    """

    @functools.partial(jax.jit, compiler_options=COMPILE_QUICKLY)
    def cut(key, examples):
        epoch_key = jax.random.fold_in(key, 0)
        boxes = crop_boxes(epoch_key, examples.ids, examples.sizes, **spec.crops)
        return jnp.concatenate(boxes, axis=1), spec.make_batch(key, examples, 0)

    boxes, batch = cut(spec.keys("crops"), jax.tree.map(jnp.asarray, examples))
    rows = zip(
        examples.images,
        examples.sizes,
        np.asarray(boxes),
        to_pixels(batch.global_crops, spec.config.augment.policy),
        to_pixels(batch.local_crops, spec.config.augment.policy),
        strict=True,
    )
    return [
        CropExample(
            stored_pixels(_off_canvas(image, size), spec.config.augment.policy),
            (int(size[0]), int(size[1])),
            *rest,
        )
        for image, size, *rest in rows
    ]


def to_pixels(crops: jax.Array, augment: AugmentSpec) -> np.ndarray:
    """Undoes the normalization of crops [..., c]; returns colors in [0, 1]."""
    pixels = np.asarray(crops) * np.array(augment.std) + np.array(augment.mean)
    return as_colors(pixels.clip(0, 1).astype(np.float32))


def stored_pixels(images: np.ndarray, augment: AugmentSpec) -> np.ndarray:
    """Returns stored images [..., c] as colors, uint8 [..., 3]."""
    if images.dtype == np.uint8 and augment.value_range == BYTES:
        return as_colors(images)
    low, high = augment.value_range
    units = ((images.astype(np.float32) - low) / (high - low)).clip(0, 1)
    return as_colors(np.round(255 * units).astype(np.uint8))


def as_colors(pixels: np.ndarray) -> np.ndarray:
    """Returns the channels that are shown: the first three, or the first as gray."""
    if pixels.shape[-1] >= 3:
        return pixels[..., :3]
    return np.repeat(pixels[..., :1], 3, axis=-1)


def _off_canvas(image: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Returns the image of the given size without the padding of its canvas."""
    height, width = np.minimum(size, image.shape[:2])
    return image[:height, :width]


def feature_figures(
    name: str, frozen: FrozenEncoder, data: ExperimentData
) -> list[RenderedFigure]:
    """Returns figures of the nearest neighbors of some images and of the embedding map.

    Queries are test images, or training images if there is no labeled test set.

    Args:
        name: prefix of the figures' file names.
        frozen: frozen encoder with one seed.
        data: training and test images of the encoder's run.
    """
    images = data.train if data.bank is None else data.bank
    bank = _encode(frozen, images, NUM_BANK)
    if data.queries is not None:
        queries = _encode(frozen, data.queries, NUM_QUERIES)
    else:
        rows = evenly_spaced(len(bank.images), NUM_QUERIES)
        queries = EvalImages(*(x[rows] for x in bank))
    classes = getattr(data.train, "class_names", ())
    in_bank = data.queries is None
    found = nearest(queries, bank, frozen.mesh, in_bank=in_bank)
    return [
        neighbor_grid(
            f"{name}neighbours",  # codespell:ignore neighbours
            found,
            classes,
        ),
        feature_map(f"{name}features", bank.features, bank.labels, classes),
    ]


def _encode(frozen: FrozenEncoder, images: ImageSource, limit: int) -> EvalImages:
    cut = make_eval_crops(frozen.spec, images, limit)
    policy = frozen.spec.config.augment.policy
    pixels = np.concatenate([stored_pixels(x, policy) for x, _ in cut.batches()])
    features, labels = frozen.features_of(cut)
    if labels.ndim > 1:
        labels = np.full(len(labels), NO_LABEL, np.int32)
    return EvalImages(pixels, features, labels)


def nearest(
    queries: EvalImages, bank: EvalImages, mesh: Mesh, *, in_bank: bool
) -> NeighborExamples:
    """Returns the nearest neighbors of each query in the bank by cosine similarity.

    Args:
        queries: images to find neighbors of.
        bank: images to search.
        mesh: devices that share the search.
        in_bank: whether the queries are in the bank; if so, the nearest neighbor of a
            query, which is the query itself, is left out.
    """
    count = min(NUM_NEIGHBORS, len(bank.images) - in_bank)
    searched = nearest_neighbors.make_bank(Features(bank.features, bank.labels), mesh)
    features = replicate(queries.features, mesh)
    find = jax.jit(
        lambda features: nearest_neighbors.nearest(
            l2_normalize(features), searched, count + in_bank
        )
    )
    cosines, rows = (np.asarray(x)[:, int(in_bank) :] for x in find(features))
    return NeighborExamples(
        queries.images, queries.labels, bank.images[rows], bank.labels[rows], cosines
    )
