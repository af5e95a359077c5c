"""Compiled programs on disk: a second start traces none, and has the same rows."""

import json
import logging
import os
import pickle
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from logo_jax import _cli
from logo_jax.configs import load
from logo_jax.experiment import make_experiment, make_spec
from logo_jax.parallel import program_cache
from logo_jax.parallel.mesh import AXIS, make_mesh
from logo_jax.runs.training import COMPILED, COMPILING, open_run
from logo_jax.training.preemption import PreemptionHandler
from tests.commands.test_main import SPEED, fixture_arrays, tiny_config
from tests.own_backbones import ConvNeXt

__all__ = ["fixture_arrays"]

PROGRAMS = ("train_step", "init", "cut")
TRACED = "/jax/core/compile/jaxpr_trace_duration"


@pytest.fixture(name="folder")
def fixture_folder(tmp_path):
    """An empty folder of programs."""
    program_cache.keep_in(tmp_path / "programs")
    yield tmp_path / "programs"
    program_cache.keep_in(None)


@pytest.fixture(name="traced")
def fixture_traced():
    """Names of the functions that are traced, in their order."""
    names = []

    def listen(event, _, **about):
        if event == TRACED:
            names.append(about["fun_name"])

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


def files(folder):
    """The files of programs, without the links to them."""
    return sorted(file for file in folder.iterdir() if not file.is_symlink())


def sum_over_devices(devices, identity="sum"):
    """A function that donates its argument, over devices."""
    mesh = make_mesh(devices)
    sharding = NamedSharding(mesh, P(AXIS))

    def add_mean(x):
        return {"x": x + x.mean(), "n": jnp.int32(3)}

    made = jax.jit(add_mean, donate_argnums=0)
    numbers = np.arange(8, dtype=np.float32)
    one = program_cache.kept(made, "sum", identity, devices)
    return one, lambda: jax.device_put(numbers, sharding)


def test_a_kept_program_is_not_traced_and_gives_the_same_results(folder, traced):
    first, numbers = sum_over_devices(jax.devices())
    expected = first(numbers())
    assert traced.count("add_mean") == 1
    second, numbers = sum_over_devices(jax.devices())
    donated = numbers()
    shapes, result = second.eval_shape(donated), second(donated)
    assert traced.count("add_mean") == 1
    assert donated.is_deleted()
    assert result["x"].sharding == expected["x"].sharding
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == {
        "x": ((8,), np.float32),
        "n": ((), np.int32),
    }
    jax.tree.map(np.testing.assert_array_equal, result, expected)
    (file,) = files(folder)
    assert file.name.startswith("sum-")
    assert file.stat().st_mode & 0o077 == 0


def changed_sources(monkeypatch):
    monkeypatch.setattr(program_cache, "_sources", lambda folder: "other")


def changed_processor(monkeypatch):
    monkeypatch.setattr(program_cache, "_processor", lambda: ["flags: fewer"])


