"""Fine-tuning: the choice of a setting, the test, resuming, and the classifier."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

import logo_jax
from logo_jax.experiment.pretrained import FrozenEncoder
from logo_jax.parallel.mesh import make_mesh, replicate
from logo_jax.protocols import finetune
from logo_jax.protocols.base import EvalRequest
from logo_jax.protocols.finetune import RECIPES, Trial, chosen_recipe
from logo_jax.training.preemption import PreemptionHandler
from tests.protocols.test_linear_probe import StopAt
from tests.protocols.test_linear_probe import fixture_arrays as fixture_arrays
from tests.protocols.test_linear_probe import fixture_run as fixture_run

# two settings, of which the first trains nothing
RECIPE = dataclasses.replace(
    RECIPES["byol"], learning_rates=(0.0, 0.1), lengths=(8,), batch_size=8
)


@pytest.fixture(name="recipe", autouse=True)
def fixture_recipe(monkeypatch):
    monkeypatch.setitem(finetune.RECIPES, "byol", RECIPE)
    monkeypatch.setattr(finetune, "FEWEST", 8)


def tuned(run, folder, num_devices=1, stop=None, **options):
    spec, state, data = run
    mesh = make_mesh(jax.devices()[:num_devices])
    frozen = FrozenEncoder(spec, replicate(state, mesh), mesh, "step 5").on(data)
    request = EvalRequest(options, folder, stop or PreemptionHandler())
    return finetune.evaluate(frozen, request)


def weights(folder):
    file = folder / "classifier" / "weights.safetensors"
    return file.read_bytes()


@pytest.fixture(name="whole", scope="module")
def fixture_whole(run, tmp_path_factory):
    """Folder and result of an evaluation that was not interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(finetune.RECIPES, "byol", RECIPE)
        patch.setattr(finetune, "FEWEST", 8)
        return folder, tuned(run, folder)


@pytest.mark.slow
def test_the_best_setting_is_trained_on_all_labels_and_tested_once(whole):
    folder, result = whole
    assert result.values == {"finetune/top1": 100.0, "finetune/top5": 100.0}
    # a fifth of 8 images of each class is held out
    assert result.splits == {"train": 18, "val": 6, "test": 10}
    first, best = result.settings["grid"]
    assert first["val_top1"] < 100
    assert best["val_top1"] == 100
    assert best["learning_rate"] == result.settings["learning_rate"] == 0.1
    # 3 steps of 8 images an epoch with all 24, 2 steps with 18
    assert result.settings["num_steps"] == 24
    assert "the best of 2 settings on 6 validation images" in result.notes[0]
    rows = (folder / "lr_0.1-wd_0-epochs_8" / "metrics.jsonl").read_text()
    assert json.loads(rows.splitlines()[-1])["step"] == 16


def test_all_weights_are_trained(run, whole):
    encoder = logo_jax.load_encoder(whole[0] / "classifier")
    before = run[1].params["encoder"]["backbone"]
    same = jax.tree.map(np.array_equal, before, encoder.variables["params"])
    assert not any(jax.tree.leaves(same))


def test_the_classifier_of_the_folder_gives_the_tested_scores(run, whole, tmp_path):
    classifier = logo_jax.load_classifier(whole[0] / "classifier")
    queries = run[2].queries
    found = classifier(queries.images)
    assert classifier.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(found.argmax(1), queries.labels)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    # other images are resized to the size of those of the test
    gray = np.full((1, 16, 16, 3), 100, np.uint8)
    np.testing.assert_allclose(classifier(gray), classifier(gray[:, :8, :8]), atol=1e-5)
    pure = jax.jit(classifier.apply)(queries.images)
    np.testing.assert_allclose(pure, found, atol=1e-5)
    shutil.copytree(whole[0] / "classifier", tmp_path / "c")
    file = tmp_path / "c" / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"abcd")
    with pytest.raises(ValueError, match="weights.safetensors has another checksum"):
        logo_jax.load_classifier(tmp_path / "c")
    with pytest.raises(ValueError, match="step does not apply to a classifier"):
        logo_jax.load_encoder(whole[0] / "classifier", step=3)


