import json
import pickle
import shutil

import numpy as np
import pytest

from logo_jax.data.builders.canvases import write_canvases
from logo_jax.data.canvas import canvas_size, read_canvases, read_eval_crops
from logo_jax.data.few_labels import labels_of
from logo_jax.data.fingerprint import fingerprint
from logo_jax.data.headers import sample_sizes
from logo_jax.data.load import (
    DataLocation,
    ExperimentData,
    load_arrays,
    load_images,
    locate_dataset,
)
from logo_jax.data.sources.base import NO_LABEL, Joined, Subset
from tests.data.pictures import encoded, smooth

SIDE = 32
# smaller, longer in one axis, and so large that JPEGs are decoded at a reduced size
SHAPES = ((20, 24), (30, 90), (150, 201), (80, 25))


@pytest.fixture(name="photos", scope="module")
def fixture_photos(tmp_path_factory):
    """Images of two classes, of which one cannot be decoded, and one of no class."""
    root = tmp_path_factory.mktemp("photos")
    for split in ("train", "val"):
        for label, name in enumerate("ab"):
            (root / split / name).mkdir(parents=True)
            for i, shape in enumerate(SHAPES):
                pixels = smooth(*shape, seed=10 * label + i)
                file = root / split / name / f"{i}.jpg"
                file.write_bytes(encoded(pixels, "JPEG", quality=95))
    (root / "train" / "a" / "1.jpg").write_bytes(b"damaged")
    return load_images(DataLocation("folder", path=str(root)))


def written(data, folder, side=SIDE, **options):
    """Writes images and opens them again."""
    write_canvases(data, side, folder, max_corrupt=0.5, threads=2, **options)
    return load_images(DataLocation("canvases", path=str(folder)))


@pytest.fixture(name="reduced", scope="module")
def fixture_reduced(photos, tmp_path_factory):
    return written(photos, tmp_path_factory.mktemp("reduced") / "photos")


@pytest.mark.parametrize("side", [SIDE, 2 * SIDE])
def test_canvases_are_bit_equal_to_those_of_the_original_images(photos, reduced, side):
    ids = np.array([3, 0, 1, 6, 7, 2])
    canvas = canvas_size(reduced.train, side)
    assert canvas == (SIDE, SIDE)  # never larger than what is stored
    wanted = read_canvases(photos.train, ids, canvas)
    found = read_canvases(reduced.train, ids, canvas)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)
    assert found.failed.tolist() == [False, False, True, False, False, False]
    assert [150, 201] in found.sizes.tolist()


def test_a_smaller_canvas_keeps_the_original_sizes(reduced):
    (size, *_) = read_canvases(reduced.train, np.array([2]), (16, 16)).sizes
    assert size.tolist() == [150, 201]


def test_evaluation_crops_show_the_same_part_as_those_of_the_originals(photos, reduced):
    ids, crop = np.array([1, 2, 3]), {"resize": 24, "crop": 20}
    wanted = read_eval_crops(photos.queries, ids, **crop)
    found = read_eval_crops(reduced.queries, ids, **crop)
    np.testing.assert_array_equal(found.labels, wanted.labels)
    error = np.abs(found.images.astype(int) - wanted.images)
    # a crop of the distorted image, without its original size, would be off by 20
    assert error.mean() < 2


def test_jpegs_are_nearly_equal(photos, reduced, tmp_path):
    jpeg = written(photos, tmp_path / "jpeg", format="jpeg")
    ids = np.array([0, 1, 3, 5])
    found = read_canvases(jpeg.train, ids, (SIDE, SIDE))
    wanted = read_canvases(reduced.train, ids, (SIDE, SIDE))
    np.testing.assert_array_equal(found.sizes, wanted.sizes)
    np.testing.assert_array_equal(found.failed, wanted.failed)
    error = np.mean((found.images.astype(float) - wanted.images) ** 2)
    assert 40 < -10 * np.log10(error / 255**2) < 60  # PSNR in dB


def test_parts_classes_and_labels_are_those_of_the_originals(photos, reduced):
    assert reduced.bank is reduced.train
    assert len(reduced.queries) == len(photos.queries)
    assert reduced.train.class_names == photos.train.class_names == ("a", "b")
    np.testing.assert_array_equal(labels_of(reduced.train), labels_of(photos.train))
    np.testing.assert_array_equal(
        sample_sizes(reduced.queries), sample_sizes(photos.queries)
    )


