"""`logo_jax.predict`: classes of folders, lists and single images."""

import csv

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

import logo_jax
from logo_jax import predict
from logo_jax.experiment import classifier_folder, make_spec
from tests.commands.test_main import tiny_config
from tests.data.pictures import write_folder

NAMES = ("cat", "dog, brown", "\u96ea")


@pytest.fixture(name="classifier", scope="module")
def fixture_classifier(tmp_path_factory):
    """The folder of a classifier of an untrained encoder."""
    config = tiny_config("cifar10_simsiam", "baseline", "x")
    spec = make_spec(config, num_devices=1)
    state = spec.first_state()
    groups = {"params": state.params, "batch_stats": state.batch_stats}
    backbone = {name: group["encoder"]["backbone"] for name, group in groups.items()}
    features = logo_jax.ImageEncoder(
        backbone, spec.encoder.backbone, spec.config.augment.policy, 8, 8, "x"
    )(np.zeros((1, 8, 8, 3), np.uint8)).shape[1]
    kernel = np.random.default_rng(0).normal(size=(features, 3)).astype(np.float32)
    folder = tmp_path_factory.mktemp("run") / "classifier"
    classifier_folder.write(
        folder,
        config=spec.config,
        sizes=(8, 8),
        backbone=backbone,
        linear={"kernel": 20 * kernel, "bias": np.zeros(3, np.float32)},
        class_names=NAMES,
        source="step 3",
    )
    return folder


@pytest.fixture(name="pictures")
def fixture_pictures(tmp_path):
    root = write_folder(tmp_path / "pictures", {"a": 3, "b/c": 2})
    Image.new("RGB", (50, 20), (200, 20, 20)).save(root / "a" / "wide, red.png")
    (root / "a" / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\nxx")
    return root


def run(*arguments):
    predict.main([str(argument) for argument in arguments])


def test_a_folder_gives_a_row_for_each_image(classifier, pictures, tmp_path, capsys):
    out = tmp_path / "x.csv"
    run(pictures, f"--classifier={classifier}", f"--out={out}", "--top=3")
    printed = capsys.readouterr()
    assert "6 classified, 1 left out" in printed.out
    assert printed.err.startswith(f"left out {pictures / 'a' / 'damaged.png'}: ")
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = sorted(x for x in pictures.rglob("*.png") if x.name != "damaged.png")
    assert [row["file"] for row in rows] == [
        str(file.relative_to(pictures)) for file in kept
    ]
    found = logo_jax.load_classifier(classifier)
    for row, values in zip(rows, found(kept), strict=True):
        best = np.argsort(-values)
        ends = ("", "_2", "_3")
        assert [row[f"class{end}"] for end in ends] == [NAMES[i] for i in best]
        shown = [float(row[f"probability{end}"]) for end in ends]
        np.testing.assert_allclose(shown, values[best], atol=1e-5)


def test_parquet_has_the_same_columns(classifier, pictures, tmp_path, capsys):
    out = tmp_path / "x.parquet"
    run(pictures, f"--classifier={classifier}", f"--out={out}")
    table = parquet.read_table(out)
    assert table.column_names == ["file", "class", "probability"]
    assert table.num_rows == 6
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        run(pictures, f"--classifier={classifier}", f"--out={out}")
    assert "give --overwrite" in capsys.readouterr().err


def test_one_image_and_a_list_are_printed_as_csv(classifier, pictures, capsys):
    image = pictures / "a" / "wide, red.png"
    run(image, f"--classifier={classifier}")
    header, row = csv.reader(capsys.readouterr().out.splitlines())
    assert header == ["file", "class", "probability"]
    assert row[0] == str(image)
    (pictures / "list.csv").write_text('path\n"a/wide, red.png"\n')
    run(pictures / "list.csv", f"--classifier={classifier}")
    assert list(csv.reader(capsys.readouterr().out.splitlines()))[1][1:] == row[1:]


@pytest.mark.parametrize(
    ("path", "flags", "message"),
    [
        ("", ["--top=4"], "--top=4 exceeds the 3 classes"),
        ("", ["--out=x.txt"], "--out=x.txt must end with .csv or .parquet"),
        ("a/damaged.png", [], "can be decoded; "),
        ("nowhere", [], "nowhere is not a folder"),
        ("", ["--resize=4"], "crop=8 must be from 1 to resize=4"),
        ("", ["--classifier=nowhere"], "nowhere has no classifier.json"),
    ],
)
def test_wrong_input_ends_with_one_line(
    path, flags, message, classifier, pictures, capsys
):
    with pytest.raises(SystemExit, match="2"):
        run(pictures / path, f"--classifier={classifier}", *flags)
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
