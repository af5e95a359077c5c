import io
import tarfile
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo, compute_url_info

from logo_jax.data.builders import cifar, cifar10
from logo_jax.data.builders.writing import write_published
from tests.data import prepared
from tests.data.pictures import decoded

PREFIX = "cifar-10-batches-bin/"
UNREACHABLE_URL = "http://127.0.0.1:9/cifar-10-binary.tar.gz"


def binary(images, labels):
    """CIFAR-10's binary layout, written out: the label, then the three color planes."""
    content = bytearray()
    for pixels, label in zip(images, labels, strict=True):
        content.append(label)
        for channel in range(3):
            content += pixels[:, :, channel].tobytes()
    return bytes(content)


def write_archive(folder, contents):
    file = folder / "downloads" / "manual" / "cifar-10-binary.tar.gz"
    file.parent.mkdir(parents=True)
    with tarfile.open(file, "w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(PREFIX + name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file


def archive_contents(arrays):
    images, labels = arrays["train"]
    parts = zip(np.array_split(images, 5), np.array_split(labels, 5), strict=True)
    batches = {f"data_batch_{i}.bin": binary(*part) for i, part in enumerate(parts, 1)}
    names = "\n".join(cifar10.CLASS_NAMES) + "\n\n"
    test = {"test_batch.bin": binary(*arrays["test"])}
    return test | batches | {"batches.meta.txt": names.encode()}


def builder_of(info):
    class Tiny(cifar10.Cifar10, skip_registration=True):
        name = "cifar10"
        url_infos = {UNREACHABLE_URL: info}

    return Tiny


def test_plain_tfds_reads_each_array_row_under_its_official_id(arrays, data_dir):
    for split, (images, labels) in arrays.items():
        rows = {
            row["id"].decode(): row
            for row in tfds.data_source("cifar10", split=split, data_dir=data_dir)
        }
        assert len(rows) == len(images)
        for i, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            row = rows[f"{split}_{i:05d}"]
            np.testing.assert_array_equal(row["image"], pixels)
            assert row["label"] == label


def test_name_version_and_features_are_those_of_the_stock_builder(data_dir, tmp_path):
    stock = tfds.builder("cifar10", data_dir=tmp_path).info
    ours = tfds.builder_from_directory(
        data_dir / "cifar10" / str(cifar10.Cifar10.VERSION)
    ).info
    assert ours.full_name == stock.full_name
    assert ours.features is not None
    assert stock.features is not None
    assert ours.features.to_json() == stock.features.to_json()


def test_an_archive_placed_by_hand_gives_the_same_rows_as_arrays(
    arrays, data_dir, tmp_path
):
    file = write_archive(tmp_path, archive_contents(arrays))
    written = write_published(builder_of(compute_url_info(file)), tmp_path, {})
    assert written == tmp_path / "cifar10" / str(cifar10.Cifar10.VERSION)
    prepared.assert_has_the_splits_of_the_table("cifar10", tmp_path)
    for split in arrays:
        ours, reference = (
            decoded(prepared.load("cifar10", split, folder))
            for folder in (tmp_path, data_dir)
        )
        np.testing.assert_array_equal(ours[0], reference[0])
        assert ours[1] == reference[1]
    features = tfds.builder_from_directory(written).info.features
    assert tuple(features["label"].names) == cifar10.CLASS_NAMES


def test_the_checksum_is_the_published_one():
    ((url, info),) = cifar10.Cifar10.published().items()
    assert info is not None
    assert url == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    assert int(info.size) == 170_052_171
    assert info.checksum.startswith("c4a38c50a1bc5f3a")


def test_another_file_in_the_archive_s_place_is_refused_and_nothing_written(tmp_path):
    file = write_archive(tmp_path, {"batches.meta.txt": b"nothing"})
    found = compute_url_info(file)
    with pytest.raises(
        ValueError, match=f"must have 170052171 .*got .*{found.checksum}"
    ) as error:
        write_published(cifar10.Cifar10, tmp_path, {})
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "cifar10").exists()


def test_a_failure_halfway_leaves_no_data_set(arrays, tmp_path):
    contents = archive_contents(arrays)
    contents["test_batch.bin"] = binary(np.zeros((1, 32, 32, 3), np.uint8), [200])
    file = write_archive(tmp_path, contents)
    with pytest.raises(ValueError, match="200"):
        write_published(builder_of(compute_url_info(file)), tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["downloads"]


def test_without_archive_and_network_the_file_is_named_within_seconds(tmp_path):
    info = UrlInfo(size=tfds.core.units.Size(7), checksum="ab12", filename="x.tar.gz")
    start = time.monotonic()
    with pytest.raises(FileNotFoundError, match="7 bytes, sha256 ab12") as error:
        write_published(builder_of(info), tmp_path, {}, timeout_s=2)
    assert time.monotonic() - start < 3
    assert str(tmp_path / "downloads" / "manual" / "x.tar.gz") in str(error.value)
    assert "--from_arrays" in str(error.value)


def test_a_file_of_no_whole_number_of_rows_is_refused(tmp_path):
    file = write_archive(tmp_path, {"test_batch.bin": bytes(3072)})
    with pytest.raises(ValueError, match="must be a multiple of 3073 bytes, got 3072"):
        list(cifar.read_rows(file, [f"{PREFIX}test_batch.bin"]))
    with pytest.raises(ValueError, match=r"has no file .*other\.bin"):
        list(cifar.read_rows(file, [f"{PREFIX}other.bin"]))


@pytest.mark.parametrize(
    ("arrays", "rule"),
    [
        (
            {"images": np.zeros((2, 28, 28, 3), np.uint8)},
            r"must have shape \[n, 32, 32, 3\]",
        ),
        ({"images": np.zeros((2, 32, 32, 3), np.uint8)}, "no labels"),
        (
            {"images": np.zeros((2, 32, 32, 3), np.uint8), "labels": [0, 10]},
            r"labels must be in \[0, 10\), got 10",
        ),
        (
            {
                "images": np.zeros((2, 32, 32, 3), np.uint8),
                "labels": 2 * np.eye(10, dtype=int)[:2] - 1,
            },
            r"integers \[n\] in \[0, 10\), got \[2, 10\]; use labels.argmax",
        ),
    ],
)
def test_arrays_unlike_cifar10_are_refused_before_anything_is_written(
    arrays, rule, tmp_path
):
    np.savez(tmp_path / "train.npz", **arrays)
    with pytest.raises(ValueError, match=rule):
        cifar10.from_arrays(tmp_path, tmp_path)
    assert not (tmp_path / "cifar10").exists()
