"""`logo_jax.convert`: runs to files of other libraries and back; features agree."""

import pickle
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from logo_jax import convert
from logo_jax.experiment import classifier_folder, make_spec
from logo_jax.interop import onnx, pretrained_files, stablehlo, torchvision
from logo_jax.interop.backbone import Backbone
from logo_jax.interop.torchvision import read_backbone
from logo_jax.networks import alexnet
from logo_jax.training import workdir
from logo_jax.training.checkpoints.manager import CheckpointManager
from tests.commands.test_main import tiny_config

FIELDS = {"encoder.backbone": "resnet10", "monitor.crop": 0}


def save(folder, state, **changes):
    """Writes a run's folder with a checkpoint of the state."""
    config = tiny_config("cifar10_simsiam", "baseline", "x", **FIELDS | changes)
    workdir.claim_workdir(folder, config.to_dict())
    with CheckpointManager(folder / "checkpoints") as checkpoints:
        checkpoints.save(7, state)


@pytest.fixture(name="run", scope="module")
def fixture_run(tmp_path_factory):
    """The folder of a tiny untrained encoder, and its state."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny_config("cifar10_simsiam", "baseline", "x", **FIELDS)
    state = jax.jit(make_spec(config, num_devices=1).init)()
    save(folder, state)
    return folder, state


@pytest.fixture(name="folder")
def fixture_folder(run):
    return run[0]


def refused(capsys, *arguments):
    """Returns the one line on stderr of a command that ends with exit code 2."""
    with pytest.raises(SystemExit, match="2"):
        convert.main([str(argument) for argument in arguments])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "name"),
    [("torchvision", "w.safetensors"), ("huggingface", "w")],
)
def test_a_run_converted_to_another_format_and_back_is_bit_equal(
    to, name, run, tmp_path, capsys
):
    folder, state = run
    out = tmp_path / name
    convert.main([str(folder), f"--to={to}", f"--out={out}"])
    printed = capsys.readouterr().out
    (difference,) = re.findall(r"differ by (\S+) of the largest", printed)
    assert float(difference) < 1e-5
    assert "mean (0.4914," in printed
    assert list(tmp_path.iterdir()) == [out]
    again = tmp_path / "again.safetensors"
    convert.main([str(out), f"--out={again}"])
    assert "mean" not in capsys.readouterr().out
    found = pretrained_files.read(again).variables
    for group, before in (("params", state.params), ("batch_stats", state.batch_stats)):
        expected = before["encoder"]["backbone"]
        jax.tree.map(np.testing.assert_array_equal, found[group], expected)
    evaluated = read_backbone(again, found)  # as evaluate reads it
    jax.tree.map(np.testing.assert_array_equal, evaluated, found)


def test_compiled_code_takes_any_batch_of_stored_images_on_every_platform(
    run, tmp_path, capsys
):
    folder, _ = run
    out = tmp_path / "encoder.stablehlo"
    convert.main([str(folder), "--to=stablehlo", f"--out={out}"])
    assert "differ by" in capsys.readouterr().out
    exported = jax.export.deserialize(bytearray(out.read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    backbone, augment, side, *_ = convert.read(folder)
    images = np.random.default_rng(1).integers(0, 256, (3, side, side, 3), np.uint8)
    mean, std = np.array(augment.mean), np.array(augment.std)
    expected = backbone.features(np.float32((images / 255 - mean) / std))
    for count in (1, 3):
        features = stablehlo.features(out.read_bytes(), images[:count])
        np.testing.assert_allclose(features, expected[:count], rtol=1e-4, atol=1e-6)


def test_an_existing_output_is_replaced_only_with_overwrite(folder, tmp_path, capsys):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "model.safetensors").write_text("mine")
    (out / "other").write_text("mine")
    command = folder, "--to=huggingface", f"--out={out}"
    assert "--overwrite" in refused(capsys, *command)
    assert (out / "model.safetensors").read_text() == "mine"
    convert.main([*map(str, command), "--overwrite"])
    names = {file.name for file in tmp_path.rglob("*")}
    assert names == {"mine", "config.json", "model.safetensors", "other"}
    assert "embedder.embedder.normalization.bias" in load_file(
        out / "model.safetensors"
    )


def test_the_folder_of_a_run_is_not_written_to(folder, capsys):
    before = (folder / "config.json").read_bytes()
    command = folder, "--to=huggingface", f"--out={folder}", "--overwrite"
    assert "is the folder of a run, whose config.json" in refused(capsys, *command)
    assert (folder / "config.json").read_bytes() == before


def test_a_file_does_not_replace_a_folder(folder, tmp_path, capsys):
    out = tmp_path / "w.safetensors"
    out.mkdir()
    (out / "other").write_text("mine")
    refused(capsys, folder, f"--out={out}", "--overwrite")
    assert (out / "other").read_text() == "mine"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_file_with_other_features_than_the_source_is_not_kept(
    wrong, folder, tmp_path, capsys
):
    file, out = tmp_path / "w.safetensors", tmp_path / "again"
    convert.main([str(folder), f"--out={file}"])
    tensors = load_file(file)
    tensors["bn1.bias"] = np.full_like(tensors["bn1.bias"], wrong)
    save_file(tensors, file)
    before = set(tmp_path.iterdir())
    assert "not kept" in refused(capsys, file, f"--out={out}", "--to=huggingface")
    assert set(tmp_path.iterdir()) == before


def test_the_difference_is_measured_on_the_written_file(folder, tmp_path):
    subject = convert.read(folder)

    def write(subject, path):
        scaled = jax.tree.map(lambda x: 1.001 * x, subject.backbone.variables)
        backbone = Backbone(subject.backbone.module, scaled)
        target.write(subject._replace(backbone=backbone), path)

    target = convert.TARGETS["torchvision"]
    out = tmp_path / "w.safetensors"
    with pytest.raises(ValueError, match="not kept"):
        convert.convert(subject, target._replace(write=write), out)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_one_of_several_seeds_is_converted(run, tmp_path, capsys):
    folder = tmp_path / "run"
    state = jax.tree.map(lambda x: jnp.asarray(np.stack([x, x + 1])), run[1])
    save(folder, state, seeds=2)
    assert "[0, 1]" in refused(capsys, folder, f"--out={tmp_path / 'w.safetensors'}")
    found = convert.read(folder, seed=1).backbone.variables["params"]
    expected = jax.tree.map(lambda x: x[1], state.params["encoder"]["backbone"])
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_the_cifar_stem_cannot_be_converted_for_transformers(folder, tmp_path, capsys):
    tensors = torchvision.tensors_of(convert.read(folder).backbone)
    tensors["conv1.weight"] = tensors["conv1.weight"][..., :3, :3].copy()
    save_file(tensors, tmp_path / "w.safetensors")
    before = set(tmp_path.iterdir())
    arguments = (
        tmp_path / "w.safetensors",
        "--to=huggingface",
        f"--out={tmp_path / 'x'}",
    )
    line = refused(capsys, *arguments)
    assert "ResNetModel begins with a 7x7 convolution" in line
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out=w.safetensors"], "nowhere does not exist"),
        ([], "--out"),
        (["--out=w.safetensors", "--to=coreml"], "coreml"),
    ],
)
def test_wrong_arguments_end_with_one_line(arguments, message, capsys):
    assert message in refused(capsys, "nowhere", *arguments)


def test_a_run_without_checkpoint_a_bad_name_and_a_missing_folder_are_reported(
    folder, tmp_path, capsys
):
    line = refused(capsys, folder, f"--out={tmp_path / 'w.bin'}")
    assert f"--out={tmp_path / 'w.bin'} must end with .safetensors or" in line
    out = tmp_path / "none" / "w.safetensors"
    assert "none must be a folder" in refused(capsys, folder, f"--out={out}")
    (tmp_path / "checkpoints").mkdir()
    line = refused(capsys, tmp_path, f"--out={tmp_path / 'w.safetensors'}")
    assert "has no config.json" in line


def test_stablehlo_needs_a_run_since_a_file_has_no_normalization(
    folder, tmp_path, capsys
):
    file = tmp_path / "w.safetensors"
    convert.main([str(folder), f"--out={file}"])
    line = refused(capsys, file, "--to=stablehlo", f"--out={tmp_path / 'x'}")
    assert "needs the folder of a run" in line


def test_detectron2s_file_has_its_names_and_the_weights_in_rgb(run, tmp_path, capsys):
    folder, state = run
    out = tmp_path / "w.pkl"
    convert.main([str(folder), "--to=detectron2", f"--out={out}"])
    assert "differ by" in capsys.readouterr().out
    content = pickle.loads(out.read_bytes())
    assert content["matching_heuristics"] is True
    model = content["model"]
    assert {  # detectron2.modeling.backbone.resnet: BasicStem and BasicBlock
        "stem.conv1.weight",
        "stem.conv1.norm.running_var",
        "res2.0.conv1.weight",
        "res2.0.conv2.norm.weight",
        "res5.0.shortcut.weight",
        "res5.0.shortcut.norm.bias",
    } <= model.keys()
    parts = r"(stem|res[2-5]\.0)\.(conv[12]|shortcut)(\.norm)?\.(weight|bias|running_"
    names = re.compile(parts + r"(mean|var)|num_batches_tracked)")
    assert all(map(names.fullmatch, model))
    kernel = state.params["encoder"]["backbone"]["conv1"]["kernel"]
    expected = np.asarray(kernel).transpose(3, 2, 0, 1)
    np.testing.assert_array_equal(model["stem.conv1.weight"], expected)


def test_timm_has_no_narrow_resnets(folder, tmp_path, capsys):
    line = refused(capsys, folder, "--to=timm", f"--out={tmp_path / 'w.safetensors'}")
    assert "timm's ResNets have the stem 'imagenet' and width 64, but" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["torch", "onnxscript"])
def test_onnx_names_the_missing_package(name, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    monkeypatch.setitem(sys.modules, name, None)
    line = refused(capsys, folder, "--to=onnx", f"--out={tmp_path / 'w.onnx'}")
    assert f"--to=onnx needs {name}: pip install 'logo_jax[onnx]'" in line
    assert not list(tmp_path.iterdir())


def test_other_networks_are_refused_as_onnx(tmp_path):
    backbone = Backbone(alexnet.SmallAlexNet(), {})
    with pytest.raises(ValueError, match="SmallAlexNet is neither a ResNet nor a vis"):
        onnx.write(backbone, 64, 3, None, None, tmp_path / "w.onnx")


def test_the_classifier_of_a_fine_tuned_folder_is_written_too(folder, tmp_path, capsys):
    subject = convert.read(folder)
    kernel = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
    classifier_folder.write(
        tmp_path / "classifier",
        config=make_spec(workdir.read_config(folder), num_devices=1).config,
        sizes=(16, 16),
        backbone=subject.backbone.variables,
        linear={"kernel": kernel, "bias": np.arange(3, dtype=np.float32)},
        class_names=("a", "b", "c"),
        source="a test",
    )
    given, out = str(tmp_path / "classifier"), tmp_path / "w.safetensors"
    line = refused(capsys, given, f"--out={out}", "--step=3")
    assert "--step=3 is for runs, but" in line
    convert.main([given, f"--out={out}"])
    assert "differ by" in capsys.readouterr().out
    tensors = load_file(out)
    np.testing.assert_array_equal(tensors["fc.weight"], kernel.T)
    assert tensors["fc.bias"].tolist() == [0, 1, 2]
    tensors["fc.bias"] += 1
    changed = tmp_path / "changed.safetensors"
    save_file(tensors, changed)
    features = convert.read(folder).backbone.features
    images = np.random.default_rng(1).normal(size=(2, 16, 16, 3)).astype(np.float32)
    scores = convert.TARGETS["torchvision"].features(changed, np.zeros(0), images)
    np.testing.assert_allclose(
        scores, features(images) @ kernel + [1, 2, 3], rtol=1e-4, atol=1e-5
    )
    convert.main([given, "--to=detectron2", f"--out={tmp_path / 'w.pkl'}"])
    model = pickle.loads((tmp_path / "w.pkl").read_bytes())["model"]
    assert not any("fc" in name for name in model)