@pytest.mark.slow
def test_a_stopped_evaluation_gives_the_same_bits(run, whole, tmp_path):
    assert tuned(run, tmp_path, stop=StopAt(5)) is None  # in the first setting
    assert tuned(run, tmp_path, stop=StopAt(14)) is None  # in the second
    assert (tmp_path / "lr_0-wd_0-epochs_8" / "validation.json").is_file()
    assert not (tmp_path / "lr_0-wd_0-epochs_8" / "checkpoints").exists()
    assert tuned(run, tmp_path, stop=StopAt(12)) is None  # in the last training
    again = tuned(run, tmp_path)
    assert again.values == whole[1].values
    assert again.settings["grid"] == whole[1].settings["grid"]
    assert weights(tmp_path) == weights(whole[0])


@pytest.mark.slow
def test_four_devices_give_the_same_classifier(run, tmp_path):
    spec, state, data = run
    shared = dataclasses.replace(spec.config, batch_norm="global")
    one, four = (
        tuned(
            (dataclasses.replace(spec, config=shared), state, data),
            tmp_path / str(devices),
            devices,
            learning_rate=0.1,
        )
        for devices in (1, 4)
    )
    assert one.settings["chosen"] == "the only setting of the recipe and the flags"
    found = [
        logo_jax.load_classifier(tmp_path / x / "classifier").encoder.variables
        for x in "14"
    ]
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)
    assert one.values == four.values


def test_a_setting_that_diverges_is_not_chosen(run, tmp_path, capsys):
    recipe = dataclasses.replace(RECIPE, learning_rates=(1e30, 0.1))
    finetune.RECIPES["byol"] = recipe
    result = tuned(run, tmp_path)
    assert [x["val_loss"] is None for x in result.settings["grid"]] == [True, False]
    assert result.settings["learning_rate"] == 0.1
    capsys.readouterr()
    with pytest.raises(ValueError, match=r"diverges .* give a lower --learning_rate"):
        tuned(run, tmp_path / "only", learning_rate=1e30)


def test_a_folder_belongs_to_its_images(run, whole, tmp_path):
    spec, state, data = run
    shutil.copytree(whole[0], tmp_path / "copy")
    other = data.bank.images[::-1], data.bank.labels
    bank = type(data.bank)(*other, origin=data.bank.origin)
    bank.labels[:2] = bank.labels[1::-1]
    with pytest.raises(ValueError, match="images: .* -> .*; use the old values"):
        tuned((spec, state, data._replace(bank=bank)), tmp_path / "copy")


def test_flags_replace_an_axis_of_the_grid():
    simclr = RECIPES["simclr"]
    assert len(simclr.grid()) == 7 * 8
    assert simclr.learning_rates[2] == 0.001
    setting = simclr.setting(Trial(0.1, 1e-3, 20_000), 20_000)
    assert (setting.weight_decay, setting.num_steps) == (pytest.approx(1e-2), 20_000)
    assert len(chosen_recipe({"recipe": "simclr", "learning_rate": 0.1}).grid()) == 8
    shorter = chosen_recipe({"recipe": "simclr", "num_epochs": 2})
    assert shorter.num_steps(shorter.default, 7) == 14
    assert chosen_recipe({"recipe": "moco"}).grid() == [Trial(0.025, 1e-4, 100)]


def test_few_labels_have_the_steps_per_epoch_of_the_published_1_percent():
    published = dataclasses.replace(RECIPE, batch_size=1024)
    assert published.fitting(12_811, 1) == 1024
    assert published.fitting(500, 1) == 32
    assert published.fitting(500, 3) == 33  # the next multiple
    assert RECIPES["simclr"].fitting(2_040, 1) == 256
    assert published.fitting(5, 1) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -1.0}, "learning_rate=-1.0 must be finite, 0 or more"),
        ({"weight_decay": float("nan")}, "weight_decay=nan must be finite"),
        ({"batch_size": 32}, "--batch_size=32 exceeds the 18 training images"),
        ({"recipe": "simclr", "learning_rate": 0.0}, "must be above 0 in a recipe"),
    ],
)
def test_values_that_do_not_fit_are_rejected_before_any_work(
    options, message, run, tmp_path
):
    with pytest.raises(ValueError, match=message):
        tuned(run, tmp_path, **options)
    assert not any(tmp_path.iterdir())


def test_the_schedules_are_a_cosine_and_two_steps():
    done = np.array([0.0, 0.5, 0.69, 0.7, 0.89, 0.9], np.float32)
    steps = [float(finetune.step_at_70_and_90(x)) for x in done]
    np.testing.assert_allclose(steps, [1, 1, 1, 0.1, 0.1, 0.01], rtol=1e-6)
    np.testing.assert_allclose(finetune.cosine(done[:2]), [1, 0.5], rtol=1e-6)
