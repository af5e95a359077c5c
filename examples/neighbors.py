"""For each image of a folder, the most similar other image by an encoder's features.

python -m examples.neighbors runs/quickstart photos
"""

import sys
from pathlib import Path

import numpy as np

import logo_jax


def main(source: str, folder: str) -> None:
    """Prints pairs of files and their cosine similarity, the most similar first."""
    files = [file for file in sorted(Path(folder).rglob("*")) if file.is_file()]
    encoder = logo_jax.load_encoder(source, resize=64, crop=64)
    features = encoder(files)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = unit @ unit.T - 2 * np.eye(len(unit))  # an image is not its own neighbor
    nearest = cosines.argmax(axis=1)
    for i in np.argsort(-cosines.max(axis=1)):
        print(f"{cosines[i, nearest[i]]:.3f} {files[i].name} {files[nearest[i]].name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
