"""The quickstart's data set: patches of ten photographs, without a download.

The photographs are included in the wheels of scikit-image and scikit-learn. The class
of a patch is the photograph that the patch is cut from. Each photograph is divided into
square cells, and every fifth cell is for testing. Each patch is inside one cell, so the
splits share no pixel, but both cover all parts of every photograph.
"""

import functools
import importlib.util
import itertools
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from logo_jax.data.sources.base import SPLITS, ArraySource, require_split

PHOTOGRAPHS = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "coffee": ("skimage", "data/coffee.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "hubble_deep_field": ("skimage", "data/hubble_deep_field.jpg"),
    "ihc": ("skimage", "data/ihc.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "retina": ("skimage", "data/retina.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
}
SHORT_SIDE = 320
_DISTRIBUTIONS = {"skimage": "scikit-image", "sklearn": "scikit-learn"}


def load_photographs(
    split: str,
    *,
    patch: int = 32,
    train_per_photograph: int = 450,
    test_per_photograph: int = 100,
    seed: int = 0,
) -> ArraySource:
    """Cuts patches from every photograph; consecutive rows cycle through the classes.

    Args:
        split: "train" or "test".
        patch: side of a patch in pixels, after each photograph has been resized to a
            short side of SHORT_SIDE.
        train_per_photograph: number of distinct training patches per photograph.
        test_per_photograph: number of distinct test patches per photograph.
        seed: seed of the random choice of patches.

    Raises:
        ValueError: if the split is unknown, `patch` is not positive, or a photograph
            has fewer distinct patches than requested.
        FileNotFoundError: if a photograph is missing from the installation.
    """
    require_split(split)
    count = train_per_photograph if split == "train" else test_per_photograph
    patches = []
    for label, name in enumerate(PHOTOGRAPHS):
        rng = np.random.default_rng((seed, label, SPLITS.index(split)))
        pixels = read_photograph(name)
        height, width, _ = pixels.shape
        corners = patch_corners(height, width, split, patch=patch)
        if not 0 < count <= len(corners):
            raise ValueError(
                f"the number of {split} patches of {patch} px from {name} must be "
                f"between 1 and {len(corners)}, got {count}"
            )
        patches.append(
            cut_patches(pixels, rng.permutation(corners)[:count], patch=patch)
        )
    images = np.stack(patches, axis=1).reshape(-1, patch, patch, 3)
    labels = np.tile(np.arange(len(PHOTOGRAPHS)), count)
    return ArraySource(
        images, labels, origin="photographs", class_names=tuple(PHOTOGRAPHS)
    )


@functools.cache  # both splits are cut from it; all photographs take 5 MB
def read_photograph(name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Reads a photograph, resized to a short side of SHORT_SIDE pixels.

    Raises:
        FileNotFoundError: if the photograph is missing from the installation.
    """
    with Image.open(locate_photograph(name)) as photograph:
        scale = SHORT_SIDE / min(photograph.size)
        size = (round(photograph.width * scale), round(photograph.height * scale))
        resample = Image.Resampling.LANCZOS
        return np.asarray(photograph.convert("RGB").resize(size, resample))


def cells(
    height: int, width: int, split: str, *, cell: int
) -> Int[np.ndarray, "n row_column"]:
    """Returns the top left corners of a split's cells in a photograph, in pixels.

    Neighboring test cells are a knight's move apart, so that any five consecutive cells
    of a row or a column contain exactly one test cell. Pixels to the right of and below
    the last whole cell are in no split.
    """
    is_test = split == "test"
    grid = itertools.product(range(height // cell), range(width // cell))
    chosen = [(r, c) for r, c in grid if ((2 * r + c) % 5 == 1) == is_test]
    return cell * np.array(chosen, np.int64).reshape(-1, 2)


def patch_corners(
    height: int, width: int, split: str, *, patch: int
) -> Int[np.ndarray, "n row_column"]:
    """Returns the top left corners of all patches inside a split's cells, in pixels.

    The side of a cell is one and a half times that of a patch.

    Raises:
        ValueError: if patch is not positive.
    """
    if patch < 1:
        raise ValueError(f"patch must be a positive number of pixels, got {patch}")
    cell = patch + patch // 2
    shifts = np.indices([cell - patch + 1] * 2).reshape(2, -1).T
    corners = cells(height, width, split, cell=cell)[:, None] + shifts
    return corners.reshape(-1, 2)


def cut_patches(
    pixels: UInt8[np.ndarray, "h w 3"],
    corners: Int[np.ndarray, "n row_column"],
    *,
    patch: int,
) -> UInt8[np.ndarray, "n {patch} {patch} 3"]:
    """Cuts the patches at the given top left corners."""
    return np.stack([pixels[r : r + patch, c : c + patch] for r, c in corners.tolist()])


def locate_photograph(name: str) -> Path:
    """Returns the path of a photograph in the Python package that includes it.

    Raises:
        FileNotFoundError: if the package is not installed or does not have the file.
    """
    package, path = PHOTOGRAPHS[name]
    # find_spec does not import the package: importing scikit-learn alone takes longer
    # than reading all photographs.
    spec = importlib.util.find_spec(package)
    folder = spec and spec.submodule_search_locations
    file = Path(folder[0], path) if folder else Path(package, path)
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is missing; reinstall {_DISTRIBUTIONS[package]} with pip"
        )
    return file