def changed_flags(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"] + " ")


def changed_settings(monkeypatch):
    values = jax.config.values | {"jax_default_matmul_precision": "float32"}
    monkeypatch.setattr(type(jax.config), "values", values)


@pytest.mark.parametrize(
    "change", [changed_sources, changed_processor, changed_flags, changed_settings]
)
@pytest.mark.usefixtures("folder")
def test_a_program_of_another_environment_is_not_used(change, traced, monkeypatch):
    for _ in range(2):
        function, numbers = sum_over_devices(jax.devices()[:2])
        function(numbers())
    assert traced.count("add_mean") == 1
    change(monkeypatch)
    function, numbers = sum_over_devices(jax.devices()[:2])
    function(numbers())
    assert traced.count("add_mean") == 2


def test_programs_of_other_devices_and_values_are_not_used(folder, traced):
    devices = jax.devices()
    for where in (devices[:1], devices[1:2], devices[:2]):
        for identity in "ab":
            for _ in range(2):
                jax.clear_caches()  # of traces
                function, numbers = sum_over_devices(where, identity)
                assert function(numbers())["x"].devices() == set(where)
    assert traced.count("add_mean") == 6
    assert len(files(folder)) == 3  # both identities have the same programs


def no_program(data):
    arguments, results, _ = pickle.loads(zlib.decompress(data))
    return zlib.compress(pickle.dumps((arguments, results, b"no program")))


@pytest.mark.parametrize(
    "damage", [lambda x: x[:-20], lambda x: x[:9] + b"!" + x[10:], no_program]
)
def test_a_damaged_file_is_replaced_after_a_warning(damage, folder, caplog):
    function, numbers = sum_over_devices(jax.devices()[:1])
    expected = function(numbers())
    (file,) = files(folder)
    file.write_bytes(damage(file.read_bytes()))
    with caplog.at_level(logging.WARNING):
        function, numbers = sum_over_devices(jax.devices()[:1])
        assert function.load() is None
        result = function(numbers())
        (line,) = caplog.messages
        assert " cannot be read, so the program is compiled again: " in line
        jax.tree.map(np.testing.assert_array_equal, result, expected)
        function, numbers = sum_over_devices(jax.devices()[:1])
        assert function.load()(numbers())["n"] == 3
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("which", ["file", "folder"])
def test_a_file_that_another_user_can_write_is_not_read(which, folder, caplog):
    function, numbers = sum_over_devices(jax.devices()[:1])
    function(numbers())
    (file,) = files(folder)
    (file if which == "file" else folder).chmod(0o770)
    with caplog.at_level(logging.WARNING):
        assert sum_over_devices(jax.devices()[:1])[0].load() is None
    assert "another user can write the file or its folder" in caplog.text
    assert file.exists()


def test_a_link_in_a_folder_of_others_does_not_delete_what_it_points_to(
    folder, tmp_path, caplog
):
    function, numbers = sum_over_devices(jax.devices()[:1])
    function(numbers())
    (link,) = (file for file in folder.iterdir() if file.is_symlink())
    link.unlink()
    other = tmp_path / "other"
    other.write_text("no program")
    link.symlink_to(other)
    folder.chmod(0o777)
    with caplog.at_level(logging.WARNING):
        assert sum_over_devices(jax.devices()[:1])[0].load() is None
    assert "is not read" in caplog.text
    assert other.exists()


@pytest.mark.usefixtures("folder")
def test_a_program_that_jax_has_in_its_cache_is_complete(tmp_path):
    """A copy of what JAX has read from its cache could not be called."""
    cache = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: jax.config.values[name] for name in cache}
    numbers = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)

    def made():
        return jax.jit(lambda x: jnp.sort(jnp.tanh(x) @ jnp.exp(x.T)).cumsum(0))

    try:
        for name, value in zip(cache, (str(tmp_path / "jax"), 0.0), strict=True):
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        expected = made()(numbers)
        assert list((tmp_path / "jax").iterdir())
        jax.clear_caches()
        for _ in range(2):
            one = program_cache.kept(made(), "sum", "x", jax.devices()[:1])
            np.testing.assert_array_equal(one(numbers), expected)
        assert one.load() is not None
        assert jax.config.values["jax_enable_compilation_cache"]
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def test_a_folder_that_cannot_be_written_is_a_warning(folder, caplog):
    folder.write_text("")
    function, numbers = sum_over_devices(jax.devices()[:1])
    with caplog.at_level(logging.WARNING):
        assert function(numbers())["n"] == 3
    assert "is not written: " in caplog.text


def test_the_files_that_were_not_used_for_longest_are_deleted(folder, monkeypatch):
    folder.mkdir()
    for i, name in enumerate("cab"):
        (folder / name).write_bytes(bytes(100))
        os.utime(folder / name, (i, i))
    monkeypatch.setattr(program_cache, "MOST_BYTES", 200)
    program_cache._delete_oldest(folder)
    assert [file.name for file in files(folder)] == ["a", "b"]


