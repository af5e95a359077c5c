"""Images of any number of channels, with their values as they are stored."""

import io
import itertools

import numpy as np
import pytest
import tifffile
from PIL import Image

from logo_jax.data.decode import DecodeError, center_crop, decode, decode_to_canvas
from logo_jax.data.measure import measure
from logo_jax.data.sources.base import ArraySource, Decoding
from logo_jax.data.sources.scan import scan
from tests.data.pictures import encoded

HERE = "tests.data.test_readers"
RNG = np.random.default_rng(0)


def kept(channels, dtype="auto", **changes):
    return Decoding(channels=channels, dtype=dtype, **changes)


def values(*shape, dtype=np.uint16):
    return RNG.integers(0, 250, shape).astype(dtype)


def as_tiff(pixels, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def as_npy(pixels):
    file = io.BytesIO()
    np.save(file, pixels)
    return file.getvalue()


def own(image):
    return np.frombuffer(image, ">u2").reshape(6, 7, 2)


def broken(image):
    raise RuntimeError(f"no {len(image)}")


def test_pages_and_bands_of_a_tiff_file_are_its_channels():
    pixels = values(6, 7, 5)
    pages = as_tiff(np.moveaxis(pixels, -1, 0), photometric="minisblack")
    bands = as_tiff(pixels, photometric="minisblack", planarconfig="contig")
    by_pillow = [Image.fromarray(page) for page in np.moveaxis(pixels, -1, 0)]
    file = io.BytesIO()
    options = {"save_all": True, "append_images": by_pillow[1:]}
    by_pillow[0].save(file, "TIFF", compression="tiff_lzw", **options)
    for data in (pages, bands, file.getvalue()):
        found, size = decode(data, decoding=kept(5))
        np.testing.assert_array_equal(found, pixels)
        assert (found.dtype, size) == (np.uint16, (6, 7))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, ">u2"])
def test_an_npy_file_keeps_its_values_with_channels_last_or_first(dtype):
    pixels = values(6, 7, 13, dtype=dtype)
    for stored in (pixels, np.moveaxis(pixels, -1, 0)):
        found, _ = decode(as_npy(stored), decoding=kept(13))
        np.testing.assert_array_equal(found, pixels)
        assert found.dtype == np.dtype(dtype).newbyteorder("=")


def test_other_types_of_numbers_become_float32():
    for dtype in (np.int16, np.float64):
        found, _ = decode(as_npy(values(4, 4, dtype=dtype) - 9), decoding=kept(1))
        assert found.dtype == np.float32
        assert found.min() < 0


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGBA", 4)])
def test_the_channels_of_a_png_are_kept(mode, channels):
    pixels = values(6, 7, channels, dtype=np.uint8)
    data = encoded(Image.fromarray(pixels.squeeze(), mode))
    np.testing.assert_array_equal(decode(data, decoding=kept(channels))[0], pixels)


def test_sixteen_bits_of_gray_are_kept_also_for_three_channels():
    deep = values(6, 7) * 16
    data = encoded(Image.fromarray(deep))
    np.testing.assert_array_equal(decode(data, decoding=kept(1))[0][..., 0], deep)
    three, _ = decode(data, decoding=kept(3, "uint16"))
    np.testing.assert_array_equal(three, np.repeat(deep[..., None], 3, -1))


def test_a_gray_jpeg_has_one_channel():
    gray = values(16, 16, dtype=np.uint8)
    data = encoded(Image.fromarray(gray), "JPEG")
    wanted = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode(data, decoding=kept(1))[0][..., 0], wanted)


@pytest.mark.parametrize(
    ("stored", "decoding", "fragment"),
    [
        (values(6, 7, 5), kept(4), r"\[6, 7, 5\] must be .* config.data.channels=4"),
        (values(6), kept(1), r"\[6\] must be \[h, w, 1\]"),
        (values(6, 7), kept(1, "uint8"), "uint16, but those of the data set are uint8"),
        (np.array([[1, np.nan]]), kept(1), "1 values are NaN, infinite or too large"),
        (np.array([["a"]]), kept(1), "but must be numbers"),
    ],
)
def test_other_images_are_refused_in_one_line(stored, decoding, fragment):
    with pytest.raises(DecodeError, match=fragment) as caught:
        decode(as_npy(stored), decoding=decoding)
    assert "\n" not in str(caught.value)


