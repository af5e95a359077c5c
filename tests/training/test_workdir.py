"""Lock and config of a run's folder."""

import contextlib
import fcntl
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from logo_jax import configs
from logo_jax.configs import base
from logo_jax.training import workdir
from logo_jax.training.workdir import (
    check_config,
    claim_workdir,
    flatten,
    lock_workdir,
    read_config,
    record_data,
    require_free,
    require_same_data,
    with_absolute_paths,
)

HOLD = """
import pathlib, sys, time
from logo_jax.training.workdir import lock_workdir
with lock_workdir(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

START = """
import pathlib, subprocess, sys
from logo_jax.training.workdir import lock_workdir
child = "import sys; print('held', flush=True); sys.stdin.read()"
with lock_workdir(pathlib.Path(sys.argv[1])):
    subprocess.run([sys.executable, "-c", child], close_fds=False)
"""

FORK = """
import os, pathlib, sys
from logo_jax.training.workdir import lock_workdir
with lock_workdir(pathlib.Path(sys.argv[1])):
    if not os.fork():
        sys.stdin.read()
        os._exit(0)
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def _started(program, folder):
    """Process that has locked the folder and waits until its standard input closes."""
    command = [sys.executable, "-c", program, str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process


@pytest.fixture(name="holder")
def fixture_holder(tmp_path):
    """Process that holds the lock until its standard input closes."""
    with _started(HOLD, tmp_path) as process:
        yield process


def test_a_held_folder_is_refused_with_host_and_pid(holder, tmp_path):
    for take in (require_free, lambda folder: lock_workdir(folder).__enter__()):
        with pytest.raises(ValueError, match=f"in use by process {holder.pid} on "):
            take(tmp_path)


def test_the_lock_of_a_killed_process_is_released(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    require_free(tmp_path)
    with lock_workdir(tmp_path):
        assert str(holder.pid) not in (tmp_path / "lock").read_text()


def test_a_process_that_the_holder_starts_does_not_inherit_the_lock(tmp_path):
    with _started(START, tmp_path) as holder:
        holder.kill()  # its child keeps running, with the inherited files
        holder.wait()
        require_free(tmp_path)


def test_a_lock_is_released_although_another_process_shares_the_file(tmp_path):
    with _started(FORK, tmp_path):
        require_free(tmp_path)


def test_a_folder_may_be_locked_again_and_its_file_names_the_last(tmp_path):
    for _ in range(2):
        with lock_workdir(tmp_path):
            pass
    assert (tmp_path / "lock").read_text().count("process") == 1


def test_a_file_system_without_locks_is_refused_in_one_line(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    message = r"locks \(Function not .*or --config.train.lock=False and never start"
    with pytest.raises(ValueError, match=message), lock_workdir(tmp_path):
        pass
    monkeypatch.setattr(workdir, "fcntl", None)  # as on Windows
    with (
        pytest.raises(ValueError, match=r"locks \(this system has no flock\)"),
        lock_workdir(tmp_path),
    ):
        pass
    with lock_workdir(tmp_path / "new", lock=False):
        assert list((tmp_path / "new").iterdir()) == []


def config_with(**fields):
    """A config in which some fields, named group.field, have other values."""
    return configs.load("cifar10_moco:logo", fields).to_dict()


def test_fields_that_change_nothing_learned_may_differ_and_are_saved(tmp_path):
    saved = config_with(**{"data.path": "/old", "data.threads": 2})
    claim_workdir(tmp_path, saved)
    moved = config_with(**{"data.path": "/new", "data.max_corrupt": 0.2})
    assert check_config(tmp_path, moved) == [
        "data.max_corrupt: 0.001 -> 0.2",
        "data.path: /old -> /new",
        "data.threads: 2 -> 0",
    ]
    assert read_config(tmp_path) == saved  # a check writes nothing
    claim_workdir(tmp_path, moved)
    assert read_config(tmp_path) == moved
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json"]


def test_a_field_that_changes_what_is_learned_is_refused_with_the_others(tmp_path):
    claim_workdir(tmp_path, config_with())
    other = config_with(**{"data.path": "/new", "data.canvas": 64, "seed": 1})
    with pytest.raises(ValueError, match=r"\(data.canvas: 512 -> 64; seed: 0 -> 1\)"):
        claim_workdir(tmp_path, other)
    assert read_config(tmp_path) == config_with()


@pytest.mark.parametrize("norm", ["split:2", "global"])
def test_the_number_of_parts_may_differ_if_the_groups_of_batch_norm_stay(
    norm, tmp_path
):
    claim_workdir(tmp_path, config_with(batch_norm=norm))
    parts = config_with(**{"batch_norm": norm, "train.accumulate": 2})
    if norm == "global":
        with pytest.raises(ValueError, match=r"\(train.accumulate: 1 -> 2\)"):
            claim_workdir(tmp_path, parts)
    else:
        claim_workdir(tmp_path, parts)
        assert read_config(tmp_path) == parts


def test_every_field_that_may_differ_or_is_a_path_is_a_field():
    known = dict(flatten(base.get_config("moco").to_dict()))
    assert set(base.MAY_CHANGE + base.PATHS) <= set(known)


def test_paths_of_a_config_are_those_of_the_folder_it_was_given_in(
    tmp_path, monkeypatch
):
    fields = {"data.path": "photos", "data.classes": "~/list", "encoder.weights": "/w"}
    given = config_with(**fields)
    monkeypatch.chdir(tmp_path)
    config = with_absolute_paths(given)
    assert config["data"]["path"] == str(tmp_path / "photos")
    assert config["data"]["classes"] == str(pathlib.Path.home() / "list")
    assert config["encoder"]["weights"] == "/w"
    assert config["train"]["start_from"] == ""
    assert given["data"]["path"] == "photos"
    claim_workdir(tmp_path / "run", given)  # as an earlier version has written it
    assert check_config(tmp_path / "run", config) == []
    claim_workdir(tmp_path / "run", config)
    assert read_config(tmp_path / "run")["data"]["path"] == str(tmp_path / "photos")


def test_each_of_several_paths_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c,d").mkdir()
    for given, wanted in (
        ("a, ~/b,/c", f"{tmp_path}/a,{pathlib.Path.home()}/b,/c"),
        ("c,d", f"{tmp_path}/c,d"),
        ("('a', '/b')", f"{tmp_path}/a,/b"),
    ):
        config = with_absolute_paths({"data": {"path": given, "list": given}})
        assert config["data"] == {"path": wanted, "list": wanted}


PART = {"images": 16, "classes": 2, "crc32": "00000001"}


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (
            {"images": 1020, "classes": 3},
            "16 in 2 classes before, 1,020 in 3 .*now: .1,",
        ),
        ({"images": 15}, "16 in 2 classes before, 15 in 2 classes now: -1"),
        ({"crc32": "00000002"}, "16 in 2 classes as before, but with other names"),
    ],
)
def test_a_run_is_not_resumed_on_other_training_images(new, message, tmp_path):
    data = {"train": PART, "queries": PART}
    assert require_same_data(tmp_path, data) == ""  # nothing is recorded yet
    record_data(tmp_path, data)
    assert require_same_data(tmp_path, data) == ""
    record_data(tmp_path, data | {"train": PART | new})  # keeps the first record
    with pytest.raises(ValueError, match=f"on other training images .{message}"):
        require_same_data(tmp_path, data | {"train": PART | new})
    note = require_same_data(tmp_path, data | {"queries": PART | new})
    assert re.search(f"since the start of the run .queries: {message}", note)


def test_queries_that_were_added_are_noted_and_a_damaged_record_is_refused(tmp_path):
    record_data(tmp_path, {"train": PART})
    note = require_same_data(tmp_path, {"train": PART, "queries": PART})
    assert note.endswith("(queries: none before)")
    for text in ("{", "[]", '{"train": 3}'):
        (tmp_path / "data.json").write_text(text)
        with pytest.raises(ValueError, match=r"data\.json is damaged .*delete it"):
            require_same_data(tmp_path, {"train": PART})


def test_another_length_is_refused_with_the_way_to_train_longer(tmp_path):
    folder = tmp_path / "a run"
    config = {"seed": 0, "train": {"num_epochs": 2, "num_steps": 0}}
    claim_workdir(folder, config)
    longer = {"seed": 0, "train": {"num_epochs": 4, "num_steps": 0}}
    with pytest.raises(ValueError, match="num_epochs: 2 -> 4.* --from='/.*/a run' "):
        check_config(folder, longer)
    with pytest.raises(ValueError, match="use the old values, or another --workdir"):
        check_config(folder, longer | {"seed": 1})
