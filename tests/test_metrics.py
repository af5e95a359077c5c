import csv
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from logo_jax.metrics import MetricWriter, Progress

# The generated module has no types.
protobuf: Any = event_pb2

KNN = "knn/k20_t0.07/top1"


def write_run(workdir: Path, steps: range, resume_step: int = 0):
    """A run that logs its loss every step and its kNN accuracy every second step."""
    with MetricWriter(workdir, resume_step=resume_step) as metrics:
        for step in steps:
            metrics.write(step, {"loss": step + 0.5})
            if step % 2 == 0:
                metrics.write(step, {KNN: step / 100})


def jsonl(workdir: Path) -> list[dict[str, Any]]:
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def table(workdir: Path) -> list[dict[str, str]]:
    with (workdir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def events(path: Path) -> list[Any]:
    """The events of one TensorBoard file: records of length, crc, content, crc."""
    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        found.append(protobuf.Event.FromString(content[12 : 12 + length]))
        content = content[12 + length + 4 :]
    return found


def event_files(workdir: Path) -> list[Path]:
    return sorted((workdir / "tensorboard").iterdir(), key=lambda path: path.name)


def test_lines_hold_the_step_and_flat_names(tmp_path: Path):
    write_run(tmp_path, range(1, 3))
    assert jsonl(tmp_path) == [
        {"step": 1, "loss": 1.5},
        {"step": 2, "loss": 2.5},
        {"step": 2, KNN: 0.02},
    ]


def test_a_line_can_be_read_before_the_writer_is_closed(tmp_path: Path):
    with MetricWriter(tmp_path, resume_step=0) as metrics:
        metrics.write(1, {"loss": np.float32(0.5)})
        assert jsonl(tmp_path) == [{"step": 1, "loss": 0.5}]
        assert table(tmp_path) == [{"step": "1", "loss": "0.5"}]


def test_resumed_files_equal_those_of_an_uninterrupted_run(tmp_path: Path):
    write_run(tmp_path / "whole", range(1, 9))
    write_run(tmp_path / "killed", range(1, 7))
    write_run(tmp_path / "killed", range(5, 9), resume_step=4)
    for name in ("metrics.jsonl", "metrics.csv"):
        whole, killed = tmp_path / "whole" / name, tmp_path / "killed" / name
        assert killed.read_bytes() == whole.read_bytes()
    names = {path.name for path in (tmp_path / "killed").iterdir()}
    assert names == {"metrics.jsonl", "metrics.csv", "tensorboard"}


def test_line_torn_by_a_kill_is_dropped_from_both_files(tmp_path: Path):
    write_run(tmp_path, range(1, 4))
    for name in ("metrics.jsonl", "metrics.csv"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-3])
    write_run(tmp_path, range(4, 5), resume_step=3)
    expected = [(1, 1.5), (2, 2.5), (2, None), (4, 4.5), (4, None)]
    assert [(row["step"], row.get("loss")) for row in jsonl(tmp_path)] == expected
    assert [row["step"] for row in table(tmp_path)] == ["1", "2", "2", "4", "4"]


def test_starting_anew_keeps_nothing_of_an_earlier_run(tmp_path: Path):
    write_run(tmp_path, range(3))
    write_run(tmp_path, range(1))
    assert [row["step"] for row in jsonl(tmp_path)] == [0, 0]


@pytest.mark.parametrize("broken", ['{"step": 1, "lo', "[1, 2]", '{"loss": 1}', "7"])
def test_a_broken_line_in_the_middle_is_named(tmp_path: Path, broken: str):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{broken}\n{{"step": 2}}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl line 2 must be") as error:
        MetricWriter(tmp_path, resume_step=2)
    assert "\n" not in str(error.value)


def test_table_has_the_union_of_columns_and_empty_cells(tmp_path: Path):
    write_run(tmp_path, range(1, 4))
    assert table(tmp_path) == [
        {"step": "1", "loss": "1.5", KNN: ""},
        {"step": "2", "loss": "2.5", KNN: ""},
        {"step": "2", "loss": "", KNN: "0.02"},
        {"step": "3", "loss": "3.5", KNN: ""},
    ]


def test_numbers_that_are_not_finite_are_null_and_the_json_stays_strict(
    tmp_path: Path,
):
    with MetricWriter(tmp_path, resume_step=0) as metrics:
        metrics.write(1, {"loss": float("nan"), "norm": float("-inf"), "rate": 1.0})
    expected = '{"step": 1, "loss": null, "norm": null, "rate": 1.0}\n'
    assert (tmp_path / "metrics.jsonl").read_text() == expected
    assert table(tmp_path) == [{"step": "1", "loss": "", "norm": "", "rate": "1.0"}]


def test_tensorboard_has_every_finite_scalar_by_its_name(tmp_path: Path):
    with MetricWriter(tmp_path, resume_step=0) as metrics:
        metrics.write(7, {KNN: 0.25, "loss": float("inf")})
    (path,) = event_files(tmp_path)
    scalars = [
        (event.step, value.tag, value.simple_value)
        for event in events(path)
        for value in event.summary.value
    ]
    assert scalars == [(7, KNN, 0.25)]


def test_tensorboard_is_told_to_forget_what_will_be_measured_again(tmp_path: Path):
    write_run(tmp_path, range(1, 4))
    write_run(tmp_path, range(3, 4), resume_step=2)
    first, second = event_files(tmp_path)
    start = protobuf.SessionLog.START
    starts = [
        [event.step for event in events(path) if event.session_log.status == start]
        for path in (first, second)
    ]
    assert starts == [[0], [3]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_without_a_terminal_is_one_plain_line_a_call():
    seconds = iter([10.0, 16.0])
    stream = io.StringIO()
    shown = {"loss": 1.23456, "images/s": 54321.6}
    with Progress(100, 20, stream=stream, clock=lambda: next(seconds)) as progress:
        progress.update(25)
        progress.update(40, epoch=3, **shown)
    # 20 steps in 6 seconds: 60 more take 18.
    expected = "step 40/100  epoch 3  loss 1.235  images/s 54322  00:18 left\n"
    assert stream.getvalue() == expected


def test_progress_on_a_terminal_is_one_live_line():
    stream = Terminal()
    with Progress(100, 20, stream=stream) as progress:
        progress.update(100, loss=1.5)
    assert "100/100" in stream.getvalue()
    assert "loss 1.5" in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


def test_said_lines_stand_alone_between_live_ones():
    stream = Terminal()
    with Progress(2, stream=stream) as progress:
        progress.say("resumed from step 1")
    before, after = stream.getvalue().split("resumed from step 1\n")
    assert before.endswith("\r")
    assert "0/2" in after


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_quiet_shows_only_what_is_said(stream: io.StringIO):
    with Progress(2, quiet=True, stream=stream) as progress:
        progress.update(1, loss=1.0)
        progress.say("checkpoint 300 is damaged")
    assert stream.getvalue() == "checkpoint 300 is damaged\n"
