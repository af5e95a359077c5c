"""`logo_jax.sweep`: its files, the runs that it starts, and its table."""

import importlib
import itertools
import json
import re
import shlex
import statistics
import subprocess
import threading
import types

import pytest

from logo_jax import configs, sweep
from logo_jax.experiment import make_spec
from logo_jax.sweeps import markdown, runs, spec, table
from logo_jax.training import workdir
from tests.commands import test_main
from tests.commands.test_main import fixture_arrays
from tests.xla_flags import DEVICES

__all__ = ["fixture_arrays"]


METRIC = "knn/k3_t0.1/top1"
CELL = {"name": "a", "config": "configs/cifar10_simsiam.py:baseline"}


def write(file, *cells, seeds=(0,)):
    file.write_text(f"SWEEP = {dict(metrics=(METRIC,), seeds=seeds, cells=cells)}")
    return file


@pytest.mark.slow
def test_only_missing_runs_are_trained_and_a_failure_stops_no_other(
    arrays, tmp_path, capfd, monkeypatch
):
    monkeypatch.setenv("XLA_FLAGS", DEVICES.format(1))
    fields = test_main.TINY | {
        "crops.local_crops": (0, 8, (0.1, 0.6)),
        "train.num_steps": 2,
    }
    good = CELL | {"overrides": fields, "published": 12.5}
    other = good | {"name": "b", "overrides": fields | {"train.log_every_steps": 2}}
    other["baseline"] = "a"
    broken = other | {"overrides": fields | {"data.source": "nothing"}}
    out = tmp_path / "out"
    command = [f"--out={out}", f"--config.data.path={arrays}"]
    file = write(tmp_path / "sweep.py", broken, good)
    assert sweep.main([f"--sweep={file}", *command]) == 1
    captured = capfd.readouterr()
    assert captured.err.splitlines()[1].startswith(
        "b_seed_0 is not finished (exit code 2)"
    )
    assert "'nothing'" in captured.err
    assert "| b | 0 | - | - | 12.50 | a | - |" in captured.out
    before = (out / "a_seed_0" / "metrics.jsonl").stat()

    write(file, other, good)
    assert sweep.main([f"--sweep={file}", *command]) == 0
    captured = capfd.readouterr()
    assert captured.err.splitlines() == ["[1/1] b_seed_0"]
    assert (out / "a_seed_0" / "metrics.jsonl").stat() == before
    reached = test_main.records(out / "b_seed_0")[-1][METRIC]
    assert re.search(
        rf"\| b \| 1 \| \d+\.\d \| {reached:.2f} \| 12.50 \| a \| \+0.00 \|",
        captured.out,
    )
    assert (out / "table.md").read_text() == captured.out
    rows = json.loads((out / "table.json").read_text())
    assert [row["metrics"][METRIC]["values"] for row in rows] == [[reached]] * 2

    page = tmp_path / "results.md"
    page.write_text("# Ours\n")
    with_page = [f"--sweep={file}", *command, f"--results={page}"]
    assert sweep.main(with_page) == 0
    assert capfd.readouterr().err == ""
    before, found = page.read_text().split("<!-- sweep: written by logo_jax.sweep -->")
    assert before == "# Ours\n\n"
    assert "2 runs, 0.0 hours in total; 1 x cpu" in found
    assert "--config.data.path=DIR --out=OUT\n" in found
    assert str(tmp_path) not in found
    assert (tmp_path / "figures" / "sweep.png").read_bytes().startswith(b"\x89PNG")

    record = out / "a_seed_0.json"
    seconds = json.loads(record.read_text())["seconds"]
    record.unlink()
    assert sweep.main(with_page) == 0
    assert page.read_text().count("written by logo_jax.sweep") == 1
    again = json.loads(record.read_text())
    assert again["seconds"] > seconds  # of both starts
    assert again["curves"][METRIC][-1] == [2, again["metrics"][METRIC]]
    capfd.readouterr()

    with pytest.raises(SystemExit):
        sweep.main([f"--sweep={file}", *command, "--config.pairing=symmetric"])
    message = "has finished with other settings (--config.pairing=symmetric)"
    assert message in capfd.readouterr().err


