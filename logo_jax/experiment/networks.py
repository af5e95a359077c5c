"""Networks of a config: encoder, predictor and regressor."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from etils import epy
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from logo_jax.configs import import_object
from logo_jax.experiment.config import EncoderConfig, LoGoConfig, lookup
from logo_jax.networks import heads, resnet, vit
from logo_jax.networks.alexnet import SmallAlexNet
from logo_jax.networks.batch_norm import BatchNorm, LayerNorm
from logo_jax.networks.encoder import Encoder
from logo_jax.networks.folded_views import FoldedViews
from logo_jax.parallel.mesh import AXIS

with epy.lazy_imports():  # few backbones are NNX modules
    from flax import nnx

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# Functions that return a backbone; see `make_backbone`.
BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "resnet10": resnet.resnet10,
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "resnet101": resnet.resnet101,
    "resnet152": resnet.resnet152,
    "alexnet": SmallAlexNet,
    "vit_mini": vit.vit_mini,
    "vit_tiny": vit.vit_tiny,
    "vit_small": vit.vit_small,
}
# Fields of the encoder group that a backbone gets if it takes arguments of these names.
FILLED = ("width", "stem", "zero_init_residual", "remat", "patch", "frozen_patches")


def make_norm(batch_norm: str, parts: int = 1) -> resnet.Norm:
    """Returns a constructor of batch norms for a config's `batch_norm`.

    Args:
        batch_norm: global, per_device or split:N.
        parts: number of equal parts of a device's images; the input of the batch norms
            is one of them. Above 1 it needs split:N, and must divide N.

    Raises:
        ValueError: if batch_norm has another value, or parts do not divide its groups.
    """
    match batch_norm.split(":"):
        case ["global"]:
            return functools.partial(BatchNorm, axis_name=AXIS)
        case ["per_device"]:
            return BatchNorm
        case ["split", groups] if groups.isdecimal() and int(groups) > 0:
            if int(groups) % parts:
                raise ValueError(
                    f"config.train.accumulate={parts} must divide the {groups} groups "
                    f"of config.batch_norm={batch_norm}; use e.g. split:{parts}"
                )
            return functools.partial(BatchNorm, splits=int(groups) // parts)
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


def make_encoder(config: EncoderConfig, norm: resnet.Norm, parts: int = 1) -> Encoder:
    """Makes the backbone and the projection head.

    Args:
        config: the encoder group.
        norm: constructor of batch norms.
        parts: number of parts of a device's images that are encoded one after another.

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
    make = find_backbone(config.backbone)
    return Encoder(make_backbone(make, config, norm), head, parts)


def find_backbone(name: str) -> Callable[..., Any]:
    """Returns what makes the backbone of this name: a row of `BACKBONES`, or an import.

    Raises:
        ValueError: if there is none of this name, or it cannot be called.
    """
    if ":" not in name:
        return lookup(BACKBONES, name, "config.encoder.backbone")
    make = import_object(name, "config.encoder.backbone")
    if not callable(make) or isinstance(make, nn.Module | nnx.Module):
        raise ValueError(
            f"config.encoder.backbone={name!r} is {type(make).__name__!r}, but must be "
            "the class of a Flax module, or a function that returns one"
        )
    return make


def make_backbone(
    make: Callable[..., Any], config: EncoderConfig, norm: resnet.Norm
) -> nn.Module:
    """Makes a backbone, whose input may have a view axis: [v, b, h, w, c].

    Args:
        make: class of a Linen module, or a function that returns a Linen module; or, if
            it takes an argument `rngs`, class of an NNX module, or a function that
            returns one. It is called with those of the arguments `norm`, `dtype` and
            `FILLED` that it takes. If it takes `norm`, its module knows the view axis;
            for other modules the axis is folded into the batch.
        config: the encoder group.
        norm: constructor of batch norms.

    Raises:
        ValueError: if `make` raises an error or returns something else.
    """
    takes = _arguments(make)
    offered = {name: getattr(config, name) for name in FILLED}
    dtype = lookup(DTYPES, config.dtype, "config.encoder.dtype")
    offered |= {"norm": norm, "dtype": dtype}
    options = {name: value for name, value in offered.items() if name in takes}
    if "rngs" in takes:
        return FoldedViews(nnx.bridge.ToLinen(make, kwargs=options, metadata_fn=None))
    try:
        module = make(**options)
    except Exception as error:  # a backbone of the user's may raise any error
        raise ValueError(
            f"config.encoder.backbone={config.backbone!r} raises {_in_one_line(error)}"
        ) from error
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"config.encoder.backbone={config.backbone!r} returns "
            f"{type(module).__name__!r}, but must return a Linen module; a function "
            "that returns an NNX module must take an argument rngs"
        )
    return module if "norm" in takes else FoldedViews(module)


