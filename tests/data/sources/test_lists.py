import gzip
import json
import pickle

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from logo_jax.data.sources.columns import parse_columns
from logo_jax.data.sources.lists import load_lists
from tests.data.pictures import write_folder

ROWS = [
    ("a/0.png", "cat", "train"),
    ("a/1.png", "dog", "train"),
    ("b/0.png", "cat", "Val"),
]


@pytest.fixture(name="root")
def fixture_root(tmp_path):
    return write_folder(tmp_path, {"a": 3, "b": 2})


def loaded(file, text=None, columns="", **options):
    if text is not None:
        file.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_lists([file], columns=parse_columns(columns), **options)


def shown(images):
    """The files and the names of their classes."""
    labels = [record.label for record in images.records(range(len(images)))]
    names = [images.class_names[i] if i >= 0 else None for i in labels]
    return dict(zip(images.files, names, strict=True))


def as_csv(rows, delimiter=",", header=("Path", "label", "split"), end="\n"):
    return end.join(delimiter.join(row) for row in ([header] if header else []) + rows)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", as_csv(ROWS)),
        ("x.tsv", as_csv(ROWS, "\t")),
        ("x.csv", as_csv(ROWS, ";", end="\r\n\r\n")),
        ("x.csv", "\ufeff" + as_csv(ROWS, ", ")),
        ("x.csv", as_csv(ROWS, "\t").encode("utf-16")),
        ("x.csv.gz", gzip.compress(as_csv(ROWS).encode(), mtime=0)),
        ("x.csv", as_csv([("./" + a, b, c) for a, b, c in ROWS])),
        ("x.csv", as_csv([(a.replace("/", "\\"), b, c) for a, b, c in ROWS])),
        (
            "x.jsonl",
            "\n".join(
                json.dumps({"file_name": a, "class": b, "subset": c})
                for a, b, c in ROWS
            ),
        ),
    ],
)
def test_every_form_of_a_list_has_the_same_images(root, name, content):
    train, test, remark = loaded(root / name, content)
    assert shown(train) == {"a/0.png": "cat", "a/1.png": "dog"}
    assert shown(test) == {"b/0.png": "cat"}
    assert remark == ""
    (record,) = test.records([0])
    assert record.image.read_bytes() == (root / "b/0.png").read_bytes()
    assert list(pickle.loads(pickle.dumps(train)).files) == list(train.files)


def test_a_parquet_file_is_a_list_unless_it_has_the_images_themselves(root):
    a, b, c = zip(*ROWS, strict=True)
    file = root / "x.parquet"
    parquet.write_table(pa.table({"c": c, "target": [3, 1, 3], "image": a}), file)
    train, test, _ = loaded(file, columns="split=c")
    assert shown(train) == {"a/0.png": "3", "a/1.png": "1"}
    assert shown(test) == {"b/0.png": "3"}
    assert train.class_names == ("1", "3")
    encoded = pa.array([{"bytes": b"", "path": name} for name in a])
    parquet.write_table(pa.table({"image": encoded}), file)
    with pytest.raises(ValueError, match="use --config.data.source=huggingface"):
        loaded(file)


def test_without_a_header_the_image_is_known_by_its_suffix(root):
    expected = {"a/0.png": "7", "a/1.png": "7", "a/2.png": "10"}
    for text in (
        "a/0.png 7\na/1.png 7\na/2.png 10",
        "7,a/0.png\n7,a/1.png\n10,a/2.png",
    ):
        train = loaded(root / "x.txt", text).train
        assert shown(train) == expected
        assert train.class_names == ("7", "10")  # by value
    train, test, remark = loaded(root / "x.txt", "a/0.png\na/1.png")
    assert shown(train) == {"a/0.png": None, "a/1.png": None}
    assert (test, train.num_classes) == (None, 0)
    assert "x.txt has no column of labels" in remark
    with pytest.raises(
        ValueError, match="must have a header .*'a/0.png', 'b/0.png', '1'"
    ):
        loaded(root / "x.txt", "a/0.png,b/0.png,1")