def test_an_image_with_other_channels_is_refused():
    data = encoded(values(6, 7, 3, dtype=np.uint8))
    with pytest.raises(DecodeError, match=r"\[6, 7, 3\] must be \[h, w, 1\]"):
        decode(data, decoding=kept(1))


def test_a_reader_of_ones_own_is_called_and_its_errors_are_stated():
    pixels = values(6, 7, 2)
    data = pixels.astype(">u2").tobytes()
    found, _ = decode(data, decoding=kept(2, reader=f"{HERE}:own"))
    np.testing.assert_array_equal(found, pixels)
    with pytest.raises(DecodeError, match="broken' raises RuntimeError: no 168"):
        decode(data, decoding=kept(2, reader=f"{HERE}:broken"))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_each_channel_is_resized_alone(dtype):
    pixels = values(40, 60, 4, dtype=dtype)
    canvas, size = decode_to_canvas(pixels, (20, 20))
    crop = center_crop(pixels, 20, 10)
    assert (canvas.shape, canvas.dtype, size) == ((20, 20, 4), dtype, (40, 60))
    assert (crop.shape, crop.dtype) == ((10, 10, 4), dtype)
    pixels[..., 3] = 0
    np.testing.assert_array_equal(decode_to_canvas(pixels, (20, 20))[0][..., 3], 0)
    np.testing.assert_array_equal(center_crop(pixels, 20, 10)[..., :3], crop[..., :3])


def test_arrays_and_dicom_files_are_images_only_if_values_are_kept(tmp_path):
    for name in ("a.npy", "b.dcm", "c.png", "d.raw"):
        (tmp_path / name).write_bytes(b"")
    found = scan(tmp_path)
    assert tuple(found.files) == ("c.png",)
    assert "1 .npy (set config.data.channels" in found.passed_over()
    assert tuple(scan(tmp_path, kept(1)).files) == ("a.npy", "b.dcm", "c.png")
    every = scan(tmp_path, kept(1, reader=f"{HERE}:own"))
    assert tuple(every.files) == ("a.npy", "b.dcm", "c.png", "d.raw")


def test_the_statistics_are_those_of_all_pixels():
    images = RNG.normal(5, [1, 2], (20, 4, 4, 2)).astype(np.float32)
    source = ArraySource(images, origin="x", decoding=kept(2))
    found = measure(source)
    assert (found.dtype, found.num_images, found.total) == ("float32", 20, 20)
    assert (found.lowest, found.highest) == (images.min(), images.max())
    np.testing.assert_allclose(found.mean, images.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found.std, images.std((0, 1, 2)), rtol=1e-4)
    clipped = np.clip((images - 4) / 2, 0, 1)
    found = measure(source, (4.0, 6.0))
    np.testing.assert_allclose(found.mean, clipped.mean((0, 1, 2)), rtol=1e-5)


def test_a_dicom_file_is_rescaled_and_its_high_values_are_bright():
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    stored = values(6, 7)
    for name, inverted in itertools.product(("MONOCHROME1", "MONOCHROME2"), (0, 1)):
        data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        data.Rows, data.Columns, data.SamplesPerPixel = 6, 7, 1
        data.PhotometricInterpretation = name
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
        data.PixelRepresentation = 0
        wanted = 4095.0 - stored if name == "MONOCHROME1" else stored.astype(float)
        if inverted:
            data.RescaleSlope, data.RescaleIntercept = "2", "-1024"
            wanted = 2 * wanted - 1024
        data.PixelData = stored.tobytes()
        file = io.BytesIO()
        data.save_as(file)
        found, _ = decode(file.getvalue(), decoding=kept(1))
        np.testing.assert_array_equal(found[..., 0], wanted)
        assert found.dtype == (np.float32 if inverted else np.uint16)
