"""The folder of a trained classifier: its network, weights, and how images are read.

classifier.json        encoder fields, normalization, crop, decoding, class names
weights.safetensors    params/backbone/..., batch_stats/backbone/..., params/linear/...
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util
from safetensors.numpy import load

from logo_jax.augment.color import AugmentSpec
from logo_jax.configs import base
from logo_jax.data.sources.base import Decoding
from logo_jax.experiment import networks
from logo_jax.experiment.config import Config, EncoderConfig, parse, parse_group
from logo_jax.interop import tensor_files
from logo_jax.training import atomic
from logo_jax.training.workdir import as_tuples

JSON_FILE = "classifier.json"
WEIGHTS_FILE = "weights.safetensors"
VERSION = 1
NORMALIZATION = ("mean", "std", "value_range")
# fields about the weights from which a run has started, which the folder does not need
_OF_START = ("weights", "weights_record")


class ClassifierFolder(NamedTuple):
    """What the folder of a classifier contains.

    Attributes:
        module: Flax module of the backbone, called with normalized images and `train`.
        variables: variables of the module: "params" and "batch_stats".
        linear: classifier of the features: "kernel" [f, c] and "bias" [c].
        class_names: names of the classes, in the order of the scores.
        augment: mean and standard deviation of the normalization.
        resize: short side of resized images, in pixels; 0: images are used as they are.
        crop: side of the center crop, in pixels.
        decoding: how image files are decoded.
        source: which encoder was trained, and on which images.
    """

    module: nn.Module
    variables: Mapping[str, Any]
    linear: Mapping[str, np.ndarray]
    class_names: tuple[str, ...]
    augment: AugmentSpec
    resize: int
    crop: int
    decoding: Decoding
    source: str


def is_classifier(path: Path) -> bool:
    """Whether a path is the folder of a classifier."""
    return (path / JSON_FILE).is_file()


def write(
    folder: Path,
    *,
    config: Config,
    sizes: tuple[int, int],
    backbone: Mapping[str, Any],
    linear: Mapping[str, Any],
    class_names: Sequence[str],
    source: str,
) -> None:
    """Writes the folder of a classifier, and replaces the files of an existing one.

    Args:
        folder: path of the folder; its parent folder must exist.
        config: config of the run.
        sizes: short side of resized images and side of their center crop, in pixels; 0
            and 0 for images that are used as they are.
        backbone: the backbone's "params" and "batch_stats".
        linear: classifier of the features: "kernel" and "bias".
        class_names: names of the classes, in the order of the scores.
        source: which encoder was trained, and on which images.

    Raises:
        OSError: if a file cannot be written.
    """
    tree = {group: {"backbone": weights} for group, weights in backbone.items()}
    tree["params"]["linear"] = dict(linear)
    flat = traverse_util.flatten_dict(jax.device_get(tree), sep="/")
    tensors = {path: np.ascontiguousarray(x) for path, x in flat.items()}
    encoder = dataclasses.asdict(config.encoder) | dict.fromkeys(_OF_START, "")
    policy = config.augment.policy
    with atomic.replace(folder) as partial:
        partial.mkdir()
        tensor_files.write_safetensors(tensors, partial / WEIGHTS_FILE)
        weights = (partial / WEIGHTS_FILE).read_bytes()
        about = {
            "version": VERSION,
            "source": source,
            "class_names": list(class_names),
            "encoder": encoder,
            "augment": {name: getattr(policy, name) for name in NORMALIZATION},
            "resize": sizes[0],
            "crop": sizes[1],
            "decoding": config.data.location.decoding._asdict(),
            "sha256": hashlib.sha256(weights).hexdigest(),
        }
        (partial / JSON_FILE).write_text(json.dumps(about, indent=2) + "\n")


def read(folder: Path) -> ClassifierFolder:
    """Reads the folder of a classifier.

    Raises:
        FileNotFoundError: if it is not such a folder.
        ValueError: if it is damaged, or of a later version of this library.
    """
    file = folder / JSON_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} has no {JSON_FILE}, so it is not the folder of a classifier; "
            "give the one that evaluate --protocol=finetune has written"
        )
    try:
        about = as_tuples(json.loads(file.read_text("utf-8")))
        if about["version"] > VERSION:
            raise ValueError(f"its version is {about['version']}; update logo_jax")
        weights = (folder / WEIGHTS_FILE).read_bytes()
        if hashlib.sha256(weights).hexdigest() != about["sha256"]:
            raise ValueError(f"{WEIGHTS_FILE} has another checksum")
        tree = traverse_util.unflatten_dict(load(weights), sep="/")
        return _as_folder(about, tree)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(
            f"the classifier {folder} cannot be read ({error}); restore it from a copy"
        ) from error


def _as_folder(about: Mapping[str, Any], tree: dict[str, Any]) -> ClassifierFolder:
    defaults = base.get_config("simsiam").to_dict()
    fields = defaults["encoder"] | about["encoder"]
    encoder = parse_group(EncoderConfig, fields, "config.encoder", lambda path: None)
    policy = parse(defaults).augment.policy.without_changes()
    # groups of batch norm matter in training only
    network = networks.make_encoder(encoder, networks.make_norm("per_device"))
    return ClassifierFolder(
        module=network.backbone,
        variables={
            "params": tree["params"]["backbone"],
            "batch_stats": tree.get("batch_stats", {}).get("backbone", {}),
        },
        linear=tree["params"]["linear"],
        class_names=about["class_names"],
        augment=dataclasses.replace(policy, **about["augment"]),
        resize=about["resize"],
        crop=about["crop"],
        decoding=Decoding(**about["decoding"]),
        source=about["source"],
    )