def _arguments(make: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Returns the arguments of a class or function by name."""
    if isinstance(make, functools.partial):
        make = make.func
    # the signature of an NNX class does not show those of its `__init__`
    return inspect.signature(
        make.__init__ if inspect.isclass(make) else make
    ).parameters


def check_backbone(
    backbone: nn.Module,
    config: EncoderConfig,
    num_images: int,
    sizes: Sequence[tuple[int, int, int]],
) -> None:
    """Raises an error unless the backbone maps images of several sizes to features.

    A backbone that is given by import path is traced in training and in evaluation
    mode; nothing is computed.

    Args:
        backbone: the backbone.
        config: the encoder group.
        num_images: number of images on a device.
        sizes: heights, widths and channels of images. Parameters are initialized for
            the first.

    Raises:
        ValueError: if the backbone raises an error, asks for random keys, returns no
            features [b, f], or has variables other than "params" and "batch_stats".
    """
    if config.backbone.startswith("vit_"):
        for height, width, _ in sizes:
            vit.require_whole_patches(height, width, config.patch)
    if ":" in config.backbone:
        trace_backbone(backbone, config.backbone, num_images, sizes)


def trace_backbone(
    backbone: nn.Module,
    name: str,
    num_images: int,
    sizes: Sequence[tuple[int, int, int]],
) -> None:
    """Traces a backbone that is given by import path; see `check_backbone`."""
    field = f"config.encoder.backbone={name!r}"

    collections: set[str] = set()

    def run(batches: list[jax.Array]) -> list[Any]:
        variables = backbone.init(jax.random.key(0), batches[0], train=False)
        collections.update(variables)
        evaluated = [backbone.apply(variables, x, train=False) for x in batches]
        mutable = ["batch_stats", "intermediates"]
        for x in batches:
            backbone.apply(variables, x[None], train=True, mutable=mutable)
        return evaluated

    shapes = [(num_images, *size) for size in sizes]
    batches = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    one_device = AbstractMesh((1,), (AXIS,), axis_types=(AxisType.Auto,))
    rows = P(AXIS)
    try:
        evaluated = jax.eval_shape(
            jax.shard_map(run, mesh=one_device, in_specs=rows, out_specs=rows), batches
        )
    except Exception as error:  # a backbone of the user's may raise any error
        raise ValueError(
            f"{field} cannot encode images of {_text(sizes)} px: {_in_one_line(error)}"
            f"{_remedy(error)}"
        ) from error
    if others := sorted(collections - {"params", "batch_stats"}):
        raise ValueError(
            f"{field} has variables in {', '.join(others)}, which are neither trained "
            "nor saved; keep them in batch_stats, or leave them out"
        )
    width = evaluated[0].shape[-1:]
    for shape, features in zip(shapes, evaluated, strict=True):
        if features.shape != (num_images, *width):
            raise ValueError(
                f"{field} must map images [b, h, w, c] to features [b, f] with one f, "
                f"but maps {list(shape)} to {list(features.shape)}; e.g. take the "
                "mean over pixels"
            )


def _text(sizes: Sequence[tuple[int, int, int]]) -> str:
    return ", ".join(f"{height}x{width}" for height, width, _ in sizes)


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _remedy(error: Exception) -> str:
    """Returns a remedy if a module asks for a random key other than its parameters'."""
    text = str(error)
    if "needs PRNG" not in text and "RngStream" not in text:
        return ""
    return "; leave out dropout and stochastic depth: a backbone gets no random keys"


def make_predictor(
    config: EncoderConfig, hidden: int, norm: resnet.Norm, parts: int = 1
) -> nn.Module:
    """Makes the predictor of SimSiam and BYOL, with a hidden layer of this size.

    It predicts for parts of a device's images, one after another.
    """
    dtype = lookup(DTYPES, config.dtype, "config.encoder.dtype")
    return heads.simsiam_predictor(hidden, config.embedding_dim, norm, dtype, parts)


def make_regressor(config: LoGoConfig, norm: resnet.Norm) -> heads.Regressor:
    """Makes LoGo's regressor."""
    no_batch_norm = {"layer": LayerNorm, "none": None}
    return heads.Regressor(
        width=config.regressor_width,
        depth=config.regressor_depth,
        norm=no_batch_norm.get(config.regressor_norm, norm),
    )
