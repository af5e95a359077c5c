"""Identifies the images of a run, so that a resumed run can tell if they changed."""

import functools
import zlib

import numpy as np

from logo_jax.data.load import ExperimentData
from logo_jax.data.sources.base import ArraySource, ImageSource, Subset
from logo_jax.data.sources.canvases import CanvasSource
from logo_jax.data.sources.folder import FolderSource
from logo_jax.data.sources.huggingface import HuggingFaceSource

Fingerprint = dict[str, dict[str, int | str]]


def fingerprint(data: ExperimentData) -> Fingerprint:
    """Returns the number of images and classes and a checksum of each part of the data.

    The parts are "train", "bank" (if it is not the training set) and "queries". The
    checksum is that of the names of files relative to their folder and of their labels,
    in order; of arrays, that of their values; of canvases, also that of their values,
    as they were written; of a TFDS data set, that of its name and
    classes. No file of an image is read.

    Args:
        data: images as they are loaded, before they are decoded.
    """
    parts = {"train": data.train, "bank": data.bank, "queries": data.queries}
    if data.bank is data.train:
        del parts["bank"]
    return {
        name: {
            "images": len(images),
            "classes": images.num_classes,
            "crc32": f"{_checksum(images):08x}",
        }
        for name, images in parts.items()
        if images is not None
    }


def _checksum(images: ImageSource) -> int:
    match images:
        case FolderSource():
            names = functools.reduce(
                lambda crc, part: zlib.crc32(part, crc),
                images.own_names().joined(b"\0"),
                0,
            )
            return zlib.crc32(images.labels.tobytes(), names)
        case ArraySource():
            pixels = zlib.crc32(np.ascontiguousarray(images.images).data)
            labels = np.array([] if images.labels is None else images.labels, np.int32)
            return zlib.crc32(labels.tobytes(), pixels)
        case HuggingFaceSource():
            return images.checksum()
        case CanvasSource():
            return images.crc32
        case Subset():
            ids = images.ids.astype(np.int64).tobytes()
            return zlib.crc32(ids, _checksum(images.source))
    names = (images.origin, *getattr(images, "class_names", ()))
    return zlib.crc32("\0".join(names).encode())
