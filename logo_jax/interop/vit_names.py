"""Conversion of vision transformers between timm's parameter names and layout and ours.

DINO's and MoCo v3's vision transformers have these names, too.

Source: timm.models.vision_transformer (names); facebookresearch/moco-v3@vits.py (12
    heads in its small model).
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from logo_jax.interop.backbone import Backbone
from logo_jax.networks.folded_views import FoldedViews
from logo_jax.networks.vit import GRID, PATCHES, ViT, positions

Tensors = Mapping[str, np.ndarray]

STEM = "patch_embed.proj.weight"
WIDTH = 64  # channels of a head in timm, DINO and all models of MoCo v3 but the small
MOCO_V3_SMALL, MOCO_V3_HEADS = 384, 12  # channels and heads of the small one
_QKV = ("query", "key", "value")


def vit_of(module: nn.Module) -> ViT | None:
    """Returns the vision transformer that a backbone is; None if it is another."""
    inner = module.module if isinstance(module, FoldedViews) else module
    return inner if isinstance(inner, ViT) else None


def side_of(vit: ViT) -> int:
    """Returns the side in pixels of the images whose positions a file has."""
    return (vit.grid or GRID) * vit.patch


def to_timm(backbone: Backbone, side: int) -> dict[str, np.ndarray]:
    """Converts a vision transformer to timm's names and layout, in float32.

    Args:
        backbone: a vision transformer.
        side: side of its images in pixels, for which the positions are computed.
    """
    vit = vit_of(backbone.module)
    assert vit is not None
    params = jax.tree.map(lambda x: np.asarray(x, np.float32), backbone.variables)
    params = params["params"]
    channels, patch = vit.heads * vit.width, vit.patch
    kernel = params[PATCHES]["kernel"].reshape(patch, patch, -1, channels)
    rows = side // patch
    of_patches = params["positions"] if vit.grid else positions(rows, rows, channels)
    places = np.concatenate([np.zeros((1, channels)), np.asarray(of_patches)])
    tensors = {
        "cls_token": params["token"],
        "pos_embed": places[None].astype(np.float32),
        STEM: kernel.transpose(3, 2, 0, 1),
        "patch_embed.proj.bias": params[PATCHES]["bias"],
    }
    for i in range(vit.depth):
        for name, tensor in _their_block(params[f"block{i}"], channels):
            tensors[f"blocks.{i}.{name}"] = tensor
    tensors |= {f"norm.{x}": y for x, y in _their_norm(params["norm"]).items()}
    return {name: np.ascontiguousarray(x) for name, x in tensors.items()}


def _their_block(block: Any, channels: int) -> Iterator[tuple[str, np.ndarray]]:
    attention = block["attention"]
    kernels = [attention[x]["kernel"].reshape(channels, channels) for x in _QKV]
    biases = [attention[x]["bias"].reshape(channels) for x in _QKV]
    yield "attn.qkv.weight", np.concatenate(kernels, axis=1).T
    yield "attn.qkv.bias", np.concatenate(biases)
    yield "attn.proj.weight", attention["out"]["kernel"].reshape(channels, channels).T
    yield "attn.proj.bias", attention["out"]["bias"]
    for name in ("norm1", "norm2"):
        yield from ((f"{name}.{x}", y) for x, y in _their_norm(block[name]).items())
    for name in ("fc1", "fc2"):
        yield f"mlp.{name}.weight", block[name]["kernel"].T
        yield f"mlp.{name}.bias", block[name]["bias"]


def _their_norm(norm: Any) -> dict[str, np.ndarray]:
    return {"weight": norm["scale"], "bias": norm["bias"]}


def backbone_of(
    tensors: Tensors, origin: str | Path, heads: int | None = None
) -> Backbone:
    """Builds the vision transformer that tensors with timm's names belong to.

    Positions that are those of MoCo v3 are computed for images of any size; others are
    learned, and need images of the size that they were learned for.

    Args:
        tensors: tensors by name, without a classifier.
        origin: file of the tensors, for error messages.
        heads: number of attention heads, which no tensor shows. If None, a head has 64
            channels; but 32 in a model of 384 channels with the positions of MoCo v3,
            since MoCo v3's small model has 12 heads.

    Raises:
        ValueError: if the tensors are not those of a vision transformer of this
            library; the message names a tensor.
    """
    shapes = {name: x.shape for name, x in tensors.items()}
    depth = 1 + max(
        (int(x[1]) for x in (re.match(r"blocks\.(\d+)\.", y) for y in tensors) if x),
        default=0,
    )
    if len(shapes.get(STEM, ())) != 4 or shapes[STEM][2] != shapes[STEM][3]:
        raise ValueError(
            f"{origin}: {STEM} must have shape (channels, 3, patch, patch)"
        )
    channels, inputs, patch, _ = shapes[STEM]
    grid = math.isqrt(max(0, shapes.get("pos_embed", (1, 2))[1] - 1))
    wanted = tensor_shapes(depth, channels, inputs, patch, grid)
    _require_same(shapes, wanted, origin)
    places = tensors["pos_embed"][0].astype(np.float32)
    is_fixed = _are_fixed(places, grid, channels)
    is_small = is_fixed and channels == MOCO_V3_SMALL
    count = heads or (MOCO_V3_HEADS if is_small else max(1, channels // WIDTH))
    if channels % count:
        raise ValueError(
            f"{origin}: cls_token has {channels} channels, which must be a multiple of "
            f"the {count} heads"
        )
    params = _our_params(tensors, depth, count)
    if not is_fixed:
        params["token"] = params["token"] + places[0]
        params["positions"] = places[1:]
    module = ViT(
        depth=depth,
        heads=count,
        width=channels // count,
        patch=patch,
        grid=0 if is_fixed else grid,
    )
    return Backbone(FoldedViews(module), {"params": params, "batch_stats": {}})


def _are_fixed(places: np.ndarray, grid: int, channels: int) -> bool:
    """Returns whether positions are those that `ViT` computes."""
    if channels % 4 or places[0].any():
        return False
    fixed = np.asarray(positions(grid, grid, channels))
    return bool(np.abs(places[1:] - fixed).max() < 1e-4)


def tensor_shapes(
    depth: int, channels: int, inputs: int, patch: int, grid: int
) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all tensors of timm's vision transformer, by name."""
    c = channels
    found: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, c),
        "pos_embed": (1, 1 + grid**2, c),
        STEM: (c, inputs, patch, patch),
        "patch_embed.proj.bias": (c,),
        "norm.weight": (c,),
        "norm.bias": (c,),
    }
    of_block = {
        "attn.qkv": (3 * c, c),
        "attn.proj": (c, c),
        "mlp.fc1": (4 * c, c),
        "mlp.fc2": (c, 4 * c),
        "norm1": (c,),
        "norm2": (c,),
    }
    for i in range(depth):
        for name, shape in of_block.items():
            found[f"blocks.{i}.{name}.weight"] = shape
            found[f"blocks.{i}.{name}.bias"] = shape[:1]
    return found