def test_ids_are_completed_by_a_suffix_and_the_folder_of_their_split(tmp_path):
    write_folder(tmp_path, {"train": 3, "test_images": 3, "thumbnails": 1})
    text = "image_id,has cactus,set\n0,1.0,train\n1,0.0,train\n2,,train\n1,1.0,test"
    train, test, _ = loaded(tmp_path / "x.csv", text, columns="label=has cactus")
    assert shown(train) == {"train/0.png": "1", "train/1.png": "0", "train/2.png": None}
    assert shown(test) == {"test_images/1.png": "1"}
    assert len(train.labeled()) == 2
    assert any("1 of 4 images of" in note for note in train.notes)


def test_a_file_is_never_guessed(tmp_path):
    write_folder(tmp_path, {"a": 1, "b": 1})
    with pytest.raises(ValueError, match="several files in .* fit '0'"):
        loaded(tmp_path / "x.csv", "id\n0")
    train = loaded(tmp_path / "x.csv", "id\n0", path=tmp_path / "b").train
    assert train.name(0) == str(tmp_path / "b/0.png")


def test_missing_files_are_counted_and_three_are_named(root):
    text = "path\na/0.png\n" + "\n".join(f"a/no{i}.png" for i in range(5))
    with pytest.raises(
        FileNotFoundError, match=r"5 of 6 files .*no0.png, .*no2.png, \."
    ):
        loaded(root / "x.csv", text)
    with pytest.raises(FileNotFoundError, match="1 of 1 files"):
        loaded(root / "x.csv", "path\na")  # a folder


