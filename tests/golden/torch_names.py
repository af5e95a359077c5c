"""Reads step files of the reference implementations into our names and layouts."""

import collections
import os
import pathlib

import numpy as np

DATA = pathlib.Path(
    os.environ.get("LOGO_GOLDEN_DIR", pathlib.Path(__file__).parent / "data")
)


def load(name):
    """Returns all arrays of a golden file, by name."""
    with np.load(DATA / name) as file:
        return {key: file[key] for key in file.files}


def under(tensors, prefix):
    """Returns the tensors whose names start with prefix, without the prefix."""
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def layout(weight):
    """Converts a PyTorch weight to Flax's layout."""
    axes = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[weight.ndim]
    return weight.transpose(axes)


def sequential(tensors):
    """Returns (params, batch_stats) of a torch Sequential; layers are conv0, bn0 ..."""
    layers = collections.defaultdict(dict)
    for name, value in tensors.items():
        index, kind = name.split(".")
        layers[int(index)][kind] = value
    params, stats = {}, {}
    number = -1
    for _, layer in sorted(layers.items()):
        weight = layer.get("weight")
        if weight is not None and weight.ndim > 1:
            number += 1
            kind = "conv" if weight.ndim == 4 else "fc"
            entry = params[f"{kind}{number}"] = {"kernel": layout(weight)}
        else:
            stats[f"bn{number}"] = {
                "mean": layer["running_mean"],
                "var": layer["running_var"],
            }
            if weight is None:
                continue
            entry = params[f"bn{number}"] = {"scale": weight}
        if "bias" in layer:
            entry["bias"] = layer["bias"]
    return params, stats


def encoder(tensors, backbone, head):
    """Returns (params, batch_stats) of an encoder with these prefixes of its parts."""
    halves = {
        "backbone": sequential(under(tensors, backbone)),
        "head": sequential(under(tensors, head)),
    }
    params = {name: half[0] for name, half in halves.items()}
    stats = {name: half[1] for name, half in halves.items() if half[1]}
    return params, stats
