"""Selecting the backbone's tensors in published files."""

import pathlib
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import logo_jax
from logo_jax import convert
from logo_jax.interop import huggingface, pretrained_files, tensor_files, torchvision
from logo_jax.interop.backbone import Backbone
from tests.golden import test_backbones as golden

ONE = np.ones(2, np.float32)
OTHER_TENSORS = {
    "": {"fc.weight": ONE, "fc.bias": ONE},
    "module.": {"module.fc.weight": ONE},
    "module.encoder_q.": {
        "module.encoder_q.fc.0.weight": ONE,
        "module.encoder_q.fc.2.bias": ONE,
        "module.encoder_k.conv1.weight": ONE,
        "module.queue": ONE,
        "module.queue_ptr": np.zeros(1, np.int64),
    },
    "module.encoder.": {
        "module.encoder.fc.1.running_mean": ONE,
        "module.encoder.fc.6.bias": ONE,
        "module.predictor.3.weight": ONE,
    },
    "encoder.": {"projector.0.weight": ONE},
    "encoder_q.": {"encoder_k.conv1.weight": ONE, "queue": ONE},
    "backbone.": {"backbone.fc.weight": ONE, "prototypes.weight": ONE},
    "model.": {"model.fc.bias": ONE},
    "student.": {"student.head.0.weight": ONE},
    "module.base_encoder.": {  # MoCo v3
        "module.base_encoder.fc.0.weight": ONE,
        "module.momentum_encoder.conv1.weight": ONE,
        "module.predictor.0.weight": ONE,
    },
    "_feature_blocks.": {},  # the trunk of VISSL
    "online_encoder.net.": {  # lucidrains' BYOL
        "online_encoder.net.fc.weight": ONE,
        "online_encoder.projector.0.weight": ONE,
        "net.conv1.weight": ONE,
        "target_encoder.net.conv1.weight": ONE,
        "online_predictor.0.weight": ONE,
    },
    "module.teacher.backbone.": {
        "module.student.backbone.conv1.weight": ONE,
        "module.teacher.head.0.weight": ONE,
    },
}


@pytest.fixture(name="small", scope="module")
def fixture_small():
    return Backbone(*golden.small_resnet())


@pytest.fixture(name="tensors")
def fixture_tensors(small):
    return torchvision.tensors_of(small)


@pytest.mark.parametrize("prefix", OTHER_TENSORS)
def test_published_files_give_their_query_encoder_without_its_head(
    prefix, small, tensors, tmp_path
):
    file = tmp_path / "w.safetensors"
    save_file({prefix + k: v for k, v in tensors.items()} | OTHER_TENSORS[prefix], file)
    found = pretrained_files.read(file)
    assert found.module == small.module
    assert found.prefix == prefix
    for name, tensor in torchvision.tensors_of(found).items():
        np.testing.assert_array_equal(tensor, tensors[name])


@pytest.mark.parametrize(
    ("prefix", "change", "message"),
    [
        ("", {"conv1.weight": None}, "has no conv1.weight"),
        ("", {"layer3.0.bn2.bias": None}, "has no layer3.0.bn2.bias, which"),
        ("", {"layer4.0.conv1.weight": None}, "has no layer4.0.conv1.weight"),
        ("", {"layer1.0.conv9.weight": ONE}, "has layer1.0.conv9.weight, which"),
        ("", {"layer2.1.bn1.bias": ONE}, "has layer2.1.bn1.bias, which"),
        ("", {"bn1.bias": ONE}, r"bn1.bias has shape \(2,\).*encoder has \(4,\)"),
        (
            "",
            {"conv1.weight": np.ones((4, 3, 5, 5))},
            r"must have shape .*got \(4, 3, 5, 5\)",
        ),
        ("module.encoder_q.", {"module.scale": ONE}, "has module.scale, which"),
        ("module.encoder.", {"module.layer": ONE}, "has module.layer, which"),
    ],
)
def test_a_tensor_missing_misshapen_or_unknown_is_named(
    prefix, change, message, tensors, tmp_path
):
    file = tmp_path / "w.safetensors"
    changed = (
        {prefix + k: v for k, v in tensors.items()} | OTHER_TENSORS[prefix] | change
    )
    save_file({k: v for k, v in changed.items() if v is not None}, file)
    with pytest.raises(ValueError, match=message):
        pretrained_files.read(file)