@pytest.fixture(name="described")
def fixture_described(tmp_path, monkeypatch):
    """A sweep of one fake run; attributes set what it prints and measures."""
    run = types.SimpleNamespace(printed="done", measures=12.5, code=0, started=0)

    def call(which):
        run.started += 1
        which.folder.mkdir(exist_ok=True)
        row = json.dumps({"step": 1, METRIC: run.measures})
        (which.folder / "metrics.jsonl").write_text(f"{row}\n")
        (which.folder / "machine.json").write_text("{}")
        which.log.write_text(f"{run.printed}\n")
        return run.code

    monkeypatch.setattr(sweep, "call", call)
    run.out = tmp_path / "out"
    run.command = [f"--sweep={write(tmp_path / 'sweep.py', CELL)}", f"--out={run.out}"]
    return run


@pytest.mark.parametrize("finishes", [True, False])
def test_a_run_that_another_process_trains_is_waited_for(
    described, finishes, monkeypatch, capsys
):
    waits, held = threading.Event(), threading.Event()
    lines = []

    def say(line):
        lines.append(line)
        waits.set()

    def other():
        with workdir.lock_workdir(described.out / "claims" / "a_seed_0"):
            held.set()
            waits.wait(60)
            record = {"metrics": {METRIC: 30.0}, "seconds": 1.0, "arguments": []}
            if finishes:
                (described.out / "a_seed_0.json").write_text(json.dumps(record))

    monkeypatch.setattr(sweep, "say", say)
    thread = threading.Thread(target=other)
    thread.start()
    held.wait()
    assert sweep.main(described.command) == 0
    thread.join()
    waiting = "waiting for another process to train a_seed_0"
    assert lines == [waiting] + ["[1/1] a_seed_0"] * (not finishes)
    assert described.started == (not finishes)
    assert f"| {30.0 if finishes else 12.5:.2f} |" in capsys.readouterr().out


@pytest.mark.parametrize(
    "unfinished",
    [{"code": 2}, {"printed": "stopped by SIGTERM at step 1"}, {"measures": None}],
    ids=str,
)
def test_a_run_that_did_not_reach_its_end_is_not_recorded(
    described, unfinished, tmp_path, capsys
):
    page = tmp_path / "page.md"
    page.write_text("# Page\n")
    vars(described).update(unfinished)
    assert sweep.main([*described.command, f"--results={page}"]) == 1
    assert not (described.out / "a_seed_0.json").exists()
    assert page.read_text() == "# Page\n"
    reason = f"metrics.jsonl does not have all of {METRIC}"
    if "measures" not in unfinished:
        reason = described.printed
    assert f": {reason}; see " in capsys.readouterr().err


def test_a_metric_missing_from_a_record_is_an_error(described, capsys):
    assert sweep.main(described.command) == 0
    record = described.out / "a_seed_0.json"
    record.write_text(record.read_text().replace(METRIC, "other"))
    with pytest.raises(SystemExit):
        sweep.main(described.command)
    (line,) = capsys.readouterr().err.splitlines()[1:]
    assert line.startswith(f"error: {record} must have all of {METRIC}; remove")


@pytest.mark.parametrize("own", [None, "glibc.malloc.perturb=1"])
def test_a_run_has_huge_pages_unless_the_user_sets_other_tunables(
    monkeypatch, tmp_path, own
):
    file = write(tmp_path / "sweep.py", CELL)
    (run,) = runs.make_runs(spec.read(str(file)), tmp_path, [])
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$GLIBC_TUNABLES $HOME"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sweep.sys, "executable", str(python))
    monkeypatch.setenv("HOME", "home")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if own:
        monkeypatch.setenv("GLIBC_TUNABLES", own)
    assert sweep.call(run) == 0
    assert run.log.read_text() == f"{own or 'glibc.malloc.hugetlb=1'} home\n"


