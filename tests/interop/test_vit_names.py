"""Vision transformers with timm's names give the features of torchvision's."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from logo_jax import convert
from logo_jax.interop import onnx, pretrained_files, tensor_files, timm, vit_names
from logo_jax.networks.vit import positions
from tests.golden import make_vit, test_vit

GRID = make_vit.SIDE // make_vit.PATCH
RULES = {
    "class_token": "cls_token",
    "conv_proj": "patch_embed.proj",
    "encoder.ln": "norm",
    "encoder.layers.encoder_layer_": "blocks.",
    "ln_": "norm",
    "self_attention.in_proj_": "attn.qkv.",
    "self_attention.out_proj": "attn.proj",
    "mlp.0": "mlp.fc1",
    "mlp.3": "mlp.fc2",
}


@pytest.fixture(name="tensors", scope="module")
def fixture_tensors():
    """The golden network by timm's names, with the positions of MoCo v3."""
    fixed = np.asarray(positions(GRID, GRID, make_vit.CHANNELS))
    found = {"pos_embed": np.concatenate([np.zeros_like(fixed[:1]), fixed])[None]}
    for name, tensor in make_vit.weights().items():
        for theirs, timms in RULES.items():
            name = name.replace(theirs, timms)
        found[name] = tensor
    return found


def saved(tensors, file, prefix=""):
    named = {f"{prefix}{name}": x for name, x in tensors.items()}
    tensor_files.write_safetensors(named, file, heads=str(make_vit.HEADS))
    return file


@pytest.mark.parametrize(
    ("prefix", "others"),
    [
        ("", {"head.weight": np.ones(2)}),  # timm, DINO
        ("module.base_encoder.", {"module.momentum_encoder.cls_token": np.ones(2)}),
        ("module.backbone.", {"module.head.mlp.0.weight": np.ones(2)}),  # a student
    ],
)
def test_a_file_with_timms_names_gives_torchvisions_features(
    prefix, others, tensors, tmp_path
):
    named = {f"{prefix}{name}": x for name, x in tensors.items()}
    read = pretrained_files.read(saved(named | others, tmp_path / "x.safetensors"))
    assert read.prefix == prefix
    assert read.module.module.grid == 0
    test_vit.assert_close(read.features(make_vit.images()), test_vit.load()["features"])


def test_learned_positions_are_read_also_that_of_the_class_token(tensors, tmp_path):
    moved = {name: x.copy() for name, x in tensors.items()}
    moved["pos_embed"][0, 0] += 2
    moved["cls_token"] -= 2
    moved["pos_embed"][0, 1:] += 3
    moved["patch_embed.proj.bias"] -= 3
    read = pretrained_files.read(saved(moved, tmp_path / "x.safetensors"))
    assert read.module.module.grid == GRID
    features = read.features(make_vit.images())
    # sums of larger numbers: a position 3 away costs two bits of float32
    np.testing.assert_allclose(features, test_vit.load()["features"], atol=2e-4)
    with pytest.raises(ValueError, match="learned for 28 px; crop"):
        read.features(np.zeros((1, 14, 14, 3), np.float32))


def test_a_vision_transformer_converted_to_timm_and_back_is_bit_equal(
    tensors, tmp_path
):
    source, out = saved(tensors, tmp_path / "x.safetensors"), tmp_path / "y.safetensors"
    convert.main([str(source), "--to=timm", f"--out={out}"])
    again = load_file(out)
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(again[name], tensor, err_msg=name)
    backbone = pretrained_files.read(out)
    with pytest.raises(ValueError, match=r"y.pth must end with .safetensors"):
        timm.write(backbone, make_vit.SIDE, None, tmp_path / "y.pth")
    names = onnx.torchvision_vit_tensors(again)
    shapes = {name: x.shape for name, x in names.items()}
    assert shapes.pop("encoder.pos_embedding") == tensors["pos_embed"].shape
    assert shapes == make_vit.shapes()


@pytest.mark.parametrize(("shift", "heads"), [(0, 12), (1, 6)])
def test_heads_have_64_channels_but_for_the_small_model_of_moco_v3(shift, heads):
    shapes = vit_names.tensor_shapes(1, 384, 3, 2, 4)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    tensors["pos_embed"][0, 1:] = positions(4, 4, 384) + shift
    assert vit_names.backbone_of(tensors, "x").module.module.heads == heads


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blocks.1.mlp.fc2.bias", "blocks.1.mlp.fc2.bias has shape no such tensor"),
        (
            "blocks.0.ls1.gamma",
            r"blocks.0.ls1.gamma has shape \(2,\), but must have no",
        ),
        ("norm.weight", r"norm.weight has shape \(2,\), but must have \(24,\)"),
    ],
)
def test_another_vision_transformer_is_refused(name, message, tensors, tmp_path):
    changed = dict(tensors)
    if "fc2" in name:
        del changed[name]
    else:
        changed[name] = np.ones(2, np.float32)
    with pytest.raises(ValueError, match=message):
        pretrained_files.read(saved(changed, tmp_path / "x.safetensors"))
