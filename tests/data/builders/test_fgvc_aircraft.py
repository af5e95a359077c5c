import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import compute_url_info

from logo_jax.data.builders import fgvc_aircraft, writing
from tests.data import prepared
from tests.data.tar import jpeg, write_tar

NAME = "fgvc-aircraft-2013b.tar.gz"
COUNTS = {"train": 2, "validation": 1, "test": 1}
IMAGES = {"0034309": 10, "0034958": 60, "1025794": 110, "0000001": 160, "0000002": 210}


def archive_contents():
    """Images first, lists last, and one image that is in no list."""
    data = "fgvc-aircraft-2013b/data/"
    variants = [f"variant {i}" for i in range(98)] + ["F-16A/B", "Yak-42"]
    return {
        **{f"{data}images/{name}.jpg": jpeg(gray) for name, gray in IMAGES.items()},
        f"{data}images_variant_test.txt": b"0000001 variant 7\n",
        f"{data}images_variant_val.txt": b"1025794 Yak-42\n",
        f"{data}images_variant_train.txt": b"0034958 F-16A/B\n0034309 Yak-42\n",
        f"{data}variants.txt": "\n".join(variants).encode() + b"\n",
    }


def write(folder, contents):
    file = write_tar(folder / "downloads" / "manual" / NAME, contents)

    class Tiny(fgvc_aircraft.FgvcAircraft, skip_registration=True):
        name = "fgvc_aircraft"
        url_infos = {f"http://127.0.0.1:9/{NAME}": compute_url_info(file)}

    return writing.write_published(Tiny, folder, COUNTS)


def rows(split, folder):
    found = tfds.data_source("fgvc_aircraft", split=split, data_dir=folder)
    names = found.dataset_info.features["label"].names
    return {
        row["file_name"].decode(): (names[row["label"]], int(row["image"][0, 0, 0]))
        for row in found
    }


def test_each_official_split_has_its_images_with_their_variants(tmp_path):
    write(tmp_path, archive_contents())
    assert rows("train", tmp_path) == {
        "0034309.jpg": ("Yak-42", 10),
        "0034958.jpg": ("F-16A/B", 60),
    }
    assert rows("validation", tmp_path) == {"1025794.jpg": ("Yak-42", 110)}
    assert rows("test", tmp_path) == {"0000001.jpg": ("variant 7", 160)}
    prepared.assert_has_the_splits_of_the_table("aircraft", tmp_path)


def test_labels_count_the_official_list_of_variants(tmp_path):
    write(tmp_path, archive_contents())
    loaded = prepared.load("fgvc_aircraft", "test", tmp_path)
    assert [record.label for record in loaded.records([0])] == [7]
    assert loaded.class_names[98:] == ("F-16A/B", "Yak-42")


def test_an_archive_without_a_listed_image_is_refused(tmp_path):
    contents = archive_contents()
    del contents["fgvc-aircraft-2013b/data/images/0034958.jpg"]
    with pytest.raises(ValueError, match=r"has no file .*images/0034958\.jpg"):
        write(tmp_path, contents)
    assert not (tmp_path / "fgvc_aircraft").exists()
