"""`benchmarks.ahead`: steps are compiled once, tabulated, and compared."""

import json

import pytest

from benchmarks import ahead
from logo_jax.experiment.ahead import CompilerError


@pytest.fixture(name="rows")
def fixture_rows(tmp_path, monkeypatch):
    """A file with rows of two configs, and the steps that were compiled."""
    compiled = []

    def compile_(config, target, level, fields):
        compiled.append((config, target))
        row = {"config": config, "target": target, "level": level, "fields": fields}
        exchanges = {"all-reduce": [4, 93_000_000]}
        figures = {"num_bytes": 2e9, "seconds": 0.04, "dtype": "float32"}
        return row | figures | {"exchanges": exchanges}

    monkeypatch.setattr(ahead, "compiled", compile_)
    file = tmp_path / "rows.jsonl"
    ahead.main([str(file), "--configs=a,b", "--targets=v5e"])
    return file, compiled


def test_a_step_that_has_its_line_is_not_compiled_again(rows):
    file, compiled = rows
    ahead.main([str(file), "--configs=a,c", "--targets=v5e"])
    assert compiled == [("a", "v5e"), ("b", "v5e"), ("c", "v5e")]
    ahead.main([str(file), "--configs=a", "--targets=v5e", "--level=default"])
    assert len(compiled) == 4
    assert len(file.read_text().splitlines()) == 4


def test_a_step_on_which_a_compiler_fails_has_a_row_and_the_others_are_compiled(
    rows, monkeypatch, capsys
):
    def fails(*_):
        raise CompilerError("INTERNAL: a defect")

    file, _ = rows
    monkeypatch.setattr(ahead, "compiled", fails)
    ahead.main([str(file), "--configs=a,c", "--targets=h100,v5e"])
    capsys.readouterr()
    ahead.main([str(file), "--page"])
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.startswith("| c | ") for line in lines].count(True) == 2
    assert sum(line.endswith("| INTERNAL: a defect |") for line in lines) == 3
    ahead.main([str(file), "--runs"])
    assert len(capsys.readouterr().out.splitlines()) == 2  # the titles


def test_the_page_has_each_level_with_its_model_of_the_time(rows, capsys):
    file, _ = rows
    ahead.main([str(file), "--configs=a", "--targets=v5e", "--level=default"])
    capsys.readouterr()
    ahead.main([str(file), "--page"])
    lines = capsys.readouterr().out.splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| a | v5e, O0 | float32 | 2 | - | - | - | - | 40 |")
    assert lines[2].endswith("| 4 all-reduce 93 MB |")
    assert "| - | 40 | - |" in lines[3]


def test_hosts_must_read_the_images_of_steps_that_take_the_floor(tmp_path, capsys):
    row = {"config": "coco_moco", "target": "v5e:2x4", "level": "O0", "fields": {}}
    rows = [row | {"floor": 0.064}, row | {"floor": 1.0, "config": "cifar10_moco"}]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    ahead.main([str(file), "--hosts"])
    _, _, *lines = capsys.readouterr().out.splitlines()
    # 256 images in 64 ms, on canvases of 3 x 640 x 640 bytes; CIFAR is in memory
    cells = "64 | 4,000 | 4.92 | 640 | 9.9 | 4.5 | 0.7 |"
    assert lines == [f"| coco_moco | v5e:2x4, O0 | {cells}"]


def test_figures_that_moved_are_compared(rows, tmp_path, capsys):
    file, _ = rows
    old = tmp_path / "old.jsonl"
    first, second = map(json.loads, file.read_text().splitlines())
    first["num_bytes"], second["num_bytes"] = 1.6e9, 1.99e9
    old.write_text(json.dumps(first) + "\n" + json.dumps(second) + "\n")
    capsys.readouterr()
    ahead.main([str(file), f"--compare={old}"])
    assert capsys.readouterr().out == "a v5e O0: num_bytes 1.6e+09 -> 2e+09 (+25.0 %)\n"


def test_published_configs_are_those_of_the_papers_data_sets():
    names = ahead.published()
    assert {"cifar10_moco", "stl10_simsiam", "imagenet100_r50_moco"} <= set(names)
    assert not {"base", "folder", "quickstart", "base_imagenet"} & set(names)
