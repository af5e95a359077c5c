"""ONNX files of ResNets and vision transformers, by PyTorch's exporter.

The backbone's weights are loaded into torchvision's network, which PyTorch exports.
Needs the extra `onnx`.
"""

import contextlib
import importlib
import io
import json
import logging
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from logo_jax.augment.color import AugmentSpec
from logo_jax.interop import torchvision, vit_names
from logo_jax.interop.backbone import Backbone, Classifier
from logo_jax.networks.resnet import Bottleneck, ResNet
from logo_jax.networks.vit import ViT

IMAGES = "images"  # name of the input
FEATURES, SCORES = "features", "scores"  # names of the output


def write(
    backbone: Backbone,
    side: int,
    channels: int,
    augment: AugmentSpec | None,
    classifier: Classifier | None,
    file: Path,
) -> None:
    """Writes the function from images to features as an ONNX file.

    Its input `images` is float32 [b, c, h, w], normalized, with any b; its output
    `features` is float32 [b, f]. A ResNet takes any h and w, and a vision transformer
    only `side`. The mean and standard deviation of the normalization,
    if they are known, are in the metadata of the file.

    Args:
        backbone: a ResNet or a vision transformer.
        side: side of images in pixels.
        channels: number of channels of images.
        augment: has the normalization; None if it is not known.
        classifier: classifier of the features, whose scores are the output `scores` in
            place of `features`; the metadata has its names as JSON. None: none.
        file: path of the file.

    Raises:
        ValueError: if the backbone is another network, or a package is missing.
    """
    _require_exportable(backbone)
    torch = _imported("torch")
    _imported("onnxscript")
    model = torch_copy(backbone, side, channels, classifier)
    images = torch.zeros(2, channels, side, side)
    with _silence():
        program = torch.onnx.export(
            model,
            (images,),
            dynamo=True,
            input_names=[IMAGES],
            output_names=[SCORES if classifier else FEATURES],
            dynamic_shapes=(_free(torch, backbone),),
            verbose=False,
        )
    if augment is not None:
        facts = {"mean": augment.mean, "std": augment.std}
        program.model.metadata_props.update(
            {name: ",".join(map(str, values)) for name, values in facts.items()}
        )
    if classifier is not None:
        program.model.metadata_props["class_names"] = json.dumps(classifier.names)
    program.save(str(file), external_data=False)


def features(file: Path, images: Any) -> np.ndarray:
    """Runs an ONNX file on normalized images [b, h, w, c]; returns the output."""
    session = _imported("onnxruntime").InferenceSession(
        str(file), providers=["CPUExecutionProvider"]
    )
    given = np.ascontiguousarray(np.asarray(images, np.float32).transpose(0, 3, 1, 2))
    return session.run(None, {IMAGES: given})[0]


def torch_copy(
    backbone: Backbone, side: int, channels: int, classifier: Classifier | None
) -> Any:
    """Returns torchvision's network with a backbone's weights, in evaluation mode."""
    torch = _imported("torch")
    if vit := vit_names.vit_of(backbone.module):
        tensors = torchvision_vit_tensors(vit_names.to_timm(backbone, side))
        model = _vit(vit, side, channels)
    else:
        tensors = torchvision.tensors_of(backbone)
        model = _resnet(backbone.module, channels)
    if classifier is not None:
        name = "fc" if isinstance(backbone.module, ResNet) else "heads"
        setattr(model, name, torch.nn.Linear(*classifier.kernel.shape))
        tensors |= classifier.tensors(name)
    model.load_state_dict({name: torch.tensor(x) for name, x in tensors.items()})
    return model.eval()


def torchvision_vit_tensors(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames a vision transformer's tensors from timm's names to torchvision's."""
    rules = (
        (r"^cls_token$", "class_token"),
        (r"^pos_embed$", "encoder.pos_embedding"),
        (r"^patch_embed\.proj\.", "conv_proj."),
        (r"^norm\.", "encoder.ln."),
        (r"^blocks\.(\d+)\.", r"encoder.layers.encoder_layer_\1."),
        (r"\.norm(\d)\.", r".ln_\1."),
        (r"\.attn\.qkv\.", ".self_attention.in_proj_"),
        (r"\.attn\.proj\.", ".self_attention.out_proj."),
        (r"\.mlp\.fc1\.", ".mlp.0."),
        (r"\.mlp\.fc2\.", ".mlp.3."),
    )
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, text in rules:
            name = re.sub(pattern, text, name)
        renamed[name] = tensor
    return renamed


def _vit(vit: ViT, side: int, channels: int) -> Any:
    torch = _imported("torch")
    networks = _imported("torchvision.models.vision_transformer")
    width = vit.heads * vit.width
    model = networks.VisionTransformer(
        side, vit.patch, vit.depth, vit.heads, width, 4 * width
    )
    model.heads = torch.nn.Identity()
    model.conv_proj = torch.nn.Conv2d(channels, width, vit.patch, vit.patch)
    return model


def _resnet(module: ResNet, channels: int) -> Any:
    nn = _imported("torch").nn
    networks = _imported("torchvision.models.resnet")
    block = networks.Bottleneck if module.block is Bottleneck else networks.BasicBlock
    model = networks.ResNet(block, list(module.stage_sizes))
    size, stride = (3, 1) if module.stem == "cifar" else (7, 2)
    model.conv1 = nn.Conv2d(channels, module.width, size, stride, size // 2, bias=False)
    model.bn1 = nn.BatchNorm2d(module.width)
    if module.stem == "cifar":
        model.maxpool = nn.Identity()
    model.inplanes = module.width  # torchvision's stages have widths of 64 and above
    for i, blocks in enumerate(module.stage_sizes):
        stride = 2 if i else 1
        stage = model._make_layer(block, module.width * 2**i, blocks, stride)
        setattr(model, f"layer{i + 1}", stage)
    model.fc = nn.Identity()
    return model


def _free(torch: Any, backbone: Backbone) -> dict[int, Any]:
    """Axes of the images whose length is free: of a ViT, the positions set the side."""
    axes = (0,) if vit_names.vit_of(backbone.module) else (0, 2, 3)
    return dict.fromkeys(axes, torch.export.Dim.DYNAMIC)


def _require_exportable(backbone: Backbone) -> None:
    if not (isinstance(backbone.module, ResNet) or vit_names.vit_of(backbone.module)):
        raise ValueError(
            f"{backbone.name} is neither a ResNet nor a vision transformer of this "
            "library, which --to=onnx needs; use --to=stablehlo"
        )


@contextlib.contextmanager
def _silence():
    """Leaves out the exporter's messages about its own code."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"--to=onnx needs {name.partition('.')[0]}: pip install 'logo_jax[onnx]', "
            "or use --to=stablehlo"
        ) from error
