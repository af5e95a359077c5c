"""The tutorials of docs/extending.md, applied to a copy of the package, work."""

import gzip
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.commands.test_main import TINY
from tests.xla_flags import DEVICES

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()
BLOCK = re.compile(r"^```(python|diff)\n# (logo_jax/\S+)\n(.*?)^```", re.M | re.S)
TUTORIALS = {
    "a config field": "A config field",
    "a data set": "A data set",
    "a protocol": "An evaluation protocol",
    "a metric": "A metric",
}
# Training and evaluation as commands, and what only Python shows. One process has all,
# because its imports take most of the time.
PROGRAM = """
import json, sys
import numpy as np
from logo_jax import Run, evaluate, main
from logo_jax.configs import load
from logo_jax.data.load import load_images
from logo_jax.evaluation.features import Features
from logo_jax.evaluation.metrics import reciprocal_rank
from logo_jax.experiment import parse
from logo_jax.experiment.optimizers import make_optimizer
from logo_jax.protocols.class_means import scores_by_means

folder, fields = sys.argv[1], sys.argv[2:]
main.main(["--config=folder:baseline", f"--workdir={folder}/run", *fields])
evaluate.main([
    f"--workdir={folder}/run", "--protocol=class_means", "--metric=reciprocal_rank"
])
config = parse(Run(f"{folder}/run").config)
images = load_images(config.data.location)
records = images.train.records([0, 1])
params, gradients = {"w": np.zeros(2, np.float32)}, {"w": np.float32([3, 4])}
def update(optimizer):
    tx = make_optimizer(optimizer, 1.0)
    return np.asarray(tx.update(gradients, tx.init(params), params)[0]["w"]).tolist()
try:
    parse(load("quickstart", {"optimizer.clip_norm": -1.0}))
except ValueError as error:
    refused = str(error)
line = Features(np.float32([[0, 0], [2, 0], [10, 0]]), np.array([0, 0, 2]))
print(json.dumps({
    "unlimited": update(parse(load("quickstart")).optimizer),
    "limited": update(config.optimizer),
    "refused": refused,
    "pixels": [np.unique(record.image).tolist() for record in records],
    "labels": [record.label for record in records],
    "shapes": [record.image.shape for record in records],
    "metrics": Run(f"{folder}/run").metrics,
    "scores": scores_by_means(line, np.float32([[3, 0]]), 3).tolist(),
    "ranks": reciprocal_rank(np.float32([[3, 2, 1], [3, 2, 1]]), np.array([2, 0])),
}, default=int))
"""


def applied(changes: str, text: str) -> str:
    """Returns the text of a file after the changes of a block."""
    for hunk in re.split(r"^@@\n", changes, flags=re.M):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        assert text.count(old) == 1, f"the page names a place that is not there: {old}"
        text = text.replace(old, new)
    return text


def write_split(folder, split, labels, values):
    """Writes images of one value each in the files of MNIST."""
    images = np.repeat(np.array(values, np.uint8), 28 * 28).tobytes()
    for name, header, content in (
        ("images-idx3", 16, images),
        ("labels-idx1", 8, bytes(labels)),
    ):
        file = folder / f"{split}-{name}-ubyte.gz"
        file.write_bytes(gzip.compress(bytes(header) + content))


@pytest.fixture(scope="module", name="package")
def fixture_package(tmp_path_factory):
    """The folder of a copy of the package with all tutorials applied."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "logo_jax", folder / "logo_jax")
    for kind, name, content in BLOCK.findall(PAGE):
        file = folder / name
        assert file.exists() == (kind == "diff"), name
        text = applied(content, file.read_text()) if kind == "diff" else content
        file.write_text(text)
    return folder


@pytest.fixture(scope="module", name="found")
def fixture_found(package):
    """What the program prints, and the report of the evaluation."""
    write_split(package, "train", [0, 1] * 10, [0, 255] * 10)
    write_split(package, "t10k", [0, 1, 0, 1], [0, 255, 0, 0])  # the last one is wrong
    fields = TINY | {
        "data.source": "idx",
        "data.path": str(package),
        "optimizer.clip_norm": 1.0,
        "train.num_steps": 2,
    }
    flags = [f"--config.{x}={y}" for x, y in fields.items() if x != "crops.local_crops"]
    variables = {"PYTHONPATH": f"{package}:{ROOT}", "XLA_FLAGS": DEVICES.format(1)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(package), *flags],
        env=os.environ | variables,
        cwd=package,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (report,) = (package / "run" / "evaluations").iterdir()
    printed = json.loads(done.stdout.splitlines()[-1])
    return printed | {"report": json.loads(report.read_text())}


@pytest.mark.slow
def test_the_field_has_a_rule_and_changes_the_update(found):
    message = "config.optimizer.clip_norm=-1.0 must be a finite number, 0 or more"
    assert found["refused"] == f"{message}; the default is 0.0"
    assert found["unlimited"] == [-3, -4]
    assert found["limited"] == pytest.approx([-0.6, -0.8])


@pytest.mark.slow
def test_the_data_set_is_read_and_trained_on(found):
    assert found["pixels"] == [[0], [255]]
    assert found["labels"] == [0, 1]
    assert found["shapes"] == [[28, 28, 3]] * 2
    assert [row["step"] for row in found["metrics"] if "loss" in row] == [1, 2]
    assert found["metrics"][-1]["knn/k3_t0.1/top1"] == 75  # a test label is wrong


@pytest.mark.slow
def test_the_protocol_scores_the_nearest_mean_highest(found):
    ((near, without_images, far),) = found["scores"]
    assert near > far > without_images
    assert found["report"]["splits"] == {"train": 16, "val": 4, "test": 4}


@pytest.mark.slow
def test_the_metric_is_reported_by_the_protocol(found):
    assert found["ranks"] == pytest.approx((1 / 3 + 1) / 2)
    assert found["report"]["values"] == {"class_means/reciprocal_rank": 87.5}


def rows():
    """The table of the page: the text about the files, by what is added."""
    table = re.findall(r"^\| (\[?[^|]+) \| ([^|]+) \|$", PAGE, re.M)
    return {
        re.sub(r"\[(.*?)\]\(.*?\)", r"\1", name): files for name, files in table[1:]
    }


@pytest.mark.parametrize(("row", "heading"), TUTORIALS.items())
def test_a_tutorial_changes_the_files_of_its_row(row, heading):
    (section,) = re.findall(rf"^## {heading}\n(.*?)^## ", PAGE, re.M | re.S)
    listed = re.findall(r"`([\w/]+\.py)`", rows()[row])
    changed = {name for _, name, _ in BLOCK.findall(section)}
    assert changed == {f"logo_jax/{name}" for name in listed}


def test_the_files_and_tables_that_are_named_exist(package):
    for files in rows().values():
        for name in re.findall(r"`([\w/]+(?:\.py|/))`", files):
            assert (package / "logo_jax" / name).exists(), name
        for name, table in re.findall(r"`([\w/]+\.py)` \(a row of `(\w+)`", files):
            text = (package / "logo_jax" / name).read_text()
            assert re.search(rf"^{table}\b.*=", text, re.M), table


def test_a_place_that_is_gone_is_detected():
    with pytest.raises(AssertionError, match="a place that is not there"):
        applied(" a = 1\n+b = 2\n", "a = 3\n")
    assert applied(" a = 1\n-b = 2\n+b = 3\n", "a = 1\nb = 2\n") == "a = 1\nb = 3\n"
