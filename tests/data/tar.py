"""Small tar archives, and JPEG files to store in them."""

import io
import tarfile

import numpy as np
from PIL import Image


def tar_bytes(contents, mode="w"):
    """Returns the bytes of a tar archive of files, given as {name: content}."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode=mode) as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def write_tar(file, contents):
    """Writes a tar archive of {name: content}; compressed if `file` ends in .gz."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(tar_bytes(contents, "w:gz" if file.suffix == ".gz" else "w"))
    return file


def jpeg(gray, size=(8, 8)):
    """Returns the bytes of a JPEG file of uniform gray."""
    file = io.BytesIO()
    Image.fromarray(np.full((*size, 3), gray, np.uint8)).save(file, "JPEG")
    return file.getvalue()
