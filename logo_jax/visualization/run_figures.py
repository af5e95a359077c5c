"""Figures of a run's features: nearest neighbors and embedding map."""

from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from logo_jax.data.eval_crops import evenly_spaced
from logo_jax.data.load import ExperimentData
from logo_jax.data.sources.base import NO_LABEL, ImageSource
from logo_jax.evaluation import nearest_neighbors
from logo_jax.evaluation.features import Features
from logo_jax.experiment.experiment import make_eval_crops
from logo_jax.experiment.pretrained import FrozenEncoder
from logo_jax.visualization.embedding_map import feature_map
from logo_jax.visualization.neighbor_grid import NeighborExamples, neighbor_grid
from logo_jax.visualization.rendered import RenderedFigure
from logo_jax.visualization.run_crops import stored_pixels

NUM_QUERIES, NUM_NEIGHBORS = 6, 8
NUM_BANK = 2000  # images that are searched for neighbors and shown on the map


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
    found = nearest_neighbors.search(queries.features, searched, count + in_bank)
    cosines, rows = (x[:, int(in_bank) :] for x in found)
    return NeighborExamples(
        queries.images, queries.labels, bank.images[rows], bank.labels[rows], cosines
    )
