"""Files and folders are replaced only when complete; errors leave them unchanged."""

import pytest

from logo_jax.training import atomic


def test_a_file_is_replaced_completely_and_no_other_file_is_left(tmp_path):
    file = tmp_path / "a.txt"
    atomic.write_text(file, "old\n")
    (tmp_path / "partial.a.txt").write_text("left by a killed process")
    atomic.write_text(file, "ü\r\nnew\n")
    assert file.read_bytes() == "ü\r\nnew\n".encode()
    assert list(tmp_path.iterdir()) == [file]


def test_an_error_in_the_block_leaves_the_file_unchanged(tmp_path):
    file = tmp_path / "a.npz"
    file.write_text("old")

    def fail():
        with atomic.replace(file) as partial:
            assert partial.suffix == ".npz"
            partial.write_text("new")
            assert file.read_text() == "old"
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_keeps_its_other_files(tmp_path):
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "own").write_text("kept")
    (folder / "index").write_text("old")
    with atomic.replace(folder) as partial:
        partial.mkdir()
        (partial / "index").write_text("new")
    assert {file.name: file.read_text() for file in folder.iterdir()} == {
        "own": "kept",
        "index": "new",
    }
    assert list(tmp_path.iterdir()) == [folder]


def test_an_oserror_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"^.*{tmp_path}/no/a: No such file"):
        atomic.write_text(tmp_path / "no" / "a", "x")
    (tmp_path / "b").mkdir()
    with pytest.raises(IsADirectoryError, match=f"{tmp_path}/b: Is a directory"):
        atomic.write_text(tmp_path / "b", "x")
