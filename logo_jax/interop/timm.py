"""State dicts that timm's ResNets and vision transformers load with strict=True.

Source: timm.models.resnet and timm.models.vision_transformer, for names and shapes.
"""

from pathlib import Path

from logo_jax.interop import tensor_files, torchvision, vit_names
from logo_jax.interop.backbone import Backbone, Classifier

WIDTH = 64  # channels of the first stage of timm's ResNets


def write(
    backbone: Backbone, side: int, classifier: Classifier | None, file: Path
) -> None:
    """Writes the tensors of a model of timm, with `num_classes=0` if it has none.

    Args:
        backbone: a ResNet of the usual width with the ImageNet stem, or a vision
            transformer.
        side: side of the images in pixels, which is `img_size` of a vision transformer.
        classifier: classifier of the features; None: none.
        file: a safetensors file, or the PyTorch file of a ResNet. That of a vision
            transformer has the number of heads in its metadata.

    Raises:
        ValueError: if timm has no such model, or torch is needed and not installed.
    """
    is_torch = file.name.endswith(tensor_files.TORCH_SUFFIXES)
    if vit := vit_names.vit_of(backbone.module):
        if is_torch:
            raise ValueError(
                f"{file.name} must end with .safetensors for a vision transformer, "
                "because the file states the number of heads"
            )
        head = classifier.tensors("head") if classifier else {}
        tensors = vit_names.to_timm(backbone, side) | head
        tensor_files.write_safetensors(tensors, file, heads=str(vit.heads))
        return
    tensors = torchvision.tensors_of(backbone)
    tensors |= classifier.tensors("fc") if classifier else {}
    stem, width = backbone.module.stem, backbone.module.width
    if stem != "imagenet" or width != WIDTH:
        raise ValueError(
            f"timm's ResNets have the stem 'imagenet' and width {WIDTH}, but this one "
            f"has the stem {stem!r} and width {width}; use --to=torchvision or "
            "--to=onnx"
        )
    if is_torch:
        tensor_files.write_torch(tensors, file)
    else:
        tensor_files.write_safetensors(tensors, file)
