"""The examples run, and what they print is right."""

import importlib
import pathlib
import re
import textwrap

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from PIL import Image
from safetensors.numpy import save_file

import logo_jax
from examples import (
    from_weights,
    neighbors,
    own_arrays,
    own_augmentation,
    own_backbone,
    own_method,
)
from logo_jax.interop import torchvision
from logo_jax.interop.backbone import Backbone
from logo_jax.methods.base import ENCODER, Batch, TrainState
from logo_jax.methods.pairing import pair_weights
from logo_jax.networks import resnet
from logo_jax.parallel.mesh import AXIS, make_mesh
from tests.backbones import BACKBONE, TwoConvolutions
from tests.data.pictures import smooth
from tests.golden import test_backbones as golden

REPOSITORY = pathlib.Path(__file__).parents[2]
TINY = {
    "encoder.backbone": BACKBONE,
    "train.num_steps": 4,
    "train.log_every_steps": 1,
    "monitor.knn_every_steps": 2,
    "monitor.trivial_baselines": False,
    "augment.jitter_prob": 0.0,  # colors take most of the compile time
    "augment.grayscale_prob": 0.0,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "steps", "batch"), [("own_loop", 20, 32), ("nnx_loop", 100, 32)]
)
def test_an_example_runs_and_its_loss_decreases(
    name, steps, batch, monkeypatch, capsys
):
    example = importlib.import_module(f"examples.{name}")
    monkeypatch.setattr(example, "STEPS", steps)
    monkeypatch.setattr(example, "BATCH", batch)
    monkeypatch.setattr(resnet, "resnet10", lambda width, stem: TwoConvolutions(width))
    with jax.numpy_dtype_promotion("standard"):  # JAX's default, as in users' programs
        example.main()
    losses = re.findall(r"loss (-?[\d.]+)", capsys.readouterr().out)
    assert float(losses[-1]) < float(losses[0])


@pytest.fixture(name="program")
def fixture_program(tmp_path, monkeypatch):
    """Runs in an empty folder, with JAX's default promotion, as users' programs do."""
    monkeypatch.chdir(tmp_path)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("example", [own_arrays, own_method])
def test_a_run_on_own_arrays_reports_its_accuracy(
    example, program, monkeypatch, capsys
):
    del program
    monkeypatch.setattr(example, "FIELDS", example.FIELDS | TINY)
    example.main()
    printed = capsys.readouterr().out
    accuracies = re.findall(r"^step ([24]): kNN ([\d.]+) %", printed, re.M)
    assert [step for step, _ in accuracies] == ["2", "4"]
    assert float(accuracies[-1][1]) > 20  # ten classes; 10 % is chance
    assert ("features: (100, " in printed) == (example is own_arrays)


@pytest.mark.slow
def test_an_own_augmentation_is_trained_with(program, monkeypatch, capsys):
    del program
    fields = own_augmentation.FIELDS | TINY | {"train.num_steps": 2}
    monkeypatch.setattr(own_augmentation, "FIELDS", fields)
    own_augmentation.main()
    printed = re.findall(r"^(with|without) erasing: kNN", capsys.readouterr().out, re.M)
    assert printed == ["without", "with"]
    runs = [logo_jax.Run(f"runs/own_augmentation/{name}") for name in printed]
    first, second = ([x["loss"] for x in run.metrics if "loss" in x] for run in runs)
    assert first != second
    erased = own_augmentation.erase(jax.random.key(0), np.ones((8, 8, 3), np.float32))
    assert np.sum(np.asarray(erased) == 0.5) == 2 * 2 * 3


@pytest.mark.slow
def test_an_own_backbone_is_trained_and_loaded(program, monkeypatch, capsys):
    del program
    own = {"encoder.width": 8, "encoder.backbone": own_backbone.Network}
    fields = own_backbone.FIELDS | TINY | own | {"train.num_steps": 2}
    monkeypatch.setattr(own_backbone, "FIELDS", fields)
    own_backbone.main()
    printed = capsys.readouterr().out
    assert re.search(r"^kNN [\d.]+ %$", printed, re.M)
    assert "features: (100, 8)" in printed
    backbone = logo_jax.Run("runs/own_backbone").config["encoder"]["backbone"]
    assert backbone == "examples.own_backbone:Network"