def test_absolute_paths_and_quoted_names_are_read(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    name = 'a, "b".png'
    (root / "a/0.png").rename(other / name)
    quoted = '"' + str(other / name).replace('"', '""') + '"'
    train = loaded(
        root / "x.csv", f"file,label\n{quoted},x\na/1.png,y\nb/0.png,x"
    ).train
    assert train.name(0) == str(other / name)
    assert shown(train)[str(other / name)] == "x"


def test_repeated_rows_count_once_and_contradictions_are_refused(root):
    rows = [*ROWS, ROWS[0], ROWS[0]]
    train = loaded(root / "x.csv", as_csv(rows)).train
    assert len(train) == 2
    assert any("2 repeated rows" in note for note in train.notes)
    with pytest.raises(ValueError, match="lists a/0.png with two labels"):
        loaded(root / "x.csv", as_csv([*ROWS, ("a/0.png", "dog", "train")]))
    with pytest.raises(ValueError, match="lists a/0.png with two splits"):
        loaded(root / "x.csv", as_csv([*ROWS, ("a/0.png", "cat", "test")]))
    both = as_csv([*ROWS, ("a/0.png", "dog", "train")])
    assert len(loaded(root / "x.csv", both, columns="label=").train) == 2


def test_a_label_of_its_own_for_every_image_is_no_class(root):
    text = "path,label\na/0.png,1\na/1.png,2\na/2.png,3\nb/0.png,4"
    train, _, remark = loaded(root / "x.csv", text)
    assert train.num_classes == 0
    assert "are no classes, because 4 rows have 4 of them" in remark


def test_other_splits_are_not_used_and_a_line_states_it(root):
    rows = [*ROWS, ("b/1.png", "cat", "extra"), ("a/2.png", "cat", "")]
    train = loaded(root / "x.csv", as_csv(rows)).train
    assert len(train) == 2
    (note,) = [note for note in train.notes if "not used" in note]
    assert "split 'extra' (1 rows)" in note
    assert "split '' (1 rows)" in note
    with pytest.raises(ValueError, match="no row has the split train, but val"):
        loaded(root / "x.csv", as_csv(ROWS[2:]))


def test_several_lists_are_splits_by_their_names_and_share_their_classes(root):
    (root / "train_labels.csv").write_text("path,label\na/0.png,b\na/1.png,a")
    (root / "a/Val.csv").write_text("path,label\n2.png,b\n")
    train, test, _ = load_lists([root / "train_labels.csv", root / "a/Val.csv"])
    assert shown(train) == {"a/0.png": "b", "a/1.png": "a"}
    assert shown(test) == {"2.png": "b"}
    assert test.name(0) == str(root / "a/2.png")
    assert train.class_names == test.class_names
    (root / "more.csv").write_text("path,label\nb/1.png,c\n")
    train = load_lists([root / "train_labels.csv", root / "more.csv"]).train
    assert shown(train) == {"a/0.png": "b", "a/1.png": "a", "b/1.png": "c"}


def test_two_lists_must_not_name_the_same_file(root):
    (root / "x.csv").write_text("path\na/0.png\na/1.png\n")
    (root / "a/val.csv").write_text("path\n2.png\n1.png\n")
    with pytest.raises(ValueError, match="x.csv and .*val.csv name .*a/1.png twice"):
        load_lists([root / "x.csv", root / "a/val.csv"])


def test_queries_of_a_class_without_training_images_are_counted(root):
    rows = [*ROWS, ("b/1.png", "fox", "val")]
    _, test, remark = loaded(root / "x.csv", as_csv(rows))
    assert shown(test) == {"b/0.png": "cat", "b/1.png": "fox"}
    assert remark == "1 of the queries have a class that no training image has"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no image"),
        ("path,label\n", "lists no image"),
        ("photo,breed\n1,2", "no column that is known .*'photo', 'breed'|must have a"),
        ("path,label\na/0.png,x,y", "cannot be read .*Expected 2 columns, got 3"),
        ("path\ngs://b/0.png", "gs://b/0.png must be a path of this machine"),
        ("path,label\na/0.png,x\n,y", "1 rows have no path"),
        ("path,label\na/0.png,\xfc".encode("latin-1"), "cannot be read .*UTF8"),
    ],
)
def test_a_list_that_cannot_be_used_is_one_line(root, text, message):
    with pytest.raises(ValueError, match=message) as found:
        loaded(root / "x.csv", text)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "damage", [lambda x: b"path,label\n", lambda x: x[:12] + b"!" + x[13:]]
)
def test_a_damaged_compressed_list_is_named(damage, root):
    file = root / "x.csv.gz"
    file.write_bytes(damage(gzip.compress(as_csv(ROWS).encode())))
    with pytest.raises(ValueError, match="x.csv.gz cannot be read "):
        loaded(file)


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_columns_of_0_and_1_are_classes_if_they_are_named(name, root):
    header, rows = ("image", "healthy", "rust"), [("a/0", 1, 0), ("a/1", 0, 1)]
    file = root / name
    if name.endswith(".parquet"):
        columns = dict(zip(header, zip(*rows, strict=True), strict=True))
        parquet.write_table(pa.table(columns), file)
    else:
        file.write_text(as_csv([tuple(map(str, row)) for row in rows], header=header))
    remark = loaded(file).remark
    assert "no column of labels, but healthy, rust; name the one" in remark
    assert "columns=label=healthy, or label=healthy+rust if one" in remark
    found = loaded(file, columns="label=healthy+rust").train
    assert shown(found) == {"a/0.png": "healthy", "a/1.png": "rust"}
    assert any("labels are 'healthy+rust'" in note for note in found.notes)
    with pytest.raises(ValueError, match="has no column 'x', which .* it has image, h"):
        loaded(file, columns="label=healthy+x")
    text = "image,healthy,rust\na/0,1,1\na/1,0,1\n"
    with pytest.raises(ValueError, match="image 1 has 1, 1 in the columns healthy, ru"):
        loaded(root / "y.csv", text, columns="label=healthy+rust")


def test_wrong_columns_are_refused():
    for text in ("breed", "name=x", "label=a,label=b"):
        with pytest.raises(ValueError, match="must be columns by what they have"):
            parse_columns(text)


def test_a_given_column_that_is_missing_is_named(root):
    with pytest.raises(ValueError, match="no column 'breed', .*it has Path, label"):
        loaded(root / "x.csv", as_csv(ROWS), columns="label=breed")


def test_labels_are_arrays_without_an_object_per_row(root):
    train = loaded(root / "x.csv", as_csv(ROWS)).train
    assert isinstance(train.labels, np.ndarray)
    assert train.files.array.type == pa.large_binary()
