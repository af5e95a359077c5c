"""The table of protocols: selection, options, and evaluation of several seeds."""

import pathlib
import subprocess
import sys
import types

import pytest

from logo_jax import protocols
from logo_jax.evaluation.metrics import METRICS
from logo_jax.protocols.base import EvalRequest, EvalResult, Protocol
from logo_jax.training.preemption import PreemptionHandler


class Encoder:
    """Stub of a frozen encoder with one or several seeds."""

    def __init__(self, *seeds):
        schedule = types.SimpleNamespace(seeds=seeds)
        self.spec = types.SimpleNamespace(schedule=schedule)

    @property
    def first_seed(self):
        return self.spec.schedule.seeds[0]

    def seeds(self):
        return map(Encoder, self.spec.schedule.seeds)


def test_a_name_and_a_recipe_choose_a_protocol():
    assert protocols.NAMES == ("knn", "linear", "finetune", "transfer", "svm")
    assert protocols.RECIPES == ("moco", "simsiam", "features", "byol", "simclr")
    assert protocols.recipes_of("linear")[0] == "moco"
    assert protocols.recipes_of("finetune") == ("byol", "simclr", "moco")
    for name in ("knn", "transfer", "svm"):
        assert protocols.find(name, {}).name == name
    assert protocols.find("linear", {}).recipes == ("moco", "simsiam")
    assert protocols.find("linear", {"recipe": "features"}).recipes == ("features",)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("knn", {"recipe": "moco"}, "--recipe is not an option of --protocol=knn"),
        ("svm", {"metric": "map", "num_epochs": 3}, "--num_epochs is not an option of"),
        (
            "linear",
            {"recipe": "features", "learning_rate": 3.0},
            "--learning_rate is not an option of --protocol=linear with "
            "--recipe=features",
        ),
        ("linear", {"recipe": "byol"}, "recipe='byol' must be one of moco, simsiam, f"),
        ("svm", {"labels": "0.1"}, "--labels is not an option of --protocol=svm"),
    ],
)
def test_an_option_that_a_protocol_would_ignore_is_rejected(name, options, message):
    with pytest.raises(ValueError, match=message):
        protocols.find(name, options)


def asked(folder, **options):
    return EvalRequest(options, folder, PreemptionHandler())


def test_seeds_are_evaluated_one_by_one_each_in_its_own_folder(tmp_path):
    folders = []

    def one(frozen, request):
        folders.append(request.folder)
        seed = frozen.first_seed
        return EvalResult("p", {"x": 10.0 * seed}, {"test": 3}, {"seed": seed})

    result = Protocol("p", one).run(Encoder(4, 6), asked(tmp_path / "name"))
    spread = {"x/std": pytest.approx(200**0.5)}
    assert result.values == {"x": 50, "x/seed_4": 40, "x/seed_6": 60} | spread
    assert result.settings == {"of each seed": [{"seed": 4}, {"seed": 6}]}
    assert folders == [tmp_path / "name-seed4", tmp_path / "name-seed6"]
    alone = Protocol("p", one).run(Encoder(4), asked(tmp_path / "name"))
    assert (alone.values, alone.settings) == ({"x": 40.0}, {"seed": 4})
    assert folders[2] == tmp_path / "name"


def test_an_evaluation_that_was_stopped_in_one_seed_has_no_result(tmp_path):
    results = iter([EvalResult("p", {"x": 1.0}, {}, {}), None])
    stopped = Protocol("p", lambda frozen, request: next(results))
    assert stopped.run(Encoder(0, 1), asked(tmp_path)) is None


def test_the_commands_help_has_every_option_and_does_not_import_scikit_learn():
    command = [sys.executable, "-X", "importtime", "-m", "logo_jax.evaluate", "--help"]
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    for option in protocols.OPTIONS:
        assert option in done.stdout
    for name in (*protocols.NAMES, *protocols.RECIPES, *METRICS):
        assert name in done.stdout
    assert "logo_jax.protocols.svm" in done.stderr
    assert "sklearn" not in done.stderr
