import io
import struct

import numpy as np
import pytest
from PIL import Image

from logo_jax.data.decode import (
    DecodeError,
    center_crop,
    decode,
    decode_to_canvas,
    white_and_largest,
)
from logo_jax.data.sources.base import Decoding
from tests.data.pictures import encoded, rotated_by_exif, smooth

PIXELS = smooth(30, 46)


def by_pillow(data):
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_a_jpeg_has_the_pixels_that_pillow_gives_it(subsampling):
    data = encoded(PIXELS, "JPEG", subsampling=subsampling)
    pixels, size = decode(data)
    np.testing.assert_array_equal(pixels, by_pillow(data))
    assert size == (30, 46)


@pytest.mark.parametrize("picture_format", ["PNG", "WEBP"])
def test_lossless_files_give_back_their_pixels(picture_format):
    data = encoded(PIXELS, picture_format, lossless=True)
    np.testing.assert_array_equal(decode(data)[0], PIXELS)


def test_a_path_is_read_as_a_file(tmp_path):
    file = tmp_path / "a picture.jpeg"  # the suffix does not match the format
    file.write_bytes(encoded(PIXELS, "PNG"))
    np.testing.assert_array_equal(decode(file)[0], PIXELS)


@pytest.mark.parametrize("picture_format", ["PNG", "JPEG"])
def test_gray_becomes_three_equal_channels(picture_format):
    gray = np.asarray(Image.fromarray(PIXELS).convert("L"))
    pixels, _ = decode(encoded(PIXELS, picture_format, mode="L"))
    assert pixels.shape == (30, 46, 3)
    assert np.ptp(pixels, axis=-1).max() == 0
    assert np.abs(pixels[..., 0].astype(int) - gray).max() <= 4


def test_sixteen_bits_are_scaled_and_not_clipped_to_white():
    deep = np.array([[0, 256, 32768], [65535, 65534, 300]], np.uint16)
    data = encoded(Image.fromarray(deep), "PNG")
    np.testing.assert_array_equal(decode(data)[0][..., 1], deep // 257)


@pytest.mark.parametrize("picture_format", ["PNG", "TIFF"])
def test_the_bits_that_16_bit_images_use_can_be_given(picture_format):
    deep = np.array([[0, 16, 2048], [4095, 4094, 300]], np.uint16)
    data = encoded(Image.fromarray(deep), picture_format)
    twelve = Decoding(bit_depth=12)
    pixels, _ = decode(data, decoding=twelve)
    wanted = deep.astype(int) * 255 // 4095
    np.testing.assert_array_equal(pixels, np.repeat(wanted[..., None], 3, -1))
    assert white_and_largest(data) == (65535, 4095)
    deep[0, 0] = 4096
    data = encoded(Image.fromarray(deep), picture_format)
    with pytest.raises(
        DecodeError, match="values from 16 to 4096 must be from 0 to 40"
    ):
        decode(data, decoding=twelve)


def test_a_gray_file_that_states_its_white_needs_no_bits():
    data = b"P5 2 1 4095\n" + np.array([4095, 2047], ">u2").tobytes()
    for bit_depth in (16, 12):
        pixels, _ = decode(data, decoding=Decoding(bit_depth=bit_depth))
        assert pixels[0, :, 0].tolist() == [255, 127]


def test_a_tiff_of_12_bits_is_white_at_its_largest_value():
    # little-endian TIFF of 2x1 px, uncompressed, with the values 4095 and 2047
    tags = {256: 2, 257: 1, 258: 12, 259: 1, 262: 1, 273: 128, 277: 1, 278: 1, 279: 3}
    entries = b"".join(struct.pack("<HHIHH", t, 3, 1, v, 0) for t, v in tags.items())
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    data = head.ljust(128, b"\0") + b"\xff\xf7\xff"
    assert decode(data)[0][0, :, 0].tolist() == [255, 127]


def test_floating_point_values_are_scaled_from_0_to_1():
    gray = np.array([[0, 0.5, 1]], np.float32)
    pixels, _ = decode(encoded(Image.fromarray(gray), "TIFF"))
    assert pixels[0, :, 1].tolist() == [0, 128, 255]
    for value in (-0.1, 1.5, np.nan):
        gray[0, 1] = value
        with pytest.raises(DecodeError, match="must be from 0 to 1; convert it"):
            decode(encoded(Image.fromarray(gray), "TIFF"))


@pytest.mark.parametrize("picture_format", ["JPEG", "PNG", "TIFF"])
def test_all_formats_have_the_same_limit_of_pixels(picture_format, monkeypatch):
    data = encoded(PIXELS, picture_format)
    assert decode(data, decoding=Decoding(max_pixels=30 * 46))[1] == (30, 46)
    with pytest.raises(DecodeError, match="46x30 px are more than config.data.max_pix"):
        decode(data, decoding=Decoding(max_pixels=30 * 46 - 1))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)  # Pillow refuses above 1200
    larger = encoded(np.zeros((30, 47, 3), np.uint8), picture_format)
    assert decode(larger, decoding=Decoding(max_pixels=30 * 47))[1] == (30, 47)


def test_the_default_limit_is_pillows():
    assert Decoding().max_pixels == 2 * Image.MAX_IMAGE_PIXELS


def test_cmyk_is_converted_to_the_same_colors():
    data = encoded(PIXELS, "JPEG", mode="CMYK", quality=95)
    pixels, _ = decode(data)
    assert np.abs(pixels.astype(int) - PIXELS).mean() < 5


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_dropped(mode):
    picture = Image.fromarray(PIXELS).convert("RGBA")
    picture.putalpha(Image.fromarray(np.full((30, 46), 7, np.uint8)))
    picture = picture.convert(mode) if mode != "PA" else picture.quantize(255)
    pixels, _ = decode(encoded(picture, "PNG"))
    wanted = np.asarray(picture.convert("RGBA"))[..., :3]
    np.testing.assert_array_equal(pixels, wanted)


