"""Networks that a config describes."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from logo_jax.experiment.reader import Reader
from logo_jax.networks import heads, resnet
from logo_jax.networks.alexnet import SmallAlexNet
from logo_jax.networks.batch_norm import BatchNorm, LayerNorm
from logo_jax.networks.encoder import Encoder
from logo_jax.parallel.mesh import AXIS

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
RESNETS = {
    "resnet10": resnet.resnet10,
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
}
STEMS = ("cifar", "imagenet")
# how the regressor normalises: its layers' norm, and what batches a norm takes together
REGRESSOR_NORMS = {
    "separate": ("batch", "separate"),
    "joint": ("batch", "joint"),
    "eval": ("batch", "eval"),
    "layer": ("layer", "separate"),
    "none": ("none", "separate"),
}


def make_norm(batch_norm: str) -> resnet.Norm:
    """The constructor of batch norms that a config's `batch_norm` names."""
    match batch_norm.split(":"):
        case ["global"]:
            return functools.partial(BatchNorm, axis_name=AXIS)
        case ["per_device"]:
            return BatchNorm
        case ["split", groups] if groups.isdecimal() and int(groups) > 0:
            return functools.partial(BatchNorm, splits=int(groups))
    raise ValueError(
        f"config.batch_norm={batch_norm!r} must be global, per_device or split:N; "
        "use e.g. split:8"
    )


def norm_groups(batch_norm: str) -> int:
    """Groups of images with statistics of their own on each device."""
    kind, _, groups = batch_norm.partition(":")
    return int(groups) if kind == "split" else 1


def make_encoder(read: Reader, norm: resnet.Norm) -> Encoder:
    """Backbone and projection head.

    Args:
        read: the config's group `encoder`.
        norm: constructor of batch norms.
    """
    dtype = read.choice("dtype", DTYPES)
    sizes = read.head_hidden, read.embedding_dim
    layers = read.head_layers
    makers = {
        "moco": lambda: heads.moco_head(*sizes, dtype=dtype),
        "simsiam": lambda: heads.simsiam_head(layers, *sizes, norm=norm, dtype=dtype),
        "byol": lambda: heads.byol_head(*sizes, norm=norm, dtype=dtype),
    }
    head = read.choice("head", makers)()
    return Encoder(_backbone(read, norm, dtype), head)


def make_predictor(read: Reader, hidden: int, norm: resnet.Norm) -> nn.Module:
    """SimSiam's and BYOL's predictor; `read` is the config's group `encoder`."""
    dtype = read.choice("dtype", DTYPES)
    return heads.simsiam_predictor(hidden, read.embedding_dim, norm=norm, dtype=dtype)


def make_regressor(read: Reader, norm: resnet.Norm) -> heads.Regressor:
    """LoGo's judge; `read` is the config's group `logo`."""
    kind, _ = read.choice("regressor_norm", REGRESSOR_NORMS)
    return heads.Regressor(
        width=read.regressor_width,
        depth=read.regressor_depth,
        norm={"batch": norm, "layer": LayerNorm, "none": None}[kind],
    )


def _backbone(read: Reader, norm: resnet.Norm, dtype: Any) -> nn.Module:
    make = read.choice("backbone", RESNETS | {"alexnet": None})
    stem = read.one_of("stem", STEMS)
    options = {
        "width": read.width,
        "stem": stem,
        "zero_init_residual": read.zero_init_residual,
        "remat": read.remat,
    }
    if make is None:
        return SmallAlexNet(norm=norm, dtype=dtype)
    return make(norm=norm, dtype=dtype, **options)
