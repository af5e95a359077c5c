"""Copies of data in a bucket."""

from pathlib import Path

import numpy as np
import pytest

from logo_jax.data.load import DataLocation, load_images, locate_dataset
from logo_jax.storage import copies
from logo_jax.storage.staged import upload


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    copies._copied.cache_clear()


def test_a_folder_is_copied_and_later_only_what_has_changed(bucket, capsys):
    for name in ("a/1", "a/2", "3"):
        (bucket / name).write_text(name)
    folder = copies.on_disk(bucket)
    assert "copying 3 files" in capsys.readouterr().err
    names = {str(x.relative_to(folder)) for x in folder.rglob("*") if x.is_file()}
    assert names == {"a/1", "a/2", "3"}
    assert (folder / "a/2").read_text() == "a/2"

    (bucket / "a/2").write_text("new")  # as long as before
    (bucket / "3").unlink()
    copies._copied.cache_clear()
    copies.on_disk(bucket)
    assert "copying 1 files" in capsys.readouterr().err
    assert (folder / "a/2").read_text() == "new"
    assert not (folder / "3").exists()

    copies._copied.cache_clear()
    copies.on_disk(bucket)
    assert capsys.readouterr().err == ""


def test_a_file_of_a_copy_that_was_stopped_does_not_count_as_complete(
    bucket, monkeypatch
):
    """Its record is that of an earlier copy, which has been deleted."""
    (bucket / "1").write_text("whole")
    (copies.on_disk(bucket) / "1").unlink()

    class Stopped:
        def get(self, _, local):
            Path(local[0]).write_text("who")
            raise KeyboardInterrupt

    found = copies._forms(bucket)
    copies._copied.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(copies, "files_of", lambda place: Stopped())
        patched.setattr(copies, "_forms", lambda path: found)
        with pytest.raises(KeyboardInterrupt):
            copies.on_disk(bucket)
    copies._copied.cache_clear()
    assert (copies.on_disk(bucket) / "1").read_text() == "whole"
    assert not list(copies.cache_folder().rglob("*.partial"))


def test_a_record_with_an_incomplete_line_is_continued(bucket):
    (bucket / "1").write_text("one")
    copies.on_disk(bucket)
    (record,) = (copies.cache_folder() / "records").glob("*.jsonl")
    record.write_text(record.read_text() + '["2", ')  # as after a kill
    for name in ("2", "3"):
        (bucket / name).write_text(name)
        copies._copied.cache_clear()
        assert (copies.on_disk(bucket) / name).read_text() == name


def test_what_is_missing_or_too_large_is_an_error(bucket, monkeypatch):
    with pytest.raises(FileNotFoundError, match=f"{bucket}/x does not exist"):
        copies.on_disk(bucket / "x")
    (bucket / "x").write_text("long")
    monkeypatch.setattr(
        "shutil.disk_usage", lambda folder: type("usage", (), {"free": 1})
    )
    with pytest.raises(ValueError, match="GiB free; set XDG_CACHE_HOME"):
        copies.on_disk(bucket / "x")


def test_arrays_and_lists_are_read_from_a_bucket(bucket, tmp_path):
    from PIL import Image

    images = np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3)
    np.savez(tmp_path / "train.npz", images=images, labels=np.arange(4) % 2)
    upload(tmp_path / "train.npz", bucket / "arrays" / "train.npz")
    assert locate_dataset(f"{bucket}/arrays")["source"] == "npz"
    found = load_images(DataLocation("npz", path=f"{bucket}/arrays"))
    np.testing.assert_array_equal(found.train.images, images)

    for i, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        upload(tmp_path / f"{i}.png", bucket / "listed" / "sub" / f"{i}.png")
    (bucket / "listed" / "list.csv").write_text(
        "path,label\nsub/0.png,a\nsub/3.png,b\n"
    )
    fields = locate_dataset(f"{bucket}/listed/list.csv")
    assert fields["list"] == f"{bucket}/listed/list.csv"
    train = load_images(DataLocation(**fields)).train
    assert len(train) == 2
    assert train.num_classes == 2
