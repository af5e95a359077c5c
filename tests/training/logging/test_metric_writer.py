import csv
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2

from logo_jax.training.logging.metric_writer import MetricWriter, is_evaluation

# The generated protobuf module has no types.
protobuf: Any = event_pb2

KNN = "knn/k20_t0.07/top1"


def write_run(workdir: Path, steps: range, resume_step: int = 0):
    """Logs a loss at every step and a kNN accuracy at every second step."""
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
    """Reads the events of a TensorBoard file: records of length, CRC, content, CRC."""
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


def test_an_incomplete_last_line_is_dropped_from_both_files(tmp_path: Path):
    write_run(tmp_path, range(1, 4))
    for name in ("metrics.jsonl", "metrics.csv"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-3])
    write_run(tmp_path, range(4, 5), resume_step=3)
    expected = [(1, 1.5), (2, 2.5), (2, None), (4, 4.5), (4, None)]
    assert [(row["step"], row.get("loss")) for row in jsonl(tmp_path)] == expected
    assert [row["step"] for row in table(tmp_path)] == ["1", "2", "2", "4", "4"]


def test_a_new_start_drops_all_rows_of_an_earlier_run(tmp_path: Path):
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


@pytest.mark.parametrize("name", [KNN, f"{KNN}/seed_4", "knn_projector/k5_t0.1/top1"])
def test_a_row_with_a_knn_accuracy_is_an_evaluation(name: str):
    assert is_evaluation({"step": 2, "linear/test_top1": 20.0, name: 40.0})


def test_a_training_row_with_a_linear_accuracy_is_not_an_evaluation():
    assert not is_evaluation({"step": 2, "linear/top1": 20.0, "linear/loss": 2.0})


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


def test_tensorboard_has_images(tmp_path: Path):
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    with MetricWriter(tmp_path, resume_step=0) as metrics:
        metrics.log_image(3, "crops", pixels)
    (path,) = event_files(tmp_path)
    ((step, value),) = [
        (event.step, value) for event in events(path) for value in event.summary.value
    ]
    assert (step, value.tag) == (3, "crops")
    with Image.open(io.BytesIO(value.image.encoded_image_string)) as image:
        np.testing.assert_array_equal(image, pixels)


def test_tensorboard_ignores_events_that_will_be_measured_again(tmp_path: Path):
    write_run(tmp_path, range(1, 4))
    write_run(tmp_path, range(3, 4), resume_step=2)
    first, second = event_files(tmp_path)
    start = protobuf.SessionLog.START
    starts = [
        [event.step for event in events(path) if event.session_log.status == start]
        for path in (first, second)
    ]
    assert starts == [[0], [3]]
