"""Runs with an online linear classifier: metrics, resuming and checkpoints."""

import jax
import numpy as np
import pytest

from logo_jax.experiment import make_experiment, make_spec
from logo_jax.parallel.mesh import make_mesh
from logo_jax.training import workdir
from logo_jax.training.checkpoints.manager import CheckpointManager
from tests.commands.test_main import (
    SPEED,
    fixture_arrays,  # noqa: F401
    records,
    run,
    tiny_config,
)
from tests.run_commands import evaluated

LINEAR = {"monitor.linear": True}


@pytest.mark.slow
def test_it_resumes_bit_exactly_and_its_checkpoints_load_without_the_classifier(
    arrays, tmp_path
):
    config = tiny_config("cifar10_simsiam", "baseline", arrays, seeds=2, **LINEAR)
    whole = run(config, tmp_path / "whole")
    assert whole.params["linear"]["kernel"].shape[::2] == (2, 3)
    workdir.claim_workdir(tmp_path / "stopped", config.to_dict())
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "stopped", until=3)
    resumed = run(config, tmp_path / "stopped")
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    rows = [
        [{k: v for k, v in row.items() if k not in SPEED} for row in records(folder)]
        for folder in (tmp_path / "whole", tmp_path / "stopped")
    ]
    assert rows[0] == rows[1]
    trained, judged = rows[0][-2:]
    for name in ("linear/top1", "linear/top1/seed_1", "linear/loss"):
        assert name in trained
    assert 0 <= judged["linear/test_top1/seed_0"] <= 100
    # evaluate restores the checkpoint into a method without the classifier
    values = evaluated(tmp_path / "stopped")["values"]
    without = {k: v for k, v in judged.items() if "linear" not in k and k != "step"}
    assert values == without
    bare = make_spec(config, num_devices=1).init()
    with CheckpointManager(tmp_path / "stopped" / "checkpoints") as checkpoints:
        found = checkpoints.restore_latest(bare)
    assert found is not None
    assert "linear" not in found[1].params


@pytest.mark.parametrize(("labels", "what"), [(None, "no labels"), (2, "several")])
def test_it_is_refused_if_images_do_not_have_one_class_each(labels, what, arrays):
    for split in ("train", "test"):
        with np.load(arrays / f"{split}.npz") as file:
            images = file["images"]
        fields = {} if labels is None else {"labels": np.ones((len(images), 2), int)}
        np.savez(arrays / f"{split}.npz", images=images, **fields)
    config = tiny_config("cifar10_simsiam", "baseline", arrays, **LINEAR)
    with pytest.raises(ValueError, match=f"config.monitor.linear=True .* has {what}"):
        make_experiment(config, make_mesh(jax.devices()[:1]))