def test_a_bank_of_its_own_and_images_without_labels_are_kept(photos, tmp_path):
    train = Subset(photos.train, np.array([5, 0]), "two")
    bank = Subset(photos.train, np.array([4, 2, 7]), "three")
    data = written(ExperimentData(train, bank, photos.queries), tmp_path / "bank")
    assert labels_of(data.bank).tolist() == [1, 0, 1]
    assert labels_of(data.train).tolist() == [1, 0]
    _, unlabeled = load_arrays(np.zeros((3, 8, 9, 3), np.uint8))
    data = written(unlabeled, tmp_path / "unlabeled")
    assert (data.bank, data.queries, data.train.num_classes) == (None, None, 0)
    assert labels_of(data.train).tolist() == 3 * [NO_LABEL]
    assert "has no labels" in data.why_no_queries


def test_several_labels_per_image_are_kept(tmp_path):
    labels = np.array([[1, -1, 0], [-1, 1, 1]])
    _, data = load_arrays(np.zeros((2, 8, 8, 3), np.uint8), labels)
    records = written(data, tmp_path / "several").train.records([1, 0])
    np.testing.assert_array_equal([x.label for x in records], labels[::-1])


def test_images_of_one_size_are_known_to_have_it_unless_they_are_reduced(tmp_path):
    _, data = load_arrays(np.zeros((2, 48, 20, 3), np.uint8))
    whole = written(data, tmp_path / "whole", side=64).train
    assert (whole.largest, canvas_size(whole, 512)) == ((48, 20), (48, 20))
    small = written(data, tmp_path / "small", side=32).train
    # else they would be decoded into arrays, which have no original sizes
    assert (small.largest, canvas_size(small, 512)) == (None, (32, 20))


def test_parts_and_sums_of_them_have_the_canvas_of_their_source(reduced):
    some = Subset(reduced.train, np.array([2]), "some")
    for images in (some, Joined([some, reduced.queries])):
        assert canvas_size(images, 512) == (SIDE, SIDE)


def test_the_images_are_identified_by_their_content_and_not_by_their_folder(
    photos, reduced, tmp_path
):
    moved = written(photos, tmp_path / "moved")
    assert fingerprint(moved) == fingerprint(reduced)
    other = written(photos, tmp_path / "other", side=SIDE // 2)
    assert fingerprint(other)["train"] != fingerprint(reduced)["train"]


def test_reader_processes_can_receive_the_images(reduced):
    (record,) = pickle.loads(pickle.dumps(reduced.train)).records([3])
    (wanted,) = reduced.train.records([3])
    np.testing.assert_array_equal(record.image, wanted.image)


def test_a_folder_of_canvases_is_recognized(reduced):
    folder = reduced.train.origin.split(" (")[0]
    assert locate_dataset(folder) == {"source": "canvases", "path": folder}
    with pytest.raises(ValueError, match=r"use --config\.data\.source=canvases"):
        load_images(DataLocation("folder", path=folder))


def test_a_record_that_has_changed_counts_as_damaged(tmp_path):
    _, data = load_arrays(np.full((4, 64, 64, 3), 7, np.uint8))
    written(data, tmp_path / "run")
    file = tmp_path / "run" / "train.array_record"
    content = bytearray(file.read_bytes())
    content[content.index(bytes([7] * 64))] ^= 1
    file.write_bytes(content)
    images = load_images(DataLocation("canvases", path=str(tmp_path / "run"))).train
    failed = read_canvases(images, np.arange(4), (SIDE, SIDE)).failed
    assert failed.tolist() == [True, False, False, False]


def test_files_that_do_not_fit_are_one_line(tmp_path):
    _, data = load_arrays(np.zeros((3, 8, 8, 3), np.uint8))
    folder = tmp_path / "run"
    location = DataLocation("canvases", path=str(folder))
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        load_images(location)
    written(data, folder)
    described = json.loads((folder / "canvases.json").read_text())
    described["parts"]["train"]["images"] = 4
    (folder / "canvases.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match="train has 3 records instead of 4"):
        load_images(location)
    (folder / "train.npz").unlink()
    with pytest.raises(ValueError, match=r"cannot be read .* write it again by"):
        load_images(location)
    (folder / "canvases.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"canvases\.json is missing"):
        load_images(location)


def test_pixels_that_the_disk_has_no_space_for_are_refused(
    photos, tmp_path, monkeypatch
):
    usage = shutil.disk_usage(tmp_path)._replace(free=20_000)  # 21 kB are needed
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match=r"free space, but the pixels need .*jpeg"):
        written(photos, tmp_path / "pixels")
    written(photos, tmp_path / "jpeg", format="jpeg")
