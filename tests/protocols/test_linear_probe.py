"""Linear probe: training, the unchanged encoder, stopping and resuming."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from logo_jax.data.load import load_images
from logo_jax.data.sources.base import ArraySource
from logo_jax.experiment import make_loader, make_spec
from logo_jax.experiment.pretrained import FrozenEncoder
from logo_jax.parallel.mesh import make_mesh, replicate
from logo_jax.protocols.crop_training import train_step
from logo_jax.protocols.linear_probe import (
    RECIPES,
    Recipe,
    make_probe,
    train_and_test,
)
from logo_jax.training import preemption
from tests.commands.test_main import tiny_config

RECIPE = Recipe(
    optimizer="sgd",
    learning_rate=320.0,  # 10 for 8 images
    schedule="step",
    milestones=(4,),
    batch_size=8,
    num_epochs=6,
    area=(0.5, 1.0),
)


@pytest.fixture(name="arrays", scope="module")
def fixture_arrays(tmp_path_factory):
    """Three classes: dark, medium and bright images."""
    folder = tmp_path_factory.mktemp("arrays")
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 10)):
        labels = np.arange(count) % 3
        images = rng.integers(0, 30, (count, 8, 8, 3))
        images += 110 * labels[:, None, None, None]
        np.savez(folder / f"{split}.npz", images=images.astype(np.uint8), labels=labels)
    return folder


@pytest.fixture(name="run", scope="module")
def fixture_run(arrays):
    """Spec, state and data of a run before its first step."""
    config = tiny_config("cifar10_simsiam", "baseline", arrays)
    spec = make_spec(config, num_devices=1)
    data = load_images(spec.config.data.location)
    return spec, jax.jit(spec.init)(), data


class StopAt(preemption.PreemptionHandler):
    """Preemption handler that requests a stop after `at` steps."""

    def __init__(self, at):
        super().__init__()
        self.left = at

    def requested(self, agree=int):
        self.left -= 1
        return bool(agree(self.left <= 0))


def frozen_on(run, num_devices=1, source="step 5"):
    spec, state, _ = run
    mesh = make_mesh(jax.devices()[:num_devices])
    return FrozenEncoder(spec, replicate(state, mesh), mesh, source)


def probed(run, folder, num_devices=1, recipe=RECIPE, source="step 5", stop=None):
    frozen, clock = frozen_on(run, num_devices, source), map(float, range(10**6))
    how = {"quiet": True, "stop": stop, "clock": clock.__next__}
    return train_and_test(frozen, run[2], recipe, folder, **how)


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_it_learns_separable_classes_and_resumes_after_a_stop(run, tmp_path):
    before = jax.device_get(run[1])
    values = probed(run, tmp_path / "whole")
    assert values == {"linear/top1": 100.0, "linear/top5": 100.0}
    assert rows(tmp_path / "whole")[-1]["top1"] == 100
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(run[1]))
    assert probed(run, tmp_path / "stopped", stop=StopAt(5)) is None
    assert rows(tmp_path / "stopped")[-1]["step"] == 5
    assert probed(run, tmp_path / "stopped") == values
    assert rows(tmp_path / "stopped")[-1] == rows(tmp_path / "whole")[-1]
    again = (tmp_path / "whole" / "metrics.jsonl").stat().st_mtime_ns
    assert probed(run, tmp_path / "whole") == values  # complete: only tested
    assert (tmp_path / "whole" / "metrics.jsonl").stat().st_mtime_ns == again
    with pytest.raises(ValueError, match="encoder: step 5 -> step 6"):
        probed(run, tmp_path / "whole", source="step 6")


def test_a_probe_that_diverges_names_its_flags(run, tmp_path):
    recipe = dataclasses.replace(RECIPE, learning_rate=1e40)
    message = r"diverges \(the loss of step .* lower --learning_rate than 1e\+40$"
    with pytest.raises(ValueError, match=message):
        probed(run, tmp_path, recipe=recipe)


def test_a_probe_flips_crops_and_changes_nothing_else(run):
    spec, state, data = run
    augment = spec.config.augment
    others = [name for name in dataclasses.asdict(augment.policy) if "_prob" in name]
    policy = dataclasses.replace(augment.policy, **dict.fromkeys(others, 1.0))
    strong = dataclasses.replace(augment, policy=policy, extra="nowhere:change")
    config = dataclasses.replace(spec.config, augment=strong)
    frozen = frozen_on((dataclasses.replace(spec, config=config), state, data))
    probe = make_probe(frozen, RECIPE, num_classes=3, num_images=24)
    drawn = {name: getattr(probe.augment, name) for name in others}
    assert drawn == dict.fromkeys(others, 0.0) | {"flip_prob": RECIPE.flip_prob}
    assert probe.augment.std == augment.policy.std


def test_the_folder_of_a_probe_of_an_older_version_is_resumed(run, tmp_path):
    """Its config has these fields of the augmentation only."""
    probed(run, tmp_path, stop=StopAt(1))
    config = json.loads((tmp_path / "config.json").read_text())
    names = "flip_prob jitter jitter_prob grayscale_prob blur_prob blur_sigma mean std"
    assert sorted(config["augment"]) == sorted(names.split())


def stepped(run, recipe, num_devices=1, steps=2):
    """States of a probe after some steps and before the first step."""
    (spec, _, data), frozen = run, frozen_on(run, num_devices)
    mesh, keys = frozen.mesh, jax.random.split(jax.random.key(0), 3)
    probe = make_probe(frozen, recipe, num_classes=3, num_images=24)
    loader, _ = make_loader(spec.config.data, data.bank, mesh, 8, (0,))
    compiled = train_step(probe, mesh, keys[1:])
    first = probe.init(keys[0])
    found = replicate(first, mesh)
    for examples, epoch in loader.batches(0, steps):
        found, _ = compiled(found, examples, epoch)
    return jax.device_get((found, first))


def test_the_encoder_does_not_change_on_one_device_or_four(run):
    one, first = stepped(run, RECIPE)
    four, _ = stepped(run, RECIPE, num_devices=4)
    frozen = run[1].variables("encoder")
    for state in (one, four):
        jax.tree.map(np.testing.assert_array_equal, state.memory["encoder"], frozen)
    kernels = [state.params["linear"]["kernel"] for state in (one, first)]
    assert np.abs(np.subtract(*kernels)).max() > 0
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(four), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_lars_steps_by_the_norm_of_the_weights_not_of_the_gradient(run):
    lars = dataclasses.replace(
        RECIPE, optimizer="lars", schedule="cosine", milestones=(), learning_rate=32.0
    )
    state, first = stepped(run, lars, steps=1)
    before = first.params["linear"]["kernel"]
    moved = np.linalg.norm(state.params["linear"]["kernel"] - before)
    # learning rate 1 at the first step, times the trust coefficient 1e-3, times the
    # norm of the weights
    np.testing.assert_allclose(moved, 1e-3 * np.linalg.norm(before), rtol=1e-4)


def test_the_published_rates_are_those_of_their_steps():
    moco = RECIPES["moco"].rates(10)
    for at, rate in ((0, 30), (599, 30), (600, 3), (799, 3), (800, 0.3), (999, 0.3)):
        np.testing.assert_allclose(moco(at), rate, rtol=1e-6)
    simsiam = RECIPES["simsiam"].rates(10)
    for at, rate in ((0, 1.6), (450, 0.8), (300, 1.2), (900, 0.0)):
        np.testing.assert_allclose(simsiam(at), rate, atol=1e-6)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"optimizer": "adam"}, "recipe.optimizer='adam' must be sgd or lars"),
        ({"momentum": 1.0}, "recipe.momentum=1.0 must be"),
        ({"milestones": ()}, r"recipe.milestones=\(\) must be epochs"),
        ({"milestones": (4, 9)}, "must be below num_epochs=6"),
        ({"area": (0.0, 1.0)}, "scale"),
    ],
)
def test_an_invalid_recipe_is_rejected(field, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RECIPE, **field)


def test_features_are_the_same_on_devices_that_do_not_divide_the_batch(run):
    """Fine-tuning on few labels may use three devices for the run's batches of 8."""
    one, three = (frozen_on(run, n).features(run[2].queries) for n in (1, 3))
    np.testing.assert_allclose(one.features, three.features, rtol=1e-5, atol=1e-6)


def test_data_or_batches_that_do_not_fit_are_rejected(run, tmp_path):
    spec, state, data = run
    with pytest.raises(ValueError, match="labeled training and test set"):
        probed((spec, state, data._replace(queries=None)), tmp_path)
    with pytest.raises(ValueError, match="batch_size=32 exceeds the 24"):
        probed(run, tmp_path, recipe=dataclasses.replace(RECIPE, batch_size=32))
    with pytest.raises(ValueError, match="multiple of the 3 devices"):
        probed(run, tmp_path, num_devices=3)
    sevens = np.full(len(data.queries), 7)
    images = ArraySource(data.queries.images, sevens, origin="x")
    with pytest.raises(ValueError, match="labels of the test images range from 7 to 7"):
        probed((spec, state, data._replace(queries=images)), tmp_path)
    assert not any(tmp_path.iterdir())
