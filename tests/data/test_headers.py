"""Headers of images, read without decoding their pixels."""

import numpy as np
from PIL import Image

from logo_jax.data import headers
from logo_jax.data.headers import Header, read_header, sample_sizes
from logo_jax.data.sources.base import ArraySource, Record
from logo_jax.data.sources.folder import load_folder
from tests.data.test_decode import PIXELS, UNKNOWN_DDS, encoded


def test_bytes_and_files_are_read_alike_and_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(headers, "decode", None)
    image = encoded(PIXELS, "JPEG")
    file = tmp_path / "0.jpg"
    file.write_bytes(image)
    height, width = PIXELS.shape[:2]
    expected = Header("JPEG RGB", height, width)
    assert read_header(Record(image, 0)) == read_header(Record(file, 0)) == expected
    reduced = Record(image, 0, size=(400, 500))
    assert read_header(reduced) == Header("JPEG RGB", 400, 500)


def test_arrays_have_their_own_kind():
    images = ArraySource(np.zeros((2, 5, 7, 3), np.uint8), origin="here")
    assert read_header(images.records([0])[0]) == Header("pixels", 5, 7)


def test_damaged_images_have_no_size(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"no picture")
    (tmp_path / "2.dds").write_bytes(UNKNOWN_DDS)
    source = load_folder(str(tmp_path)).train
    assert sample_sizes(source).tolist() == [[*PIXELS.shape[:2]]]
