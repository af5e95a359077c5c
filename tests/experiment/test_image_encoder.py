"""`logo_jax.load_encoder`: from a run or a file to features of images of any kind."""

import subprocess
import sys
import types

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import logo_jax
from logo_jax.data.sources.base import ArraySource
from logo_jax.experiment import make_spec, pretrained
from logo_jax.experiment.image_encoder import require_sizes
from logo_jax.interop import torchvision
from logo_jax.interop.backbone import Backbone
from logo_jax.parallel.mesh import make_mesh
from logo_jax.training import workdir
from logo_jax.training.checkpoints.manager import CheckpointManager
from tests.commands.test_main import tiny_config
from tests.golden import test_backbones as golden

ONE = make_mesh(jax.devices()[:1])


@pytest.fixture(name="run", scope="module")
def fixture_run(tmp_path_factory):
    """A run with two seeds and checkpoints of two steps, for images of one size."""
    folder = tmp_path_factory.mktemp("run")
    fields = {"seeds": 2, "monitor.resize": 0, "monitor.crop": 0}
    config = tiny_config("cifar10_simsiam", "baseline", "x", **fields)
    workdir.claim_workdir(folder, config.to_dict())
    state = jax.jit(make_spec(config, num_devices=1).init)()
    with CheckpointManager(folder / "checkpoints") as checkpoints:
        checkpoints.save(1, state)
        checkpoints.save(2, jax.tree.map(lambda x: x * 2, state))
    return folder


@pytest.fixture(name="images")
def fixture_images():
    return np.random.default_rng(0).integers(0, 256, (5, 12, 12, 3), np.uint8)


@pytest.mark.slow
def test_a_run_gives_the_features_that_evaluations_use(run, images):
    config = workdir.read_config(run)
    source = ArraySource(images, origin="images")
    for seed, frozen in enumerate(pretrained.from_run(run, config, ONE).seeds()):
        encoder = logo_jax.load_encoder(run, seed=seed)
        assert encoder.source == f"step 2 of {run}"
        found = encoder(images)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, frozen.features(source).features, rtol=1e-5)


def test_a_step_and_a_seed_are_chosen(run, images):
    first, second = (logo_jax.load_encoder(run, step=s, seed=0) for s in (1, 2))
    for a, b in zip(*map(jax.tree.leaves, (first, second)), strict=True):
        np.testing.assert_array_equal(2 * a, b)
    other = logo_jax.load_encoder(str(run), step=1, seed=1)
    assert np.abs(other(images) - first(images)).max() > 1e-3
    with pytest.raises(ValueError, match=r"no checkpoint of step 7, only of \[1, 2\]"):
        logo_jax.load_encoder(run, step=7, seed=0)
    with pytest.raises(ValueError, match=r"seed=None must be one of .*\[0, 1\]"):
        logo_jax.load_encoder(run)


