"""`logo_jax.embed`: features of a folder of images, by a run or a file of weights."""

import os
import shutil

import jax
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from logo_jax import convert, embed, zoo
from logo_jax.data.sources.folder import load_unsplit_folder
from logo_jax.experiment import make_spec, pretrained
from logo_jax.experiment.image_encoder import load_image_encoder
from logo_jax.parallel.mesh import make_mesh
from logo_jax.training import workdir
from logo_jax.training.checkpoints.manager import CheckpointManager
from tests.commands.test_main import tiny_config
from tests.data.pictures import write_folder

FIELDS = {"encoder.backbone": "resnet10", "monitor.resize": 12, "monitor.crop": 8}
SIZES = ("--resize=12", "--crop=8")


@pytest.fixture(name="run", scope="module")
def fixture_run(tmp_path_factory):
    """A run's folder with a tiny untrained encoder."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny_config("cifar10_simsiam", "baseline", "x", **FIELDS)
    workdir.claim_workdir(folder, config.to_dict())
    state = jax.jit(make_spec(config, num_devices=1).init)()
    with CheckpointManager(folder / "checkpoints") as checkpoints:
        checkpoints.save(7, state)
    return folder


@pytest.fixture(name="pictures")
def fixture_pictures(tmp_path):
    """A folder with two classes, one of them nested, of images of several sizes."""
    root = write_folder(tmp_path / "pictures", {"cat": 3, "train/old": 2})
    Image.new("RGB", (50, 20), (200, 20, 20)).save(root / "cat" / "wide.png")
    return root


def embedded(*arguments):
    embed.main([str(argument) for argument in arguments])
    out = next(x for x in arguments if str(x).startswith("--out="))
    with np.load(out.removeprefix("--out="), allow_pickle=False) as file:
        return dict(file)


def refused(capsys, *arguments):
    """Returns the one line on stderr of a command that ends with exit code 2."""
    with pytest.raises(SystemExit, match="2"):
        embed.main([str(argument) for argument in arguments])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_every_image_has_its_features_in_the_order_of_the_paths(
    run, pictures, tmp_path, capsys
):
    out = f"--out={tmp_path / 'x.npz'}"
    found = embedded(pictures, f"--workdir={run}", "--batch_size=4", out)
    files = ["cat/0.png", "cat/1.png", "cat/2.png", "cat/wide.png"]
    files += ["train/old/0.png", "train/old/1.png"]
    assert found["files"].tolist() == files
    assert found["labels"].tolist() == [0, 0, 0, 0, 1, 1]
    assert found["class_names"].tolist() == ["cat", "train"]
    assert found["features"].dtype == np.float32
    printed = capsys.readouterr().out
    assert "6 images" in printed
    assert "2 classes, resized to 12 px and cropped to 8 px" in printed
    one = make_mesh(jax.devices()[:1])
    config = workdir.read_config(run)
    evaluated = pretrained.from_run(run, config, one).features(
        load_unsplit_folder(pictures)
    )
    np.testing.assert_allclose(found["features"], evaluated.features, rtol=1e-4)


def test_a_converted_run_embeds_as_the_run_does(run, pictures, tmp_path):
    weights = tmp_path / "w.safetensors"
    convert.main([str(run), f"--out={weights}"])
    out = f"--out={tmp_path / 'x.npz'}"
    by_run = embedded(pictures, f"--workdir={run}", out)
    same = ["--mean=0.4914,0.4822,0.4465", "--std=0.2023,0.1994,0.2010"]
    flags = [f"--weights={weights}", *SIZES, out, "--overwrite"]
    by_file = embedded(pictures, *flags, *same)
    np.testing.assert_allclose(by_file["features"], by_run["features"], rtol=1e-4)
    imagenets = embedded(pictures, *flags)
    assert np.abs(imagenets["features"] - by_run["features"]).max() > 0.01


def test_a_parquet_has_a_row_for_each_image(run, pictures, tmp_path):
    flags = (pictures, f"--workdir={run}")
    arrays = embedded(*flags, f"--out={tmp_path / 'x.npz'}")
    embed.main([*map(str, flags), f"--out={tmp_path / 'x.parquet'}"])
    table = parquet.read_table(tmp_path / "x.parquet")
    assert table.schema.field("features").type == pa.list_(pa.float32(), 32)
    rows = table.to_pydict()
    assert rows["file"] == arrays["files"].tolist()
    assert rows["label"] == arrays["labels"].tolist()
    assert rows["class_name"] == ["cat"] * 4 + ["train"] * 2
    np.testing.assert_array_equal(rows["features"], arrays["features"])


def test_an_image_outside_sub_folders_leaves_all_images_without_labels(
    run, pictures, tmp_path
):
    Image.new("RGB", (9, 9)).save(pictures / "alone.png")
    found = embedded(pictures, f"--workdir={run}", f"--out={tmp_path / 'x.npz'}")
    assert found.keys() == {"files", "features"}
    assert len(found["features"]) == len(found["files"]) == 7


def test_damaged_images_are_left_out_and_named(run, pictures, tmp_path, capsys):
    flags = pictures, f"--workdir={run}"
    whole = embedded(*flags, f"--out={tmp_path / 'x.npz'}")
    (pictures / "cat" / "1.png").write_bytes(b"no picture")
    found = embedded(*flags, f"--out={tmp_path / 'y.npz'}")
    captured = capsys.readouterr()
    assert captured.err.startswith(f"left out {pictures}/cat/1.png: cannot identify")
    assert captured.out.splitlines()[-2].startswith("5 images of")
    assert ", 1 damaged ones left out: " in captured.out
    rest = [0, 2, 3, 4, 5]
    for name in ("files", "labels"):
        assert found[name].tolist() == whole[name][rest].tolist()
    np.testing.assert_allclose(found["features"], whole["features"][rest], rtol=1e-4)
    for file in pictures.rglob("*.png"):
        file.write_bytes(b"no picture")
    line = refused(capsys, *flags, f"--out={tmp_path / 'z.npz'}")
    assert "no image of" in line
    assert not (tmp_path / "z.npz").exists()


def test_files_are_decoded_as_by_the_run(tmp_path):
    config = tiny_config(
        "cifar10_simsiam", "baseline", "x", **FIELDS, **{"data.bit_depth": 12}
    )
    workdir.claim_workdir(tmp_path / "run", config.to_dict())
    state = jax.jit(make_spec(config, num_devices=1).init)()
    with CheckpointManager(tmp_path / "run" / "checkpoints") as checkpoints:
        checkpoints.save(7, state)
    for folder, picture in (
        ("deep", Image.fromarray(np.full((12, 12), 4095, np.uint16))),
        ("white", Image.new("L", (12, 12), 255)),
    ):
        (tmp_path / folder).mkdir()
        picture.save(tmp_path / folder / "0.png")
    encoder = load_image_encoder(tmp_path / "run")
    deep, white = (
        embedded(
            tmp_path / x, f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / x}.npz"
        )
        for x in ("deep", "white")
    )
    np.testing.assert_array_equal(deep["features"], white["features"])
    np.testing.assert_allclose(
        encoder([tmp_path / "deep" / "0.png"]), white["features"], rtol=1e-4
    )


def test_the_classes_of_splits_are_their_sub_folders(run, tmp_path, capsys):
    root = write_folder(tmp_path / "x", {"train/a": 2, "train/b": 1, "val/b": 1})
    found = embedded(root, f"--workdir={run}", f"--out={tmp_path / 'x.npz'}")
    assert found["class_names"].tolist() == ["a", "b"]
    assert found["labels"].tolist() == [0, 0, 1, 1]
    printed = capsys.readouterr().out
    assert "note: the classes are the sub-folders of train and val" in printed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--out=x.txt"], "must end with .npz or .parquet"),
        (["--out=none/x.npz"], "none must be a folder"),
        (["--out=x.npz", "--weights=w"], "not allowed with argument"),
        (["--out=x.npz", "--mean=0,0,0"], "mean does not apply to a run"),
        (["--out=x.npz", "--crop=13"], "crop=13"),
        (["--out=x.npz", "--resize=0", "--crop=0"], "is 20x50, another is 24x32"),
        (["--out=x.npz", "--batch_size=5"], "must be a multiple of the 4 devices"),
        (["--out=x.npz", "--mean=red"], "must be numbers separated by commas"),
        (["--out=x.npz", "--seed=3"], "--seed=3 must be one of the run's seeds [0]"),
    ],
)
def test_wrong_flags_end_with_one_line(
    flags, message, run, pictures, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, pictures, f"--workdir={run}", *flags)
    assert list(tmp_path.iterdir()) == [pictures]


def test_a_folder_without_images_and_an_existing_output_are_refused(
    run, pictures, tmp_path, capsys
):
    out = tmp_path / "x.npz"
    flags = f"--workdir={run}", f"--out={out}"
    assert "is not a folder" in refused(capsys, tmp_path / "none", *flags)
    assert "has no config.json" in refused(
        capsys, pictures, f"--workdir={tmp_path}", f"--out={out}"
    )
    out.write_text("mine")
    assert "--overwrite" in refused(capsys, pictures, *flags)
    assert out.read_text() == "mine"


def test_a_name_that_is_not_utf_8_is_escaped_in_parquet(run, pictures, tmp_path):
    name = os.fsdecode(b"\xe9t\xe9.png")
    (pictures / "cat" / "wide.png").rename(pictures / "cat" / name)
    out = tmp_path / "features.parquet"
    embed.main([str(pictures), f"--workdir={run}", f"--out={out}"])
    files = parquet.read_table(out)["file"].to_pylist()
    assert r"cat/\xe9t\xe9.png" in files
    assert len(files) == 6
    arrays = embedded(pictures, f"--workdir={run}", f"--out={tmp_path / 'f.npz'}")
    assert os.path.join("cat", name) in arrays["files"].tolist()


def answers(capsys, *arguments):
    """Returns the lines that a query prints, without their ranks."""
    capsys.readouterr()
    embed.main([str(argument) for argument in arguments])
    lines = capsys.readouterr().out.splitlines()
    return [line.split(maxsplit=1)[1] for line in lines if line.startswith("   ")]


def test_an_index_answers_with_the_encoder_that_it_was_written_by(
    run, pictures, tmp_path, capsys
):
    (pictures / "cat" / "1.png").write_bytes(b"no picture")
    index = tmp_path / "x.index"
    flags = [str(pictures), f"--workdir={run}", f"--index={index}", "--crop=7"]
    embed.main([*flags, "--batch_size=4"])
    names = ["cat/0.png", "cat/2.png", "cat/wide.png", "train/old/0.png"]
    asked = ["--query", *(pictures / name for name in names), f"--index={index}"]
    found = answers(capsys, *asked, "--k=1")
    expected = [f"1.0000 {name} ({name.split('/')[0]})" for name in names]
    assert found == expected
    assert len(answers(capsys, *asked[:2], asked[-1], "--k=99")) == 5
    moved = run.rename(run.with_name("moved"))
    line = refused(capsys, *asked)
    assert f"{run}, which has the encoder of {index}, does not exist" in line
    assert answers(capsys, *asked, f"--workdir={moved}", "--k=1") == expected
    moved.rename(run)


def test_an_index_of_an_encoder_of_the_zoo_is_queried(pictures, tmp_path, capsys):
    index = tmp_path / "x.index"
    weights = f"--weights={zoo.names()[0]}"
    embed.main([str(pictures), weights, f"--index={index}"])
    asked = ["--query", pictures / "cat" / "0.png", f"--index={index}", "--k=1"]
    assert answers(capsys, *asked) == ["1.0000 cat/0.png (cat)"]


def test_an_index_refuses_another_encoder_and_keeps_its_step(
    run, pictures, tmp_path, capsys
):
    index = tmp_path / "x.index"
    shutil.copytree(run, tmp_path / "run")
    embed.main([str(pictures), f"--workdir={tmp_path / 'run'}", f"--index={index}"])
    asked = ("--query", pictures / "cat" / "0.png", f"--index={index}", "--k=1")
    config = tiny_config("cifar10_simsiam", "baseline", "x", **FIELDS, seed=1)
    state = jax.jit(make_spec(config, num_devices=1).init)()
    with CheckpointManager(tmp_path / "run" / "checkpoints") as checkpoints:
        checkpoints.save(8, state)  # the run is trained further
    assert answers(capsys, *asked) == ["1.0000 cat/0.png (cat)"]
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "7")
    assert "7" in refused(capsys, *asked)
    weights = tmp_path / "other.safetensors"
    convert.main([str(tmp_path / "run"), f"--out={weights}"])
    line = refused(capsys, *asked, f"--weights={weights}")
    assert "step does not apply to a file" in line
    embed.main([str(pictures), f"--weights={weights}", *SIZES, f"--index={index}2"])
    convert.main([str(run), f"--out={weights}", "--overwrite"])
    line = refused(capsys, *asked[:2], f"--index={index}2")
    assert f"{weights} is not the encoder of {index}2: its weights are ResNet" in line


def test_the_page_shows_pictures_of_all_images_or_states_how_many(
    run, pictures, tmp_path, capsys
):
    page = tmp_path / "page.html"
    flags = [str(pictures), f"--workdir={run}", f"--neighbors={page}", "--k=99"]
    embed.main(flags)
    text = page.read_text()
    assert text.count("<figure") == text.count("data:image/jpeg") == 6
    assert "A click on an image shows the 5 images" in text
    assert "of 6 images" not in text
    embed.main([*flags, "--overwrite", "--thumbnails=3", "--duplicates=1"])
    text = page.read_text()
    assert "<figure" in text
    assert text.count("<figure") <= 3
    assert "of 6 images" in text
    assert "similarity of at least 1.0000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["x", "--workdir=r"], "give what to write: --out, --neighbors or --index"),
        (["x", "--out=x.npz"], "give the encoder: --workdir=RUN or --weights=FILE"),
        (["--workdir=r", "--out=x.npz"], "DIR is missing"),
        (["x", "--workdir=r", "--neighbors=x.png"], "must end with .html"),
        (["--query=x.png"], "--query needs --index=FILE"),
        (["--query=x.png", "--index=x", "--crop=7"], "--crop does not apply to"),
        (["--query=x.png", "--index=x", "--k=0"], "'0' must be a whole number"),
        (["x", "--workdir=r", "--neighbors=x.html", "--duplicates=2"], "a cosine"),
        (["--query=x.png", "--index=none"], "none is not a file; write an index"),
    ],
)
def test_wrong_flags_of_a_search_end_with_one_line(flags, message, capsys):
    assert message in refused(capsys, *flags)
