import functools

import pytest
import tensorflow_datasets as tfds

from logo_jax.data.builders import imagenet100, writing
from tests.data.tar import jpeg, tar_bytes, write_tar

# The classes of the first three validation images.
FIRST, SECOND, THIRD = "n01751748", "n09193705", "n02105855"
TRAIN = {
    FIRST: {f"{FIRST}_1.JPEG": jpeg(10), f"{FIRST}_20.JPEG": jpeg(60, (5, 9))},
    SECOND: {f"{SECOND}_3.JPEG": jpeg(110)},
    THIRD: {f"{THIRD}_4.JPEG": jpeg(160)},
}
VALIDATION = {f"ILSVRC2012_val_0000000{i}.JPEG": jpeg(50 * i) for i in (3, 1, 2)}


def place(folder):
    manual = folder / "downloads" / "manual"
    inner = {f"{wnid}.tar": tar_bytes(images) for wnid, images in TRAIN.items()}
    write_tar(manual / "ILSVRC2012_img_train.tar", inner)
    write_tar(manual / "ILSVRC2012_img_val.tar", VALIDATION)


def write(folder, classes):
    make = functools.partial(imagenet100.ImageNet100, classes=classes)
    return writing.write("imagenet100", make, folder, {})


def rows(split, folder):
    undecoded = {"image": tfds.decode.SkipDecoding()}
    found = tfds.data_source(
        "imagenet100", split=split, data_dir=folder, decoders=undecoded
    )
    return {
        row["file_name"].decode(): (int(row["label"]), row["image"]) for row in found
    }


def test_only_the_classes_of_the_list_are_kept_with_their_bytes(tmp_path):
    place(tmp_path)
    written = write(tmp_path, (THIRD, FIRST))
    assert rows("train", tmp_path) == {
        f"{THIRD}_4.JPEG": (0, TRAIN[THIRD][f"{THIRD}_4.JPEG"]),
        f"{FIRST}_1.JPEG": (1, TRAIN[FIRST][f"{FIRST}_1.JPEG"]),
        f"{FIRST}_20.JPEG": (1, TRAIN[FIRST][f"{FIRST}_20.JPEG"]),
    }
    first, third = (f"ILSVRC2012_val_0000000{i}.JPEG" for i in (1, 3))
    assert rows("validation", tmp_path) == {
        first: (1, VALIDATION[first]),
        third: (0, VALIDATION[third]),
    }
    features = tfds.builder_from_directory(written).info.features
    assert features["label"].names == [THIRD, FIRST]


def test_an_archive_without_a_class_is_refused(tmp_path):
    place(tmp_path)
    with pytest.raises(ValueError, match="has no class n01440764; download it again"):
        write(tmp_path, (FIRST, "n01440764"))
    assert not (tmp_path / "imagenet100").exists()


def test_the_packaged_list_has_a_hundred_classes_of_imagenet_1k():
    classes = imagenet100.read_classes(imagenet100.DEFAULT_CLASSES)
    assert len(classes) == 100
    assert classes[:3] == ("n01558993", "n01692333", "n01729322")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "must list one or more classes"),
        (f"{FIRST}\n{SECOND}\n{FIRST}\n", "each once"),
        (f"{FIRST}\nn99999999\n", "n99999999 is not a class of ImageNet-1k"),
    ],
)
def test_a_list_of_invalid_classes_is_rejected(text, rule, tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text(text)
    with pytest.raises(ValueError, match=rule):
        imagenet100.read_classes(file)
