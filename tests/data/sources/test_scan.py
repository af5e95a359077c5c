import os

import pytest

from logo_jax.data import decode
from logo_jax.data.sources.scan import scan
from logo_jax.visualization.html_page import files
from tests.data.pictures import encoded, smooth, write_folder


@pytest.mark.parametrize("target", [".", "..", "../..", "a"])
def test_a_link_to_a_folder_above_or_next_to_it_adds_nothing(target, tmp_path):
    root = write_folder(tmp_path / "up" / "root", {"a": 2, "b/c": 2})
    write_folder(tmp_path, {"other": 3})
    (root / "b" / "again").symlink_to(root / target)
    found = scan(root)
    assert tuple(found.files) == ("a/0.png", "a/1.png", "b/c/0.png", "b/c/1.png")
    assert "1 linked (to a folder that is read once)" in found.passed_over()


def test_linked_folders_and_files_elsewhere_are_read_once(tmp_path):
    root = write_folder(tmp_path / "root", {"a": 1})
    other = write_folder(tmp_path / "other", {"x/deep": 1, "x": 1})
    (other / "x" / "back").symlink_to(root)
    (root / "z").symlink_to(other)
    (root / "y").symlink_to(other / "x")
    (root / "a" / "file.png").symlink_to(other / "x" / "0.png")
    (root / "a" / "itself").symlink_to(root / "a" / "itself")
    wanted = ("a/0.png", "a/file.png", "y/0.png", "y/deep/0.png")
    assert tuple(scan(root).files) == wanted


def test_the_name_of_a_folder_comes_before_that_of_a_link_to_it(tmp_path):
    write_folder(tmp_path, {"b": 1})
    (tmp_path / "a").symlink_to(tmp_path / "b")
    assert tuple(scan(tmp_path).files) == ("b/0.png",)


def test_folders_of_runs_and_of_file_servers_are_passed_over(tmp_path):
    names = ("@eaDir", "__MACOSX", ".ipynb_checkpoints", "lost+found", "a/@eaDir")
    write_folder(tmp_path, dict.fromkeys(("a", "run/report", "b/old", *names), 1))
    for run, kind in (("run", "metrics.jsonl"), ("b/old", "checkpoints")):
        (tmp_path / run / kind).touch()
    found = scan(tmp_path)
    assert "run/report/0.png" in found.files  # not a run without a config
    for run in ("run", "b/old"):
        (tmp_path / run / "config.json").write_text("{}")
    found = scan(tmp_path)
    assert tuple(found.files) == ("a/0.png",)
    wanted = "folders: 2 @eaDir, 1 __MACOSX, 1 lost+found, 2 of runs"
    assert found.passed_over() == wanted


def test_every_format_that_pillow_decodes_is_taken_and_other_files_are_counted(
    tmp_path,
):
    images = ("a.jfif", "b.JPE", "c.avif", "d.pgm", "e.tga", "f.jp2", "g.mpo")
    others = ("a.txt", "b.TXT", "c.heic", "d.pdf", "e.h5", "f.eps", "g.mpg", "README")
    for name in (*images, *others, ".hidden.txt"):
        (tmp_path / name).touch()
    found = scan(tmp_path)
    assert tuple(found.files) == images
    phrase = found.passed_over()
    assert phrase.startswith("files: 2 .txt, 1 ")
    assert phrase.endswith(", 2 other")
    (tmp_path / "d.pdf").unlink()
    (tmp_path / "README").unlink()
    assert "1 .heic (install pillow-heif to read them)" in scan(tmp_path).passed_over()


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [("jfif", "JPEG"), ("avif", "AVIF"), ("pgm", "PPM"), ("tga", "TGA"), ("jp2", None)],
)
def test_files_with_such_suffixes_are_decoded(suffix, kind, tmp_path):
    file = tmp_path / f"x.{suffix}"
    file.write_bytes(encoded(smooth(8, 9), kind or "JPEG2000"))
    assert tuple(scan(tmp_path).files) == (file.name,)
    assert decode.decode(file)[0].shape == (8, 9, 3)


def test_an_installed_plugin_for_heic_is_used(tmp_path, monkeypatch):
    (tmp_path / "pillow_heif.py").write_text(
        "from PIL import Image\n"
        "def register_heif_opener():\n"
        "    Image.register_open('HEIF', lambda file, name: None)\n"
        "    Image.register_extension('HEIF', '.heic')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(decode.Image, "OPEN", dict(decode.Image.OPEN))
    monkeypatch.setattr(decode.Image, "EXTENSION", dict(decode.Image.EXTENSION))
    monkeypatch.setattr(decode.Image, "ID", list(decode.Image.ID))
    decode.register_plugins()
    assert ".heic" in decode.readable_suffixes.__wrapped__()


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        scan(os.path.join(tmp_path, "none"))


def test_a_report_is_not_trained_on_and_another_page_does_not_hide_images(tmp_path):
    write_folder(tmp_path, {"a": 1, "report": 1, "gallery": 1})
    for name, content in files("A title", []).items():
        (tmp_path / "report" / name).write_bytes(content)
    (tmp_path / "gallery" / "index.html").write_text("<!doctype html><html></html>")
    found = scan(tmp_path)
    assert tuple(found.files) == ("a/0.png", "gallery/0.png")
    assert found.folders["of reports"] == 1