def test_a_palette_with_a_transparent_color_is_read():
    picture = Image.fromarray(PIXELS).quantize(16)
    data = encoded(picture, "PNG", transparency=3)
    np.testing.assert_array_equal(decode(data)[0], np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("picture_format", ["JPEG", "PNG", "WEBP"])
def test_the_exif_orientation_is_applied(picture_format):
    pixels, size = decode(rotated_by_exif(PIXELS, picture_format))
    assert size == (30, 46)
    assert np.abs(pixels.astype(int) - PIXELS).max() < 40
    assert np.abs(pixels.astype(int) - PIXELS).mean() < 3


@pytest.mark.parametrize("decoding", [Decoding(), Decoding(dtype="uint8")])
def test_exif_data_that_cannot_be_read_do_not_damage_an_image(decoding):
    broken = encoded(PIXELS, "JPEG", dpi=(72, 72), exif=b"Exif\0\0" + 20 * b"x")
    pixels, size = decode(broken, decoding=decoding)
    np.testing.assert_array_equal(pixels, by_pillow(broken))
    assert size == (30, 46)


# Pillow raises a RuntimeError for it
UNKNOWN_DDS = b"DDS " + (124).to_bytes(4, "little") + bytes(120)


def test_the_first_frame_of_an_animation_is_decoded():
    frames = [Image.fromarray(smooth(8, 9, seed)) for seed in range(3)]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(data)[0], by_pillow(data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no picture at all",
        encoded(PIXELS, "PNG")[:-200],
        encoded(PIXELS, "JPEG")[:300],
        encoded(PIXELS, "JPEG")[:-60],
        encoded(PIXELS, "WEBP")[:-60],
        encoded(PIXELS, "PNG").replace(b"IHDR", b"IHDX"),
        UNKNOWN_DDS,
    ],
)
def test_a_damaged_file_is_an_error_with_a_reason_of_one_line(data):
    with pytest.raises(DecodeError) as error:
        decode(data)
    assert str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "gone.jpg", tmp_path):
        with pytest.raises(DecodeError, match=str(path)):
            decode(path)


@pytest.mark.parametrize("picture_format", ["PNG", "JPEG"])
def test_an_image_no_larger_than_the_canvas_is_stored_exactly(picture_format):
    data = encoded(PIXELS, picture_format)
    pixels, size = decode_to_canvas(data, (30, 50))
    np.testing.assert_array_equal(pixels, by_pillow(data))
    assert size == (30, 46)


@pytest.mark.parametrize("shape", [(200, 300), (90, 700), (64, 65), (1, 300)])
def test_each_axis_longer_than_the_canvas_is_downscaled(shape):
    original = smooth(*shape)
    pixels, size = decode_to_canvas(encoded(original), (64, 64))
    assert size == shape
    assert pixels.shape[:2] == (min(shape[0], 64), min(shape[1], 64))
    wanted = Image.fromarray(original).resize(pixels.shape[1::-1], Image.Resampling.BOX)
    assert np.abs(pixels.astype(int) - np.asarray(wanted)).mean() < 2


def test_a_large_jpeg_is_decoded_downscaled_with_its_original_size():
    original = smooth(500, 700)
    data = encoded(original, "JPEG", quality=95)
    scaled, size = decode(data, at_least=(100, 130))
    assert size == (500, 700)
    assert 100 <= scaled.shape[0] <= 250
    assert 130 <= scaled.shape[1] <= 350
    fitted, size = decode_to_canvas(data, (100, 130))
    assert size == (500, 700)
    assert fitted.shape == (100, 130, 3)
    wanted = Image.fromarray(original).resize((130, 100), Image.Resampling.BOX)
    assert np.abs(fitted.astype(int) - np.asarray(wanted)).mean() < 2


@pytest.mark.parametrize(
    ("shape", "whole"), [((30, 47), (20, 31)), ((47, 30), (31, 20))]
)
def test_the_center_crop_is_that_of_torchvision(shape, whole):
    original = smooth(*shape)
    square = center_crop(encoded(original), resize=20, crop=15)
    resized = np.asarray(
        Image.fromarray(original).resize(whole[::-1], Image.Resampling.BICUBIC)
    )
    # long side int(31.33) = 31 px; offsets round((20 - 15) / 2) = 2 (rounds to even)
    # and (31 - 15) / 2 = 8
    rows, columns = (2, 8) if shape[0] < shape[1] else (8, 2)
    wanted = resized[rows : rows + 15, columns : columns + 15]
    np.testing.assert_array_equal(square, wanted)


def test_a_line_of_one_pixel_becomes_a_square():
    assert center_crop(encoded(smooth(1, 40)), resize=8, crop=8).shape == (8, 8, 3)


def test_a_downscaled_jpeg_is_not_shifted():
    phase = np.arange(1411) / 5  # 3/8 of 1411 px are 529.1; libjpeg rounds up to 530
    waves = 128 + 100 * np.sin(phase[:, None]) * np.cos(phase[None])
    data = encoded(np.repeat(waves[..., None], 3, axis=-1).astype(np.uint8), "JPEG")
    scaled, _ = decode_to_canvas(data, (500, 500))
    whole, _ = decode_to_canvas(decode(data)[0], (500, 500))
    corner = np.abs(scaled.astype(int) - whole)[-60:, -60:]
    assert corner.mean() < 3
