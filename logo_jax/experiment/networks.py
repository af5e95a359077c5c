"""Networks of a config: encoder, predictor and regressor."""

import dataclasses
import functools
import importlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from logo_jax.experiment.config import EncoderConfig, LoGoConfig, lookup
from logo_jax.networks import heads, resnet
from logo_jax.networks.alexnet import SmallAlexNet
from logo_jax.networks.batch_norm import BatchNorm, LayerNorm
from logo_jax.networks.encoder import Encoder
from logo_jax.parallel.mesh import AXIS

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# Flax modules from images to features, with fields `norm` and `dtype`. If a module has
# any of the fields `width`, `stem`, `zero_init_residual` and `remat`, these get the
# values of the encoder group.
BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "resnet10": resnet.resnet10,
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "alexnet": SmallAlexNet,
}


def make_norm(batch_norm: str) -> resnet.Norm:
    """Returns a constructor of batch norms for a config's `batch_norm`.

    Raises:
        ValueError: if it is not global, per_device or split:N.
    """
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
    """Returns the number of image groups with their own statistics on each device.

    It is N for the setting split:N, and 1 for global and per_device.
    """
    kind, _, groups = batch_norm.partition(":")
    return int(groups) if kind == "split" else 1


def make_encoder(config: EncoderConfig, norm: resnet.Norm) -> Encoder:
    """Makes the backbone and the projection head.

    Args:
        config: the encoder group.
        norm: constructor of batch norms.

    Raises:
        ValueError: if the backbone, the head or the dtype is unknown.
    """
    dtype = lookup(DTYPES, config.dtype, "config.encoder.dtype")
    hidden, dim, layers = config.head_hidden, config.embedding_dim, config.head_layers
    makers: dict[str, Callable[[], nn.Module]] = {
        "moco": lambda: heads.moco_head(hidden, dim, dtype=dtype),
        "simsiam": lambda: heads.simsiam_head(layers, hidden, dim, norm, dtype),
        "byol": lambda: heads.byol_head(hidden, dim, norm, dtype),
    }
    head = lookup(makers, config.head, "config.encoder.head")()
    return Encoder(_backbone(config, norm, dtype), head)


def make_predictor(config: EncoderConfig, hidden: int, norm: resnet.Norm) -> nn.Module:
    """Makes the predictor of SimSiam and BYOL, with a hidden layer of this size."""
    dtype = lookup(DTYPES, config.dtype, "config.encoder.dtype")
    return heads.simsiam_predictor(hidden, config.embedding_dim, norm, dtype)


def make_regressor(config: LoGoConfig, norm: resnet.Norm) -> heads.Regressor:
    """Makes LoGo's regressor."""
    no_batch_norm = {"layer": LayerNorm, "none": None}
    return heads.Regressor(
        width=config.regressor_width,
        depth=config.regressor_depth,
        norm=no_batch_norm.get(config.regressor_norm, norm),
    )


def import_object(path: str, field: str) -> Any:
    """Imports the object at a path "package.module:name".

    Args:
        path: import path of the object.
        field: config field that has the path, to name in messages.

    Raises:
        ValueError: if there is no such object.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{field}={path!r} cannot be imported: {error}; use package.module:name"
        ) from error


def _backbone(config: EncoderConfig, norm: resnet.Norm, dtype: Any) -> nn.Module:
    name = config.backbone
    if ":" in name:
        make = import_object(name, "config.encoder.backbone")
    else:
        make = lookup(BACKBONES, name, "config.encoder.backbone")
    module: Any = make.func if isinstance(make, functools.partial) else make
    takes = {field.name for field in dataclasses.fields(module)}
    options = {
        field: getattr(config, field)
        for field in ("width", "stem", "zero_init_residual", "remat")
        if field in takes
    }
    return make(norm=norm, dtype=dtype, **options)