@pytest.mark.parametrize("channels", [1, 5])
def test_weights_of_three_channels_are_read_for_any_number(
    channels, small, tensors, tmp_path, monkeypatch
):
    """Images of equal channels have the features that those of 3 channels have."""
    monkeypatch.chdir(tmp_path)
    gray = np.random.default_rng(0).normal(size=(2, 32, 32, 1)).astype(np.float32)
    expected = small.features(np.repeat(gray, 3, -1))
    images = np.repeat(gray, channels, -1)
    file = pathlib.Path("w.safetensors")
    save_file(tensors, file)
    read = pretrained_files.read(file, channels=channels)
    np.testing.assert_allclose(read.features(images), expected, atol=1e-4)
    of_run = torchvision.read_backbone(file, read.variables)  # evaluate --weights
    for a, b in zip(*map(jax.tree.leaves, (of_run, read.variables)), strict=True):
        np.testing.assert_array_equal(a, b)
    convert.main([f"{file}", f"--channels={channels}", "--out=several.safetensors"])
    several = pretrained_files.read(pathlib.Path("several.safetensors"))
    np.testing.assert_allclose(several.features(images), expected, atol=1e-4)
    with pytest.raises(ValueError, match=f"weights of {channels} channels, .* for 4"):
        pretrained_files.read(pathlib.Path("several.safetensors"), channels=4)
    encoder = logo_jax.load_encoder(
        "w.safetensors", mean=[0.0] * channels, std=[1.0] * channels, resize=0, crop=0
    )
    stored = np.repeat(np.uint8(100 + 20 * gray.clip(-2, 2)), channels, -1)
    found = encoder(stored)
    np.testing.assert_allclose(found, read.features(stored / 255), atol=1e-3)


@pytest.mark.parametrize(
    "nested",
    [
        {"state_dict": {"x": ONE}, "epoch": 3},
        {"classy_state_dict": {"base_model": {"model": {"trunk": {"x": ONE}}}}},
        {"model": {"x": ONE}, "optimizer": {"state": {0: ONE}}},
        {"student": {"y": ONE}, "teacher": {"x": ONE}},  # DINO
        {"x": ONE},
    ],
)
def test_the_state_dict_is_found_below_the_keys_of_known_programs(nested):
    assert tensor_files.state_dict(nested) == {"x": ONE}


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.pth.tar", "w.torch"])
def test_a_pickle_is_not_read_without_unpickle(name, tmp_path):
    (tmp_path / name).write_bytes(b"never looked at")
    with pytest.raises(ValueError, match="convert with --unpickle"):
        pretrained_files.read(tmp_path / name)


def test_without_torch_a_pth_is_neither_read_nor_written(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    file = tmp_path / "w.pth"
    with pytest.raises(ValueError, match="needs torch: pip install"):
        tensor_files.write_torch({}, file)
    assert not file.exists()
    file.write_bytes(b"never looked at")
    with pytest.raises(ValueError, match="needs torch: pip install"):
        pretrained_files.read(file, unpickle=True)


def test_a_classifier_of_transformers_is_read_without_its_last_layer(
    small, tensors, tmp_path
):
    folder = tmp_path / "x"
    huggingface.write(small, folder)
    theirs = huggingface.read_safetensors(folder / huggingface.WEIGHTS_FILE)
    assert {  # names in transformers.models.resnet.modeling_resnet
        "embedder.embedder.convolution.weight",
        "embedder.embedder.normalization.running_var",
        "encoder.stages.0.layers.0.layer.1.convolution.weight",
        "encoder.stages.3.layers.0.shortcut.normalization.bias",
    } <= theirs.keys()
    renamed = {f"resnet.{name}": tensor for name, tensor in theirs.items()}
    save_file(renamed | {"classifier.1.weight": ONE}, folder / huggingface.WEIGHTS_FILE)
    for name, tensor in torchvision.tensors_of(pretrained_files.read(folder)).items():
        np.testing.assert_array_equal(tensor, tensors[name])


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"resnet"', '"vit"', "must have model_type 'resnet'"),
        ('"model_type"', "", "is damaged"),
        ("false", "true", "downsample_in_first_stage=True must be False"),
        ('"relu"', '"gelu"', "hidden_act=gelu must be relu"),
        ('"depths"', '"heights"', "depths must be 4 integers, got None"),
        ('"embedding_size": 4', '"embedding_size": 8', "embedding_size=8 must be 4"),
    ],
)
def test_a_config_of_another_network_is_refused(
    before, after, message, small, tmp_path
):
    folder = tmp_path / "x"
    huggingface.write(small, folder)
    file = folder / huggingface.CONFIG_FILE
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))
    with pytest.raises(ValueError, match=message):
        pretrained_files.read(folder)
