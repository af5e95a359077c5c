"""Tar archives of a few bytes, and pictures to put in them."""

import io
import tarfile

import numpy as np
from PIL import Image


def tar_bytes(contents, mode="w"):
    """A tar archive of files, from their names and contents."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode=mode) as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def write_tar(file, contents):
    """Writes them where they belong; compressed if the name says so."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(tar_bytes(contents, "w:gz" if file.suffix == ".gz" else "w"))
    return file


def jpeg(grey, size=(8, 8)):
    """A JPEG file of one grey."""
    file = io.BytesIO()
    Image.fromarray(np.full((*size, 3), grey, np.uint8)).save(file, "JPEG")
    return file.getvalue()
