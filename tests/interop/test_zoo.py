"""The encoders that are part of the package are what their descriptions say."""

import csv
import hashlib

import numpy as np
import pytest

import logo_jax
from logo_jax import configs, convert, zoo
from logo_jax.data.sources.photographs import load_photographs
from logo_jax.evaluation.knn import knn_accuracy
from logo_jax.experiment import parse
from logo_jax.interop import torchvision

MOST_BYTES = 3_000_000
every_name = pytest.mark.parametrize("name", zoo.names())


@every_name
def test_the_file_is_the_described_one_and_small(name):
    known = zoo.find(name)
    content = known.weights.read_bytes()
    assert hashlib.sha256(content).hexdigest() == known.sha256
    assert len(content) <= MOST_BYTES


@every_name
def test_the_network_and_the_normalization_are_those_of_its_config(name):
    known = zoo.find(name)
    config = parse(configs.load(known.config).to_dict())
    encoder = logo_jax.load_encoder(name)
    assert encoder.augment.mean == config.augment.policy.mean == known.mean
    assert encoder.augment.std == config.augment.policy.std == known.std
    assert encoder.module.width == config.encoder.width
    assert encoder.module.stem == config.encoder.stem
    other = logo_jax.load_encoder(name, mean=np.zeros(3), std=np.ones(3), crop=16)
    assert other.augment.mean == (0, 0, 0)
    assert (other.resize, other.crop) == (known.resize, 16)


@every_name
def test_the_log_ends_with_the_step_of_the_weights_and_without_a_failure(name):
    known = zoo.find(name)
    with (zoo.FOLDER / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert int(rows[-1]["step"]) == known.step
    losses = [float(row["loss"]) for row in rows if row["loss"]]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-10:]) < np.mean(losses[10:20])


@every_name
def test_it_recognizes_photographs_that_it_was_not_trained_on(name):
    """A third of the quickstart's patches, of which an untrained network knows 64 %."""
    encoder = logo_jax.load_encoder(name)
    bank = encoder.features(load_photographs("train", train_per_photograph=150))
    queries = encoder.features(load_photographs("test", test_per_photograph=50))
    found = knn_accuracy(bank, queries, [(20, 0.07)], num_classes=10)
    assert found["k20_t0.07/top1"] > 70


def test_a_name_is_taken_by_commands_and_a_path_of_that_name_comes_first(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (name, *_) = zoo.names()
    convert.main([name, "--out=copy.safetensors"])
    again = torchvision.read_safetensors(tmp_path / "copy.safetensors")
    for tensor, values in torchvision.read_safetensors(zoo.find(name).weights).items():
        np.testing.assert_array_equal(values, again[tensor])
    (tmp_path / name).mkdir()
    with pytest.raises(FileNotFoundError, match="not the folder of a run"):
        logo_jax.load_encoder(name)


def test_a_name_that_is_not_in_the_zoo_is_refused_with_those_that_are():
    with pytest.raises(FileNotFoundError, match=f"zoo: .*{zoo.names()[0]}"):
        logo_jax.load_encoder("cifar10-resnet18")
