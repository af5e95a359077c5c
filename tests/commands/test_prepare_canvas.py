"""`prepare --canvas`: images reduced once, and training on them."""

import jax
import numpy as np
import pytest

from logo_jax import prepare
from logo_jax.training.workdir import claim_workdir
from tests.commands.test_main import SPEED, records, run
from tests.commands.test_main_folder import (
    fixture_images,  # noqa: F401
    folder_config,
)
from tests.commands.test_prepare import error_of
from tests.run_commands import evaluated


@pytest.fixture(name="reduced")
def fixture_reduced(images, tmp_path, capsys):
    """The images of the fixture `images`, reduced to 16 px by the command."""
    out = tmp_path / "reduced"
    prepare.main([str(images), "--canvas=16", f"--out={out}"])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"wrote images of at most 16x16 px to {out} (train 21, ")
    return out


def test_training_is_bit_equal_to_that_on_the_original_images(
    images, reduced, tmp_path
):
    changes = {
        "data.source": "canvases",
        "data.path": str(reduced),
        "data.canvas": 512,  # but the images are no larger than 16 px
    }
    configs = {
        "whole": folder_config(images, "on_device"),
        "reduced": folder_config(images, **changes),
    }
    states = [run(config, tmp_path / name) for name, config in configs.items()]
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(a, b)
    rows = [records(tmp_path / name) for name in configs]
    for whole, found in zip(*rows, strict=True):
        assert whole.keys() == found.keys()  # also those of kNN
        same = [x for x in whole if x not in SPEED and not x.startswith("knn/")]
        assert {x: whole[x] for x in same} == {x: found[x] for x in same}


def test_the_encoder_of_a_run_is_evaluated_on_reduced_images(images, reduced, tmp_path):
    config = folder_config(images)
    claim_workdir(tmp_path / "run", config.to_dict())
    run(config, tmp_path / "run")
    report = evaluated(tmp_path / "run", f"--dataset={reduced}")
    assert report["splits"] == evaluated(tmp_path / "run")["splits"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--canvas=16"], "--canvas needs --out=DIR"),
        (["--format=jpeg"], "--out, --format and --config.FIELD need --canvas=N"),
        (["--canvas=0", "--out=x"], "'0' must be a whole number, 1 or more"),
        (["--canvas=16", "--out=x", "--classes=y"], "--canvas excludes --list"),
        (["--canvas=16", "--out=x", "--config.seed=1"], "no field of config.data"),
        (["--canvas=16", "--out={}"], "exists; remove it, or give another --out"),
        (["--canvas=16", "--out={}/a/b"], "must be a folder, to write"),
        (["--canvas=16", "--out={}/new", "--config.data.channels=4"], "8-bit"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments, message, images, tmp_path, capsys
):
    given = [argument.format(tmp_path) for argument in arguments]
    assert message in error_of(capsys, str(images), *given)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_too_many_damaged_images_leave_nothing(images, tmp_path, capsys):
    (images / "train" / "a" / "0.png").write_bytes(b"damaged")
    (images / "train" / "b" / "0.png").write_bytes(b"damaged")
    given = [str(images), "--canvas=16", f"--out={tmp_path / 'new'}"]
    assert "2 images cannot be decoded" in error_of(capsys, *given)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    assert "is not a folder; give" in error_of(capsys, f"{images}/none", *given[1:])