def test_a_program_that_is_read_counts_as_used_with_its_link(folder, monkeypatch):
    function, numbers = sum_over_devices(jax.devices()[:1])
    function(numbers())
    kept = set(folder.iterdir())
    for file in kept:
        os.utime(file, (1, 1), follow_symlinks=False)
    assert sum_over_devices(jax.devices()[:1])[0].load() is not None
    (folder / "unused").write_bytes(bytes(100))
    os.utime(folder / "unused", (2, 2))
    most = sum(file.lstat().st_size for file in kept)
    monkeypatch.setattr(program_cache, "MOST_BYTES", most)
    program_cache._delete_oldest(folder)
    assert set(folder.iterdir()) == kept


@pytest.mark.usefixtures("folder")
def test_an_unknown_identity_and_several_processes_use_no_file(monkeypatch):
    made = jax.jit(jnp.sin)
    devices = jax.devices()[:1]
    assert program_cache.kept(made, "sin", "", devices) is made
    assert program_cache.kept(made, "sin", "x", devices) is not made
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert program_cache.kept(made, "sin", "x", devices) is made


@pytest.mark.parametrize(
    ("given", "enabled", "expected"),
    [(None, True, True), (None, False, False), ("other", True, False)],
)
def test_commands_keep_programs_unless_the_cache_of_jax_is_set(
    given, enabled, expected, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = dict(jax.config.values)
    changes = {
        "jax_compilation_cache_dir": given and str(tmp_path / given),
        "jax_enable_compilation_cache": enabled,
        "jax_persistent_cache_min_compile_time_secs": 1.0,
    }
    made = jax.jit(jnp.sin)
    try:
        for name, value in changes.items():
            jax.config.update(name, value)
        _cli.keep_compiled_code()
        one = program_cache.kept(made, "sin", "x", jax.devices()[:1])
        assert (one is not made) == expected
        if expected:
            one(1.0)
            assert files(tmp_path / "logo_jax" / "programs") != []
    finally:
        program_cache.keep_in(None)
        for name in changes:
            jax.config.update(name, before[name])
        compilation_cache.reset_cache()


def identity(**fields):
    config = load("quickstart", fields).to_dict()
    return make_spec(config, num_devices=1, steps_per_epoch=5).identity


def blurred(key, images):
    """An augmentation of one's own."""
    del key
    return images


def test_a_config_with_code_of_ones_own_has_no_identity():
    assert identity() == identity(seed=3) != ""
    assert identity(**{"optimizer.learning_rate": 0.01}) not in (identity(), "")
    assert identity(seeds=2) not in (identity(), "")
    assert identity(**{"encoder.backbone": ConvNeXt}) == ""
    assert identity(**{"augment.extra": blurred}) == ""


def rows_of(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [
        {name: x for name, x in json.loads(line).items() if name not in SPEED}
        for line in lines
    ]


def trained(config, folder):
    with open_run(config.to_dict(), folder, quiet=False) as run:
        run.train(PreemptionHandler())
    return rows_of(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10_moco", "cifar10_swav"])
def test_a_second_start_traces_no_program_and_has_equal_rows(
    name, arrays, folder, tmp_path, traced, capfd
):
    changes = {
        "data.batch_size": 16,
        "encoder.backbone": "resnet10",
        "monitor.linear": True,
        "optimizer.warmup_epochs": 0.0,
    }
    config = tiny_config(name, "logo", arrays, **changes)
    first = trained(config, tmp_path / "first")
    assert [traced.count(x) > 0 for x in PROGRAMS] == [True] * 3
    assert [x.name.split("-")[0] for x in files(folder)] == ["crops", "init", "step"]
    assert COMPILING in capfd.readouterr().err
    traced.clear()
    second = trained(config, tmp_path / "second")
    assert [traced.count(x) for x in PROGRAMS] == [0] * 3
    assert COMPILED in capfd.readouterr().err
    other = tiny_config(name, "logo", arrays, **changes, **{"train.num_steps": 5})
    step = make_experiment(other, make_mesh()).train_step
    assert program_cache.load(step.compiled) is None
    program_cache.keep_in(None)
    assert first == second == trained(config, tmp_path / "without") != []
