import pytest
import tensorflow_datasets as tfds

from logo_jax.data.builders import mit67, writing
from tests.data import prepared
from tests.data.tar import jpeg, write_tar

IMAGES = {"gym/a.jpg": 10, "gym/b c.jpg": 60, "bakery/a.jpg": 110, "bar/x.jpg": 160}
COUNTS = {"train": 2, "test": 1}


def place(folder, train, test):
    manual = folder / "downloads" / "manual"
    contents = {f"Images/{name}": jpeg(gray) for name, gray in IMAGES.items()}
    write_tar(manual / "indoorCVPR_09.tar", contents)
    (manual / "TrainImages.txt").write_text(train)
    (manual / "TestImages.txt").write_text(test)


def test_only_images_on_a_list_are_written_under_their_folder_s_scene(tmp_path):
    place(tmp_path, "gym/b c.jpg\nbakery/a.jpg\n", "gym/a.jpg")
    writing.write_published(mit67.Mit67, tmp_path, COUNTS)
    found = {
        split: {
            row["file_name"].decode(): (
                mit67.CLASS_NAMES[row["label"]],
                int(row["image"][0, 0, 0]),
            )
            for row in tfds.data_source("mit67", split=split, data_dir=tmp_path)
        }
        for split in COUNTS
    }
    prepared.assert_has_the_splits_of_the_table("mit67", tmp_path)
    assert found == {
        "train": {"gym/b c.jpg": ("gym", 60), "bakery/a.jpg": ("bakery", 110)},
        "test": {"gym/a.jpg": ("gym", 10)},
    }


def test_a_listed_image_that_the_archive_lacks_is_named(tmp_path):
    place(tmp_path, "gym/z.jpg\n", "gym/a.jpg")
    with pytest.raises(ValueError, match=r"has no file Images/gym/z\.jpg"):
        writing.write_published(mit67.Mit67, tmp_path, COUNTS)
    assert not (tmp_path / "mit67").exists()


def test_the_scenes_are_67_in_the_order_of_their_names():
    assert len(set(mit67.CLASS_NAMES)) == 67
    assert list(mit67.CLASS_NAMES) == sorted(mit67.CLASS_NAMES)
