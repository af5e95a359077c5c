"""Files are read as data: nothing is unpickled, executed or written elsewhere."""

import ast
import io
import pathlib
import pickle
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import logo_jax
from logo_jax.data.builders import archives
from logo_jax.data.sources.npz import load_npz
from logo_jax.interop import detectron2
from logo_jax.training.checkpoints.manager import CheckpointManager

SOURCES = sorted(pathlib.Path(logo_jax.__file__).parent.rglob("*.py"))
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}
FORBIDDEN_MODULES |= {"subprocess", "pty", "commands", "joblib", "yaml"}
# svm sends only its own arrays to its own processes. sweep starts commands as argument
# lists; a test below rejects `shell=True`.
# detectron2 reads pickles only, and the module reads back its own files, arrays only.
# program_cache reads machine code, which runs anyway, from files that only the user of
# the process can have written; a test of its own requires this.
ALLOWED_MODULES = {
    "svm": {"joblib"},
    "sweep": {"subprocess"},
    "detectron2": {"pickle"},
    "program_cache": {"pickle"},
}
ALLOWED_CALLS = {"program_cache": {"pickle.loads"}}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_METHODS = {"os.system", "os.popen", "os.execv", "os.spawnv", "joblib.load"}
FORBIDDEN_METHODS |= {"pickle.load", "pickle.loads"}
EXTRACTING = {
    "extractall",
    "unpack_archive",
}  # extractfile is allowed: it writes nothing


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return pathlib.Path.write_text, (self.mark, "unpickled")


@pytest.fixture(name="mark")
def fixture_mark(tmp_path):
    """File that exists only if an object has been unpickled."""
    return tmp_path / "mark"


def test_unpickling_the_bomb_writes_the_file(mark):
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()


def test_an_npz_with_a_pickled_object_is_refused_and_not_unpickled(mark, tmp_path):
    images = np.array([Bomb(mark)], dtype=object)
    np.savez(tmp_path / "train.npz", images=images)
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        load_npz(tmp_path, "train")
    assert not mark.exists()


def test_a_checkpoint_whose_files_are_pickles_is_damaged_and_not_unpickled(
    mark, tmp_path
):
    folder, state = tmp_path / "checkpoints", {"x": jnp.arange(3)}
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, state)
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert len(files) > 3
    for file in files:
        file.write_bytes(pickle.dumps(Bomb(mark)))
    with (
        CheckpointManager(folder, read_only=True) as checkpoints,
        pytest.raises(ValueError, match="damaged"),
    ):
        checkpoints.restore_latest(jax.eval_shape(lambda: state))
    assert not mark.exists()


def test_a_pickle_of_detectron2_with_other_objects_than_arrays_is_not_read(
    mark, tmp_path
):
    file = tmp_path / "w.pkl"
    file.write_bytes(pickle.dumps({"model": {"stem.conv1.weight": Bomb(mark)}}))
    with pytest.raises(pickle.UnpicklingError, match="is not of an array"):
        detectron2.read(file)
    assert not mark.exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("name", ["member", "../member", "/member"])
def test_links_of_an_archive_are_not_followed(kind, name, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("outside")
    file = tmp_path / "x.tar"
    with tarfile.open(file, "w") as tar:
        link = tarfile.TarInfo(name)
        link.type, link.linkname = kind, str(secret)
        tar.addfile(link)
    with pytest.raises(ValueError, match=f"has no file {name}"):
        archives.read_members(file, [name])
    with (
        pytest.raises(ValueError, match=f"has no file {name}"),
        archives.open_member(file, name),
    ):
        pass


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside"])
def test_reading_an_archive_writes_nothing_for_any_member_name(name, tmp_path):
    folder = tmp_path / "inside"
    folder.mkdir()
    with tarfile.open(folder / "x.tar", "w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    assert archives.read_members(folder / "x.tar", [name]) == {name: b"abc"}
    assert [file.name for file in tmp_path.rglob("*")] == ["inside", "x.tar"]


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.stem)
def test_no_source_unpickles_extracts_evaluates_or_runs_a_shell(file):
    forbidden = FORBIDDEN_MODULES - ALLOWED_MODULES.get(file.stem, set())
    not_called = FORBIDDEN_CALLS | FORBIDDEN_METHODS
    not_called -= ALLOWED_CALLS.get(file.stem, set())
    for node in ast.walk(ast.parse(file.read_text())):
        assert not set(imported(node)) & forbidden, file
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in not_called, file
            assert called.rpartition(".")[2] not in EXTRACTING, file
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert given.get("shell", "False") == "False", file
            assert given.get("allow_pickle", "False") == "False", file
            if called in ("np.load", "numpy.load"):
                assert given["allow_pickle"] == "False", file
            if called == "torch.load":
                assert given["weights_only"] == "True", file


def imported(node):
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [str(node.module).partition(".")[0]]
    return []
