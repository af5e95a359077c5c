"""State dicts in torchvision's format have the same features as in torchvision."""

import math

import jax
import numpy as np
import pytest

from logo_jax.experiment import networks
from logo_jax.interop import huggingface, torchvision
from logo_jax.interop.backbone import Backbone
from logo_jax.networks import alexnet
from tests.golden import test_backbones as golden

NETWORKS = ("resnet18_cifar", "resnet18", "resnet50")


@pytest.fixture(name="backbone", scope="module", params=NETWORKS)
def fixture_backbone(request):
    """(name in the golden file, ResNet with the deterministic test weights)."""
    return request.param, golden_backbone(request.param)


def golden_backbone(name):
    module, images, _ = golden.RESNETS[name]
    shapes = golden.shapes_of(module, golden.load("resnet_features.npz")[images])
    layers = golden.resnet_layers(shapes["params"])
    return Backbone(module, golden.formula_weights(layers, shapes))


@pytest.mark.slow
def test_a_converted_resnet_gives_torchvisions_features(backbone):
    name, resnet = backbone
    file = golden.load("resnet_features.npz")
    images = file[golden.RESNETS[name][1]]
    features = torchvision.features(torchvision.tensors_of(resnet), images)
    golden.assert_close(features, file[f"{name}/eval"])


def test_the_network_is_inferred_from_its_tensors_which_round_trip_bit_for_bit(
    backbone,
):
    _, resnet = backbone
    tensors = torchvision.tensors_of(resnet)
    again = torchvision.backbone_of(tensors, "x")
    assert again.module == resnet.module
    for name, tensor in torchvision.tensors_of(again).items():
        np.testing.assert_array_equal(tensor, tensors[name])


def test_tensors_round_trip_through_transformers_names(backbone, tmp_path):
    name, resnet = backbone
    folder = tmp_path / "folder"
    if name.endswith("cifar"):
        with pytest.raises(ValueError, match="7x7 convolution"):
            huggingface.write(resnet, folder)
        assert not folder.exists()
        return
    huggingface.write(resnet, folder)
    again = huggingface.read(folder)
    for name, tensor in torchvision.tensors_of(resnet).items():
        np.testing.assert_array_equal(again.pop(name), tensor)
    assert not again


def test_a_network_that_torchvision_does_not_have_is_an_error():
    with pytest.raises(ValueError, match="SmallAlexNet is not a ResNet"):
        torchvision.tensors_of(Backbone(alexnet.SmallAlexNet(), {}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"), [("resnet101", 42_500_160), ("resnet152", 58_143_808)]
)
def test_the_deepest_resnets_have_torchvisions_tensors(name, count):
    """Numbers of parameters: torchvision's documentation, less the classifier's.

    44,549,160 and 60,192,808, of which fc has 2,049,000.
    """
    module = networks.BACKBONES[name]()
    shapes = golden.shapes_of(module, np.zeros((1, 32, 32, 3), np.float32))
    sizes = [math.prod(x.shape) for x in jax.tree.leaves(shapes["params"])]
    assert sum(sizes) == count
    zeros = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), shapes)
    tensors = torchvision.tensors_of(Backbone(module, zeros))
    assert torchvision.backbone_of(tensors, "x").module == module
    names = dict(huggingface.layers(huggingface.config_of(module)["depths"])).values()
    assert {key.rpartition(".")[0] for key in tensors} <= set(names)