def _require_same(shapes: Any, wanted: Any, origin: str | Path) -> None:
    for name in sorted(shapes | wanted):
        if shapes.get(name) != wanted.get(name):
            texts = [str(x.get(name, "no such tensor")) for x in (shapes, wanted)]
            raise ValueError(
                f"{origin} is not a vision transformer that this library has: {name} "
                f"has shape {texts[0]}, but must have {texts[1]}"
            )


def _our_params(tensors: Tensors, depth: int, heads: int) -> dict[str, Any]:
    given = {name: x.astype(np.float32) for name, x in tensors.items()}
    kernel = given[STEM].transpose(2, 3, 1, 0)
    params: dict[str, Any] = {
        "token": given["cls_token"],
        PATCHES: {
            "kernel": kernel.reshape(-1, kernel.shape[-1]),
            "bias": given["patch_embed.proj.bias"],
        },
        "norm": _our_norm(given, "norm"),
    }
    for i in range(depth):
        params[f"block{i}"] = _our_block(given, f"blocks.{i}", heads)
    return params


def _our_block(given: Tensors, name: str, heads: int) -> dict[str, Any]:
    weight, bias = given[f"{name}.attn.qkv.weight"], given[f"{name}.attn.qkv.bias"]
    channels = weight.shape[1]
    each = (heads, channels // heads)
    attention: dict[str, Any] = {
        kind: {"kernel": w.T.reshape(channels, *each), "bias": b.reshape(each)}
        for kind, w, b in zip(_QKV, np.split(weight, 3), np.split(bias, 3), strict=True)
    }
    out = _our_linear(given, f"{name}.attn.proj")
    out["kernel"] = out["kernel"].reshape(*each, channels)
    return {
        "attention": attention | {"out": out},
        "norm1": _our_norm(given, f"{name}.norm1"),
        "norm2": _our_norm(given, f"{name}.norm2"),
        "fc1": _our_linear(given, f"{name}.mlp.fc1"),
        "fc2": _our_linear(given, f"{name}.mlp.fc2"),
    }


def _our_linear(given: Tensors, name: str) -> dict[str, np.ndarray]:
    return {"kernel": given[f"{name}.weight"].T, "bias": given[f"{name}.bias"]}


def _our_norm(given: Tensors, name: str) -> dict[str, np.ndarray]:
    return {"scale": given[f"{name}.weight"], "bias": given[f"{name}.bias"]}