def test_images_of_every_kind_have_the_same_features(run, images, tmp_path):
    encoder = logo_jax.load_encoder(run, seed=0)
    expected = encoder(images, batch_size=4)
    files = [tmp_path / f"{i}.png" for i in range(len(images))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    kinds = (jax.numpy.asarray(images), list(images), files, list(map(str, files)))
    for kind in (*kinds, tmp_path, str(tmp_path)):
        np.testing.assert_allclose(encoder(kind), expected, rtol=1e-5, atol=1e-6)
    named = tmp_path / "Paris, 2019.png"
    files[1].rename(named)
    files[1] = named
    one = encoder(str(files[1]))
    np.testing.assert_allclose(one, expected[1:2], rtol=1e-5, atol=1e-6)
    assert len(repr(encoder)) < 200  # not the weights
    assert "step 2" in repr(encoder)


def test_images_of_several_sizes_are_resized_and_cropped(run, images):
    encoder = logo_jax.load_encoder(run, seed=0, resize=10, crop=8)
    large = np.asarray(Image.fromarray(images[0]).resize((30, 20)))
    features = encoder([large, images[1]])
    center = Image.fromarray(images[1]).resize((10, 10), Image.Resampling.BICUBIC)
    assert features.shape == (2, 8)
    assert np.isfinite(features).all()
    assert features[1] == pytest.approx(
        logo_jax.load_encoder(run, seed=0)(np.asarray(center)[None, 1:9, 1:9])[0],
        rel=0.05,
        abs=0.02,
    )
    with pytest.raises(ValueError, match="20x30, .*set resize and crop"):
        logo_jax.load_encoder(run, seed=0)([images[1], large])


def test_an_encoder_is_a_pytree_whose_apply_can_be_compiled(run, images):
    encoder = logo_jax.load_encoder(run, seed=0)
    expected = encoder(images)
    compiled = jax.jit(encoder.apply)
    np.testing.assert_allclose(compiled(images), expected, rtol=1e-5, atol=1e-6)
    as_float = images.astype(np.float32) / 255
    np.testing.assert_allclose(compiled(as_float), expected, rtol=1e-4, atol=1e-5)
    assert jax.tree.structure(encoder).num_leaves == len(
        jax.tree.leaves(encoder.variables)
    )
    zero = jax.tree.map(lambda x: 0 * x, encoder)
    assert np.abs(zero.apply(images)).max() == 0
    passed = jax.jit(lambda encoder, images: encoder.apply(images))
    np.testing.assert_allclose(passed(encoder, images), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_file_of_torchvision_s_format_gives_torchvision_s_features(tmp_path):
    features = golden.load("resnet_features.npz")
    module, images, _ = golden.RESNETS["resnet18"]
    shapes = golden.shapes_of(module, features[images])
    layers = golden.resnet_layers(shapes["params"])
    variables = golden.formula_weights(layers, shapes)
    file = tmp_path / "resnet18.safetensors"
    save_file(torchvision.tensors_of(Backbone(module, variables)), file)
    loaded = logo_jax.load_encoder(file, mean=(0, 0, 0), std=(1, 1, 1))
    expected = features["resnet18/eval"]
    found = loaded.apply(features[images])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * abs(expected).max())


def test_wrong_arguments_are_errors_with_one_line(run, images, tmp_path):
    encoder = logo_jax.load_encoder(run, seed=0)
    (tmp_path / "broken.png").write_bytes(b"no image")
    sizes = types.SimpleNamespace(resize=16, crop=0)
    for call, message in (
        (lambda: logo_jax.load_encoder(tmp_path / "none"), "none does not exist"),
        (lambda: logo_jax.load_encoder(tmp_path), "not the folder of a run"),
        (lambda: logo_jax.load_encoder(run, mean=(0, 0, 0)), "mean does not apply"),
        (lambda: logo_jax.load_encoder(run, resize=16, crop=0), "crop=0 must be betw"),
        (lambda: require_sizes(sizes), "crop=0 must be from 1 to resize=16"),
        (lambda: encoder(images / 255), r"must be uint8 .* \(255 \* images\).round"),
        (lambda: encoder(images.transpose(0, 3, 1, 2)), r"transpose\(0, 2, 3, 1\)"),
        (lambda: encoder(images[0]), r"images\[None\]"),
        (lambda: encoder([images]), r"uint8 array \[h, w, 3\], got uint8 \[5, 12"),
        (lambda: encoder([]), "is empty"),
        (lambda: encoder([tmp_path / "x.png"]), "x.png is not a file"),
        (lambda: encoder(tmp_path), r"broken.png cannot be decoded .* damaged=found"),
        (lambda: encoder(images, batch_size=3), "multiple of the 4 devices"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_damaged_images_have_no_row_if_their_numbers_are_asked_for(
    run, images, tmp_path
):
    encoder, found = logo_jax.load_encoder(run, seed=0), {}
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for file, pixels in zip(files, images, strict=False):
        Image.fromarray(pixels).save(file)
    files[1].write_bytes(b"no image")
    features = encoder(files, damaged=found)
    assert list(found) == [1]
    np.testing.assert_allclose(features, encoder(images[[0, 2]]), rtol=1e-4)


def test_importing_the_package_imports_neither_jax_nor_numpy():
    code = "import sys, logo_jax; print({'jax', 'numpy', 'flax'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n"
    assert {"load_encoder", "ImageEncoder"} <= set(dir(logo_jax))
    with pytest.raises(AttributeError, match="no attribute 'load_encoders'"):
        logo_jax.load_encoders  # noqa: B018