@pytest.mark.usefixtures("git_alone")
def test_code_in_a_repository_of_something_else_has_no_commit(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "logo_jax"
    package.mkdir(parents=True)
    (package / "sweep.py").write_text("")
    (tmp_path / "project.py").write_text("")
    git = ["git", "-C", tmp_path, "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for line in (["init", "-q"], ["add", "project.py"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *line], check=True)
    monkeypatch.setattr(sweep, "__file__", str(package / "sweep.py"))
    assert sweep.commit() == ""
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "y"], check=True)
    assert re.fullmatch("[0-9a-f]{7,}", sweep.commit())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SWEEP = {", "raises SyntaxError: "),
        ("import no_such_module", "raises ModuleNotFoundError: No module named"),
    ],
)
def test_an_error_in_a_sweep_file_is_reported_in_one_line(
    text, message, tmp_path, capsys
):
    file = tmp_path / "sweep.py"
    file.write_text(text)
    with pytest.raises(SystemExit) as end:
        sweep.main([f"--sweep={file}", f"--out={tmp_path / 'out'}"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {file} {message}")


def test_a_table_of_a_folder_that_does_not_exist_is_refused(tmp_path, capsys):
    file = write(tmp_path / "sweep.py", CELL)
    with pytest.raises(SystemExit) as end:
        sweep.main([f"--sweep={file}", f"--out={tmp_path / 'typo'}", "--table"])
    assert end.value.code == 2
    assert "typo must be the folder of a sweep" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


def test_without_file_locks_nothing_is_trained_and_one_line_reports_it(
    described, monkeypatch, capsys
):
    def unsupported(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(workdir.fcntl, "flock", unsupported)
    with pytest.raises(SystemExit) as end:
        sweep.main(described.command)
    assert end.value.code == 2
    assert "with locks (Function not" in capsys.readouterr().err
    assert not described.started


def test_the_shown_command_is_valid_for_a_shell(tmp_path):
    options = types.SimpleNamespace(sweep=str(tmp_path / "mine.py"), seeds=2)
    flags = ["--config.crops.global_crops=(2, 8, (0.4, 1.0))", "--config.data.path=/x"]
    command = sweep.shown_command(options, flags)
    assert shlex.split(command)[3:] == [
        "--sweep=DIR/mine.py",
        flags[0],
        "--config.data.path=DIR",
        "--seeds=2",
        "--out=OUT",
    ]


def test_the_time_of_a_run_is_the_sum_of_its_starts(tmp_path, monkeypatch):
    described = spec.read(str(write(tmp_path / "sweep.py", CELL)))
    (run,) = runs.make_runs(described, tmp_path, [])
    clock = iter([0.0, 5.0, 10.0, 70.0, 100.0, 107.5])
    time = types.SimpleNamespace(monotonic=lambda: next(clock))
    monkeypatch.setattr(runs, "time", time)  # not the global module
    with run.timed():  # ends before the run has a folder, so it is not counted
        next(clock)
    run.folder.mkdir()
    with pytest.raises(KeyboardInterrupt), run.timed():
        raise KeyboardInterrupt
    with run.timed():
        pass
    assert run.seconds == 67.5


def test_a_flag_for_every_run_overrides_the_cells_flag(tmp_path):
    cell = CELL | {"overrides": {"crops.global_crops": (2, 32, (0.4, 1.0))}}
    described = spec.read(str(write(tmp_path / "sweep.py", cell)))
    flags = ["--config.crops.global_crops=(2, 8, (0.4, 1.0))", "--config.data.path=x"]
    (run,) = runs.make_runs(described, tmp_path, flags)
    assert run.arguments == [f"--config={CELL['config']}", "--config.seed=0", *flags]


def test_differences_are_between_runs_of_equal_seeds():
    cells = (
        spec.Setting("base", "x.py"),
        spec.Setting("new", "x.py", baseline="base", published=70.0),
    )
    described = spec.Sweep(cells, (METRIC,), seeds=(0, 1, 2))
    values = {("base", 0): 10.0, ("base", 1): 30.0, ("new", 1): 31.0, ("new", 2): 50.0}
    records = {
        run: {"metrics": {METRIC: value}, "seconds": 90.0}
        for run, value in values.items()
    }
    base, new = table.rows(described, records)
    assert new["over_baseline"]["values"] == [1.0]
    assert new["metrics"][METRIC]["mean"] == 40.5
    assert new["metrics"][METRIC]["std"] == pytest.approx(statistics.stdev([31, 50]))
    assert table.markdown(described, [base, new]).splitlines()[2:] == [
        "| base | 2 | 1.5 | 20.00 ± 14.14 | - | - | - |",
        "| new | 2 | 1.5 | 40.50 ± 13.44 | 70.00 | base | +1.00 |",
    ]


def test_the_verdict_on_a_claim_uses_the_interval_and_the_published_size(tmp_path):
    cells = [{"name": name, "config": "x.py"} for name in "ab"]
    claim = {"text": "a is above b", "cell": "a", "over": "b", "published": 4.0}
    file = tmp_path / "claims.py"
    fields = {"metrics": (METRIC,), "seeds": (0, 1, 2), "cells": cells}
    file.write_text(f"SWEEP = {fields | {'claims': [claim]}}")
    described = spec.read(str(file))
    values = {"a": (11.0, 12.0, 13.0), "b": (10.0, 10.0, 10.0)}
    records = {
        (name, seed): {"metrics": {METRIC: value}, "seconds": 1.0}
        for name, row in values.items()
        for seed, value in enumerate(row)
    }
    # 2 +- 4.303 / sqrt(3), Student's t with two degrees of freedom
    assert table.claims(described, records).splitlines() == [
        f"| claim | published | {METRIC} | verdict |",
        "| --- | --- | --- | --- |",
        "| a is above b | +4.0 | +2.00 (-0.48 to +4.48) | not decided |",
    ]
    records["a", 2]["metrics"][METRIC] = 12.5
    (row,) = table.claims(described, records).splitlines()[2:]
    assert row.endswith(
        "| +1.83 (-0.06 to +3.73) | not seen, published size excluded |"
    )

    file.write_text(f"SWEEP = {fields | {'claims': [claim | {'published': 0.0}]}}")
    with pytest.raises(ValueError, match="its sign says which cell is higher"):
        spec.read(str(file))
    file.write_text(f"SWEEP = {fields | {'claims': [claim | {'over': 'c'}]}}")
    with pytest.raises(ValueError, match=r"unknown: \['c'\]"):
        spec.read(str(file))


def with_curves(base, new):
    """A sweep of two cells, and their records with curves, given for seeds 0 and 1."""
    cells = (
        spec.Setting("base", "x.py"),
        spec.Setting("new", "x.py", baseline="base"),
    )
    runs_of = {("base", i): curve for i, curve in enumerate(base)}
    runs_of |= {("new", i): curve for i, curve in enumerate(new)}
    records = {
        run: {
            "metrics": {METRIC: curve[-1][1]},
            "curves": {METRIC: curve},
            "seconds": 3600.0,
            "commit": "abc",
            "machine": {
                "devices": "1 x cpu",
                "cores": 2,
                "versions": {"python": "3", "jax": "0"},
            },
        }
        for run, curve in runs_of.items()
    }
    return spec.Sweep(cells, (METRIC,), seeds=(0, 1)), records


BASE = [[[10, 20.0], [20, 30.0]], [[10, 22.0], [20, 30.0]]]
TWICE_AS_LONG = [[[20, 21.0], [40, 30.0]], [[20, 25.0], [40, 34.0]]]


def test_differences_over_the_training_are_at_equal_shares_of_each_run():
    described, records = with_curves(BASE, TWICE_AS_LONG)
    # mean +- 12.706 |d0 - d1| / 2, Student's t with one degree of freedom
    assert table.during(described, records).splitlines() == [
        "| difference | 50 % | 100 % |",
        "| --- | --- | --- |",
        "| new − base | +2.00 (-10.71 to +14.71) | +2.00 (-23.41 to +27.41) |",
    ]
    without = {run: record | {"curves": {}} for run, record in records.items()}
    assert table.during(described, without) == ""
    thirds = [[[10, 1.0], [20, 1.0], [30, 2.0]]] * 2
    assert table.during(*with_curves(BASE, thirds)) == ""


def test_curves_are_averaged_over_seeds():
    averaged = table.averaged(*with_curves(BASE, TWICE_AS_LONG))
    assert averaged["base"] == [
        {"step": 10, METRIC: 21.0, f"{METRIC}/std": pytest.approx(2**0.5)},
        {"step": 20, METRIC: 30.0, f"{METRIC}/std": 0.0},
    ]
    assert [row["step"] for row in averaged["new"]] == [20, 40]
    # of runs that were evaluated at other steps, only at the steps of all
    often = [[[5, 10.0], [10, 20.0], [20, 30.0]], BASE[1]]
    averaged = table.averaged(*with_curves(often, TWICE_AS_LONG))
    assert [row["step"] for row in averaged["base"]] == [10, 20]
    assert averaged["base"][0][METRIC] == 21.0
    described, records = with_curves(BASE, TWICE_AS_LONG)
    records["base", 1] |= {"curves": {}}  # as in records of old versions
    assert list(table.averaged(described, records)) == ["new"]


def test_a_page_has_the_differences_and_curves_over_the_training(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Page\n")
    described, records = with_curves(BASE, TWICE_AS_LONG)
    markdown.write(page, "long", described, records, "command")
    assert "4 runs, 4.0 hours in total" in page.read_text()
    assert "| difference | 50 % | 100 % |" in page.read_text()
    for figure in ("long.png", "long_curves.png"):
        assert f"(figures/{figure})" in page.read_text()
        assert (tmp_path / "figures" / figure).read_bytes().startswith(b"\x89PNG")

    one = {run: record | {"curves": {}} for run, record in records.items()}
    markdown.write(page, "long", described, one, "command")
    assert "figures/long.png" in page.read_text()
    assert "50 %" not in page.read_text()
    assert "long_curves" not in page.read_text()


@pytest.mark.parametrize(
    "file", sorted(configs.FOLDER.glob("s[tw]*/[a-z]*.py")), ids=lambda file: file.stem
)
def test_every_cell_of_a_sweep_is_a_valid_config(file):
    described = spec.read(str(file))
    seen = []
    for cell in described.cells:
        path, _, variant = cell.config.partition(":")
        module = path.removesuffix(".py").replace("/", ".")
        config = importlib.import_module(f"logo_jax.{module}").get_config(variant)
        config.update_from_flattened_dict(dict(cell.overrides))
        make_spec(config, num_devices=1, steps_per_epoch=10)
        seen.append(config.to_json())
    assert all(a != b for a, b in itertools.combinations(seen, 2))

    def record(i):
        metrics = {name: i % 7 + i % 5 for name in described.metrics}
        return {"metrics": metrics, "seconds": 1.0}

    runs_of = [(cell.name, seed) for cell in described.cells for seed in range(2)]
    records = {run: record(i) for i, run in enumerate(runs_of)}
    rows = table.rows(described, records)
    assert table.markdown(described, rows).count("\n") == len(described.cells) + 1
    verdicts = table.claims(described, records)
    assert verdicts.count("\n") == len(described.claims) + 1
    assert "| - |\n" not in verdicts


def test_the_crop_ratio_sweep_has_the_supplements_two_tables():
    cells = spec.read("sweeps/stl10_crop_ratio").cells
    areas = {
        cell.name: (
            cell.overrides["crops.global_crops"][2],
            cell.overrides["crops.local_crops"][2],
            cell.published,
        )
        for cell in cells
    }
    assert len(cells) == 26
    assert areas["moco_local_0.6"] == ((0.4, 1.0), (0.08, 0.6), 77.15)
    assert areas["simsiam_local_1.0"] == ((0.4, 1.0), (0.08, 1.0), 76.54)
    assert areas["simsiam_global_0.3"] == ((0.08, 0.3), (0.08, 1.0), 72.43)
    assert areas["moco_global_0.7"] == ((0.08, 0.7), (0.08, 1.0), 77.21)


@pytest.mark.parametrize(
    ("cells", "flags", "message"),
    [
        ([CELL, CELL], [], "must have unique names"),
        ([CELL | {"baseline": "b"}], [], "must be compared with cells of the sweep"),
        ([CELL | {"baseline": "a"}], [], "form a cycle (a -> a)"),
        ([CELL | {"name": "a/b"}], [], "it names a folder"),
        ([CELL | {"overrides": {"seeds": 3}}], [], "'a' must not set seeds"),
        ([CELL | {"unheard_of": 1.0}], [], "unheard_of"),
        ([], [], "nothing to run"),
        ([CELL], ["--workdir=x"], "'--workdir=x' is not a flag"),
        ([CELL], ["--config.seed=5"], "would give every run the same seeds"),
        ([CELL], ["--results=/no/page.md"], "/no/page.md must be a Markdown page"),
    ],
)
def test_an_invalid_sweep_is_reported_in_one_line(
    cells, flags, message, tmp_path, capsys
):
    file = write(tmp_path / "sweep.py", *cells)
    with pytest.raises(SystemExit) as end:
        sweep.main([f"--sweep={file}", f"--out={tmp_path / 'out'}", *flags])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fields", [{"metrics": METRIC}, {"seeds": 3}], ids=str)
def test_what_must_be_a_tuple_is_not_a_single_value(fields):
    cells = (spec.Setting("a", "x.py"),)
    with pytest.raises(ValueError, match=r"must be a tuple; use \("):
        spec.Sweep(**{"cells": cells, "metrics": (METRIC,)} | fields)


def test_a_page_is_not_written_with_a_command_that_did_not_train_the_runs(
    described, tmp_path, capsys
):
    page = tmp_path / "page.md"
    page.write_text("# Page\n")
    assert sweep.main([*described.command, "--config.train.num_steps=7"]) == 0
    assert sweep.main([*described.command, "--table"]) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        sweep.main([*described.command, "--table", f"--results={page}"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "other settings (--config.train.num_steps=7); use those" in line
    assert page.read_text() == "# Page\n"


def test_every_config_is_checked_before_the_first_run(described, tmp_path, capsys):
    cells = [CELL, CELL | {"name": "b", "overrides": {"train.num_epoch": 3}}]
    write(tmp_path / "sweep.py", *cells)
    with pytest.raises(SystemExit) as end:
        sweep.main(described.command)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: b_seed_0: unknown field config.train.num_epoch")
    assert line.endswith("nothing was started")
    assert not described.started
    assert not described.out.exists()


def test_a_finished_run_is_not_refused_if_its_data_have_moved(described):
    assert sweep.main([*described.command, "--config.data.path=/old"]) == 0
    assert sweep.main([*described.command, "--config.data.path=/new"]) == 0
    assert described.started == 1


def test_without_locks_a_sweep_trains_if_they_are_declined(described, monkeypatch):
    monkeypatch.setattr(workdir, "fcntl", None)  # as on Windows
    assert sweep.main([*described.command, "--config.train.lock=false"]) == 0
    assert described.started == 1
    assert not list(described.out.rglob("lock"))
