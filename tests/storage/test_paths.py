"""Paths that a user gives."""

from pathlib import Path

import pytest

from logo_jax.storage import paths
from logo_jax.storage.paths import as_path, local_path, parse_path, parse_paths


def test_a_path_in_a_bucket_keeps_its_url():
    path = parse_path("gs://b/runs/mine")
    assert paths.in_bucket(path)
    assert str(path / "x.json") == "gs://b/runs/mine/x.json"
    assert str(path.absolute()) == str(path.resolve()) == "gs://b/runs/mine"
    assert (path.name, str(path.parent)) == ("mine", "gs://b/runs")
    assert parse_path(path) == path
    # pathlib has kept one slash
    assert str(parse_path(Path("s3://b/x"))) == "s3://b/x"


def test_a_path_in_a_bucket_is_in_no_folder_of_the_machine():
    assert not parse_path("gs://b/x").is_relative_to(Path("/"))
    assert parse_path("gs://b/x").is_relative_to(parse_path("gs://b"))


def test_several_paths_may_be_of_both_kinds():
    found = [str(path) for path in parse_paths("gs://b/x, /y")]
    assert found == ["gs://b/x", "/y"]


@pytest.mark.parametrize("url", ["hdfs://b/x", "http://b/x", "gs://", "az://b/x"])
def test_other_urls_are_refused(url):
    with pytest.raises(ValueError, match=f"^{url} must be a path of this machine, or"):
        as_path(url)


def test_a_bucket_is_refused_if_the_path_must_be_of_this_machine():
    with pytest.raises(ValueError, match="gs://b/x must be a path of this machine"):
        local_path("gs://b/x")


@pytest.mark.parametrize(("scheme", "extra"), [("gs", "gcs"), ("s3", "s3")])
def test_a_missing_package_is_one_line_that_names_the_extra(scheme, extra, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=rf"pip install 'logo_jax\[{extra}\]'"):
        as_path(f"{scheme}://no-package/x")


def test_no_answer_is_an_error_within_seconds(monkeypatch):
    monkeypatch.setattr(paths, "PATIENCE", 0.1)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    monkeypatch.setattr(paths, "_probe", lambda *arguments: __import__("time").sleep(1))
    with pytest.raises(ValueError, match="no answer within"):
        as_path("gs://no-answer/x")


def test_a_missing_bucket_is_one_line(bucket):
    url = str(bucket).partition(":")[0] + "://no-such-bucket"
    with pytest.raises(ValueError, match=f"^{url} cannot be read .*credentials"):
        as_path(f"{url}/x")


def test_files_in_a_bucket_are_read_and_written_as_on_disk(bucket):
    file = bucket / "sub" / "x.txt"
    assert not file.exists()
    with pytest.raises(FileNotFoundError):
        file.read_text()
    file.write_text("é")
    assert file.read_text() == "é"
    assert (file.is_file(), file.is_dir()) == (True, False)
    assert (bucket.is_file(), bucket.is_dir()) == (False, True)
    assert list(bucket.iterdir()) == [bucket / "sub"]
    file.unlink()
    assert not file.exists()
