import pytest

from logo_jax.data.fingerprint import fingerprint
from logo_jax.data.load import DataLocation, load_images, load_unsplit
from tests.data.pictures import write_folder
from tests.data.sources.test_lists import shown


def loaded(root, **fields):
    return load_images(DataLocation("folder", path=str(root), **fields))


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


CLASSES = {"n01": 1, "n02": 1}
TINY = {f"train/{name}/images": 1 for name in CLASSES} | {"val/images": 2}
LOC = "ILSVRC/Data/CLS-LOC"
LAYOUTS = {
    "Tiny ImageNet": (
        TINY,
        {"val/val_annotations.txt": "0.png\tn02\t0\t0\t9\t9\n1.png\tn01\t0\t0\t9\t9\n"},
        "",
    ),
    "Kaggle's ImageNet": (
        {f"{LOC}/train/n01": 1, f"{LOC}/train/n02": 1, f"{LOC}/val": 2},
        {
            "LOC_val_solution.csv": "ImageId,PredictionString\n0,n02 1 2 3 4 \n"
            "1,n01 1 2 3 4 n01 1 1 1 1 \n"
        },
        "",
    ),
    "Kaggle's ImageNet, inside": (
        {f"{LOC}/train/n01": 1, f"{LOC}/train/n02": 1, f"{LOC}/val": 2},
        {"LOC_val_solution.csv": "ImageId,PredictionString\n0,n02 1\n1,n01 1\n"},
        LOC,
    ),
    "CUB-200": (
        {"images/n01": 2, "images/n02": 2},
        {
            "images.txt": "1 n01/0.png\n2 n02/0.png\n3 n02/1.png\n4 n01/1.png\n",
            "image_class_labels.txt": "1 1\n2 2\n3 2\n4 1\n",
            "train_test_split.txt": "1 1\n2 1\n3 0\n4 0\n",
        },
        "",
    ),
    "Food-101": (
        {"images/n01": 2, "images/n02": 2},
        {
            "meta/train.txt": "n01/0\nn02/0\n",
            "meta/test.txt": "n02/1\nn01/1\n",
        },
        "",
    ),
    "Hugging Face's ImageFolder": (
        {"train": 2, "test": 2},
        {
            "train/metadata.csv": "file_name,label\n0.png,n01\n1.png,n02\n",
            "test/metadata.csv": "file_name,label\n0.png,n02\n1.png,n01\n",
        },
        "",
    ),
    "Hugging Face's ImageFolder, inside": (
        {"a/train": 2, "a/val": 2},
        {
            "a/train/metadata.csv": "file_name,label\n0.png,n01\n1.png,n02\n",
            "a/val/metadata.csv": "file_name,label\n0.png,n02\n1.png,n01\n",
        },
        "a",
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_known_data_sets_are_recognized(name, tmp_path):
    folders, lists, inside = LAYOUTS[name]
    write_folder(tmp_path, folders)
    write(tmp_path, lists)
    data = loaded(tmp_path / inside)
    assert list(shown(data.train).values()) == ["n01", "n02"]
    assert list(shown(data.queries).values()) == ["n02", "n01"]
    assert data.bank is data.train
    assert f"that of {name.removesuffix(', inside')}; " in data.notes[0]
    assert "--config.data.layout=folders" in data.notes[0]


@pytest.mark.parametrize(
    ("folders", "name"),
    [
        ({"train": 3, "test": 2}, "train.csv"),
        ({"train_images": 3, "test_images": 2}, "train.csv"),
        ({"images": 3}, "labels.csv"),
        ({"train": 3, "masks": 1}, "trainLabels.csv"),
        ({".": 3}, "metadata.csv"),
    ],
)
def test_a_list_labels_the_flat_images_next_to_it(folders, name, tmp_path):
    write_folder(tmp_path, folders)
    write(tmp_path, {name: "id,breed\n0,a\n1,b\n", "sample_submission.csv": "id\n0"})
    data = loaded(tmp_path)
    assert list(shown(data.train).values()) == ["a", "b"]
    assert data.queries is None
    assert "the test images have no labels (sample_sub" in data.why_no_queries
    assert "val_size" in data.why_no_queries
    line = next(note for note in data.notes if "the layout of" in note)
    assert f"the list {name}, which does not name 1 images" in line
    whole = loaded(tmp_path, layout="folders")
    assert len(whole.train) >= 3
    assert len(loaded(tmp_path, val_size=1).queries) == 1


def test_images_of_imagenet_without_labels_are_not_trained_on(tmp_path):
    write_folder(tmp_path / LOC, {"train/n01": 1, "train/n02": 1, "val": 2, "test": 2})
    data = loaded(tmp_path)
    assert len(data.train) == 2
    assert "LOC_val_solution.csv, which labels" in data.why_no_queries


def test_a_list_that_was_found_and_does_not_fit_can_be_turned_off(tmp_path):
    write_folder(tmp_path, {"train": 2})
    write(tmp_path, {"labels.csv": "id,label\n0,a\n7,b\n"})
    with pytest.raises(FileNotFoundError, match="1 of 2 .*: 7; .*layout=folders"):
        loaded(tmp_path)
    assert len(loaded(tmp_path, layout="folders").train) == 2


def test_sub_folders_are_classes_whatever_lists_lie_next_to_them(tmp_path):
    write_folder(tmp_path, {"train/a": 1, "train/b": 1, "val/a": 1})
    write(tmp_path, {"train.csv": "id,label\n0,x\n"})
    data = loaded(tmp_path)
    assert data.train.class_names == ("a", "b")
    assert len(data.queries) == 1
    assert not any("layout" in note for note in data.notes)
    write_folder(tmp_path / "flat", {"a": 1, "b": 1})
    write(tmp_path / "flat", {"labels.csv": "id,label\n0,x\n"})
    assert loaded(tmp_path / "flat").train.class_names == ("a", "b")


def test_a_table_without_paths_is_no_list(tmp_path):
    write_folder(tmp_path, {"train": 3})
    write(tmp_path, {"train.csv": "age,height\n1,2\n"})
    assert len(loaded(tmp_path).train) == 3


def test_several_folders_are_one_data_set(tmp_path):
    write_folder(tmp_path / "x", {"train/a": 2, "train/b": 1, "val/b": 1})
    write_folder(tmp_path / "y", {"train/c": 1, "train/b": 1, "val/c": 2})
    data = loaded(f"{tmp_path}/x,{tmp_path}/y")
    assert data.train.class_names == ("a", "b", "c")
    assert shown(data.train) == {
        "x/train/a/0.png": "a",
        "x/train/a/1.png": "a",
        "x/train/b/0.png": "b",
        "y/train/b/0.png": "b",
        "y/train/c/0.png": "c",
    }
    assert list(shown(data.queries).values()) == ["b", "c", "c"]
    assert data.train.name(4) == f"{tmp_path}/y/train/c/0.png"
    write_folder(tmp_path / "z", {".": 2})
    data = loaded(f"{tmp_path}/x, {tmp_path}/z")
    assert (len(data.train), len(data.bank), len(data.queries)) == (5, 3, 1)
    with pytest.raises(ValueError, match="/x/train is in .*/x, so that"):
        loaded(f"{tmp_path}/x,{tmp_path}/x/train")
    with pytest.raises(ValueError, match="is in"):
        loaded(f"{tmp_path}/x,{tmp_path}/x/")


def test_each_of_several_folders_may_have_a_layout_and_be_moved(tmp_path):
    folders, files, _ = LAYOUTS["Tiny ImageNet"]
    write_folder(tmp_path / "x", folders)
    write(tmp_path / "x", files)
    write_folder(tmp_path / "y", {"train/a": 1, "train/b": 1, "val/b": 1})
    before = loaded(f"{tmp_path}/x,{tmp_path}/y")
    assert before.train.class_names == ("a", "b", "n01", "n02")
    assert list(shown(before.queries).values()) == ["n02", "n01", "b"]
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "y").rename(tmp_path / "far" / "away" / "z")
    after = loaded(f"{tmp_path}/x,{tmp_path}/far/away/z")
    assert fingerprint(after) == fingerprint(before)
    (tmp_path / "x/train/n01/images/0.png").rename(
        tmp_path / "x/train/n01/images/1.png"
    )
    changed = fingerprint(loaded(f"{tmp_path}/x,{tmp_path}/far/away/z"))
    assert changed["train"] != fingerprint(before)["train"]
    assert changed["queries"] == fingerprint(before)["queries"]


def test_a_comma_in_the_name_of_a_folder_divides_nothing(tmp_path):
    write_folder(tmp_path / "x,y", {"a": 1, "b": 1})
    assert loaded(tmp_path / "x,y").train.root == str(tmp_path / "x,y")


def test_all_images_of_lists_and_folders_are_read_for_embedding(tmp_path):
    write_folder(tmp_path, {"a": 2, "b": 2})
    text = "path,label,split\na/0.png,x,train\nb/0.png,y,val\nb/1.png,y,other\n"
    write(tmp_path, {"x.csv": text})
    assert len(load_unsplit(str(tmp_path / "x.csv"))) == 3
    assert len(load_unsplit(f"{tmp_path}/a,{tmp_path}/b")) == 4
    assert load_unsplit(str(tmp_path)).class_names == ("a", "b")
