"""`logo_jax.doctor --data` describes images before training and leaves them alone."""

import re

import numpy as np
import pytest

from logo_jax import doctor
from logo_jax.data.sources.base import ArraySource
from logo_jax.data.survey import equal_images, survey
from tests.backbones import CHEAP
from tests.data.pictures import encoded, smooth, write_folder

FLAGS = [f"--config.{name}={value}" for name, value in CHEAP.items()]


@pytest.fixture(name="photos")
def fixture_photos(tmp_path):
    """Two classes; 5 and 11 training images with a copy each, and a damaged one."""
    root = tmp_path / "my photos ü"
    write_folder(root / "train", {"cat": 4, "dog": 8})
    write_folder(root / "val", {"cat": 1, "dog": 1}, size=(40, 20))
    gray = encoded(smooth(30, 60), "JPEG", mode="L")
    for file in ("train/dog/a.jpg", "train/dog/b.jpg", "val/dog/leaked.jpg"):
        (root / file).write_bytes(gray)
    (root / "train/cat/wrong.jpg").write_bytes(gray)
    (root / "train/dog/bad.png").write_bytes(encoded(smooth(24, 32))[:60])
    (root / "train/dog/notes.txt").write_text("no image")
    return root


def run(*argv):
    return doctor.main([*argv, *FLAGS])


def test_a_folder_is_described_in_the_terminal_and_on_a_page(photos, tmp_path, capsys):
    before = sorted(photos.rglob("*"))
    page, bad = tmp_path / "page.html", tmp_path / "bad.txt"
    argv = [f"--data={photos}", f"--out={page}", f"--damaged={bad}"]
    assert run(*argv) == 2  # one of 19 is more than 0.1 %
    out = capsys.readouterr().out
    found = {line[5:14].strip(): line for line in out.splitlines() if line[0] != " "}
    assert f"16 images of {photos}/train in 2 classes; kNN" in found["images"]
    assert "queries 3 of" in found["images"]
    assert "passed over files: 1 .txt" in found["notes"]
    assert "chosen for 16 images of about 24x32 px" in found["chosen"]
    assert found["damaged"].startswith("FAIL damaged  1 of 19 cannot be decoded")
    assert "3 of 19 images are copies of others; 1 queries are" in found["copies"]
    assert "1 groups of copies have different classes" in found["copies"]
    assert "short side 20 to 30 px, median 24; 14 PNG RGB, 4 JPEG L" in found["sizes"]
    assert "train: 2 classes of 5 (cat) to 11 images (dog)" in out
    assert bad.read_text().startswith(f"{photos}/train/dog/bad.png: ")
    text = page.read_text()
    assert re.findall(r'<figure id="([\w-]+)"', text) == [
        "crops",
        "sizes",
        "classes-train",
        "classes-queries",
    ]
    assert "wrong.jpg" in text
    assert "src=" not in text.replace('src="data:image/png', "")
    assert sorted(photos.rglob("*")) == before


def test_images_outside_of_the_classes_and_a_lack_of_queries_are_warnings(
    tmp_path, capsys
):
    write_folder(tmp_path / "photos", {"cat": 10, "dog": 10, ".": 1})
    argv = [f"--data={tmp_path / 'photos'}", f"--out={tmp_path / 'page.html'}"]
    assert run(*argv) == 0
    first, second, *_, balance, _ = capsys.readouterr().out.splitlines()
    assert first.startswith("warn images")
    assert "no kNN: " in first
    assert second.startswith("warn notes")
    assert "classes: 1 of 21 images (0.png), without a label" in second
    assert balance.endswith(" 2 classes of 10 images each")


def test_a_sample_of_an_npz_file_is_described(tmp_path, capsys, monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (40, 12, 12, 3), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(40) // 38)
    monkeypatch.chdir(tmp_path)
    argv = [f"--data={tmp_path / 'a.npz'}", "--sample=20", "--config.data.val_size=4"]
    assert run(*argv) == 0
    out = capsys.readouterr().out
    assert "24 evenly spaced of 40 images" in out
    assert "24 pixels" in out
    assert "warn classes  train: 2 classes of 1 (1) to 19 images (0)" in out
    assert (tmp_path / "a_data.html").exists()
    with pytest.raises(SystemExit):
        run(*argv)
    assert "a_data.html exists; give --overwrite" in capsys.readouterr().err


def test_bad_input_is_one_line_and_nothing_is_written(photos, capsys):
    for argv, message in (
        ([f"--data={photos}", f"--out={photos}/x.html"], "is in the folder of the im"),
        (["--data=/no/where"], "--data=/no/where is not a folder; give a folder"),
        ([f"--data={photos},/no/x"], "--data=/no/x is not a folder"),
        (
            [f"--data={photos / 'train'},{photos / 'val'}", f"--out={photos}/val/x"],
            "x is in the folder of the images",
        ),
        ([f"--data={photos}", "--damaged=/no/x.txt"], "/no must be a folder, to write"),
        ([f"--data={photos}", "--workdir=x"], "leave out --workdir and --print"),
        ([f"--data={photos}", "--steps=0"], "--steps times steps on these devices"),
        ([f"--data={photos}", "--level=O1"], "--level needs --target=DEVICES"),
        (["--config=folder", "--out=x.html"], "--out needs --data=DIR"),
        (["--config=folder", "--sample=3"], "--sample needs --data=DIR"),
        (["--config=cifar10_moco", "--damaged=/no/x.txt"], "/no must be a folder"),
        ([], "--config=NAME or --data=DIR is required"),
    ):
        with pytest.raises(SystemExit) as ended:
            run(*argv)
        assert ended.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert message in lines[0]
    assert not (photos / "x.html").exists()


def test_equal_images_are_found_and_different_shapes_are_not_equal():
    images = np.zeros((6, 2, 3, 3), np.uint8)
    images[1:3] = 7
    images[4] = 9
    one = survey(ArraySource(images, origin="one"))
    groups = [rows.tolist() for rows in equal_images(one.digests)]
    assert sorted(groups) == [[0, 3, 5], [1, 2]]
    turned = images.reshape(6, 3, 2, 3)  # the same bytes
    both = np.concatenate(
        [one.digests, survey(ArraySource(turned, origin="two")).digests]
    )
    assert sorted(rows.tolist() for rows in equal_images(both)) == [
        [0, 3, 5],
        [1, 2],
        [6, 9, 11],
        [7, 8],
    ]
    assert one.num_bytes > images.nbytes - 1
    sizes = survey(ArraySource(images, origin="one"), limit=2).sizes
    assert sizes.tolist() == [[2, 3], [2, 3]]


def test_images_of_two_channels_are_described_with_their_measured_values(
    tmp_path, capsys
):
    root = tmp_path / "images"
    root.mkdir()
    images = np.linspace(0, 4, 8 * 32 * 32 * 2, dtype=np.float32)
    for i, image in enumerate(images.reshape(8, 32, 32, 2)):
        np.save(root / f"{i}.npy", image)
    flags = [flag for flag in FLAGS if "grayscale" not in flag]
    flags += ["--config.data.channels=2", f"--out={tmp_path / 'page.html'}"]
    assert doctor.main([f"--data={root}", *flags]) == 0
    out = capsys.readouterr().out
    assert "2 channels of float32: 0 becomes 0 and 4 becomes 1; mean (0.5, 0.5)" in out
    assert 'id="crops"' in (tmp_path / "page.html").read_text()