class Pixels(nn.Module):
    """An encoder without parameters: the red pixels of an image."""

    @nn.compact
    def __call__(self, images, *, train):
        del train
        return images[..., 0].reshape(*images.shape[:-3], -1)


@pytest.mark.slow
def test_the_own_methods_loss_is_the_published_one_over_all_devices():
    """Equal to the formula of the paper's section 2, written in NumPy."""
    views = np.random.default_rng(0).normal(size=(8, 2, 1, 3, 3)).astype(np.float32)
    method = own_method.BarlowTwins(
        encoder=Pixels(),
        tx=optax.sgd(0.1),
        pair_weights=pair_weights("symmetric", num_global=2, num_local=0),
        running_stats="all",
        off_diagonal=0.3,
    )
    state = TrainState(0, {ENCODER: {}}, {ENCODER: {}}, {}, {})

    def loss(globals_):
        batch = Batch(globals_, globals_[:, :0])
        return method.loss(state, batch, None)[0]

    with jax.numpy_rank_promotion("allow"):
        found = jax.shard_map(
            loss,
            mesh=make_mesh(jax.devices()[:2]),
            in_specs=jax.P(AXIS),
            out_specs=jax.P(),
        )(views)
    first, second = (views[:, i, 0, :, 0].astype(np.float64) for i in (0, 1))
    c = np.corrcoef(first.T, second.T)[:3, 3:]
    on, off = (np.diag(c) - 1) ** 2, (c - np.diag(np.diag(c))) ** 2
    assert float(found) == pytest.approx(on.sum() + 0.3 * off.sum(), rel=1e-3)


def write_pictures(folder, count=6):
    folder.mkdir()
    for i in range(count):
        Image.fromarray(smooth(20, 24, seed=i)).save(folder / f"{i}.png")
    return folder


@pytest.mark.slow
def test_a_run_from_weights_begins_at_their_features(program, monkeypatch, capsys):
    """After a step of learning rate 0 the features are those of the weights."""
    backbone = Backbone(*golden.small_resnet())
    save_file(torchvision.tensors_of(backbone), program / "w.safetensors")
    fields = {
        "encoder.backbone": "resnet10",
        "encoder.width": 4,
        "encoder.head_hidden": 8,
        "encoder.embedding_dim": 8,
        "crops.global_crops": (2, 16, (0.4, 1.0)),
        "data.batch_size": 4,
        "train.num_steps": 1,
    }
    monkeypatch.setattr(from_weights, "FIELDS", from_weights.FIELDS | fields)
    from_weights.main("w.safetensors", str(write_pictures(program / "photos")))
    found = re.search(r"before and after: ([\d.]+)", capsys.readouterr().out)
    assert found
    assert float(found[1]) > 0.9


@pytest.mark.slow
def test_the_nearest_image_is_the_one_that_shows_the_same(program, capsys):
    folder = write_pictures(program / "photos")
    picture = Image.open(folder / "3.png")
    picture.resize((48, 40)).save(folder / "copy.png")
    logo_jax.pretrain(
        str(folder),
        config="folder:baseline",
        workdir="run",
        quiet=True,
        **TINY
        | {
            "crops.global_crops": (2, 16, (0.4, 1.0)),
            "data.batch_size": 4,
            "encoder.head_hidden": 8,
            "encoder.embedding_dim": 8,
            "train.num_steps": 1,
        },
    )
    neighbors.main("run", str(folder))
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert {tuple(x.split()[1:]) for x in (first, second)} == {
        ("3.png", "copy.png"),
        ("copy.png", "3.png"),
    }


@pytest.mark.parametrize("page", ["extending.md"])
def test_the_code_of_a_tutorial_is_that_of_an_example(page):
    """So it is executed by the tests above; blocks with a file by test_extending.py."""
    text = (REPOSITORY / "docs" / page).read_text()
    programs = [file.read_text() for file in (REPOSITORY / "examples").glob("*.py")]
    blocks = re.findall(r"^( *)```python\n(.*?)^\1```", text, re.M | re.S)
    assert blocks
    for _, block in blocks:
        code = re.sub(r"\A(?:import .*\n)+", "", textwrap.dedent(block)).strip()
        if code.startswith("# logo_jax/"):
            continue
        assert any(code in program for program in programs), code[:200]
