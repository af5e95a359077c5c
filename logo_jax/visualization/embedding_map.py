"""Embedding map: features projected to two dimensions by PCA and UMAP."""

import importlib
import importlib.util
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from logo_jax.visualization.figure import class_name, png
from logo_jax.visualization.rendered import COLORS, RenderedFigure

MOST_CLASSES = len(COLORS)
OTHERS = "#c3c8d0"
LEAST_FOR_UMAP = 50  # minimum number of images for UMAP, which uses 15 neighbors


def feature_map(
    name: str,
    features: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    classes: Sequence[str] = (),
) -> RenderedFigure:
    """Returns a scatter plot of normalized features, projected by PCA.

    If umap is installed, a second scatter plot shows the projection by UMAP.

    Args:
        name: name of the file.
        features: features of n >= 2 images, in d >= 2 dimensions; they are normalized
            to unit length.
        labels: classes of the images; -1 if unknown.
        classes: class names by label.
    """
    from sklearn.decomposition import PCA  # takes a second to import

    units = features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
    pca = PCA(2, svd_solver="full")
    maps = {"PCA": pca.fit_transform(units)}
    if importlib.util.find_spec("umap") and len(units) >= LEAST_FOR_UMAP:
        maps["UMAP"] = _umap(units)
    shares = [100 * float(x) for x in np.nan_to_num(pca.explained_variance_ratio_)]
    shown = np.unique(labels[labels >= 0])[:MOST_CLASSES]

    def paint(figure: Figure) -> None:
        axes = figure.subplots(1, len(maps), squeeze=False)[0]
        for panel, (title, points) in zip(axes, maps.items(), strict=True):
            _scatter(panel, points, labels, shown)
            panel.set_title(title)
        axes[0].set(xlabel=f"first axis, {shares[0]:.1f} % of the variance")
        axes[0].set(ylabel=f"second axis, {shares[1]:.1f} % of the variance")
        if len(shown):
            words = [class_name(int(i), classes) for i in shown]
            handles = axes[0].collections[1:]
            figure.legend(handles, words, loc="outside right upper", markerscale=2.5)

    return RenderedFigure(
        name=name,
        title="Features on their principal axes",
        caption=f"Features of {len(features):,} images, normalized to unit length and "
        "projected onto their first two principal axes"
        + (f"; {len(shown)} of the classes are colored." if len(shown) else ".")
        + (" The second panel is a UMAP projection." if len(maps) > 1 else ""),
        alt=f"Scatter plot of {len(features):,} points; the axes explain "
        f"{shares[0]:.1f} and {shares[1]:.1f} % of the variance.",
        png=png((5.6 * len(maps) + 1.2, 5.0), paint),
    )


def _scatter(
    axes: Axes, points: np.ndarray, labels: np.ndarray, shown: np.ndarray
) -> None:
    rest = ~np.isin(labels, shown)
    axes.scatter(*points[rest].T, s=6, color=OTHERS, lw=0)
    for label, color in zip(shown, COLORS, strict=False):
        axes.scatter(*points[labels == label].T, s=8, color=color, alpha=0.7, lw=0)
    axes.set_aspect("equal", adjustable="datalim")


def _umap(units: np.ndarray) -> np.ndarray:
    umap = importlib.import_module("umap")
    return umap.UMAP(random_state=0, n_jobs=1).fit_transform(units)
