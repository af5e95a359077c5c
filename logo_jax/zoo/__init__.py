"""Small encoders that are part of the package, by name.

Each has three files in this folder: NAME.safetensors, the backbone with the tensor
names of torchvision; NAME.json, a `ZooEncoder` without its name; and NAME.csv, the
metrics of its training. `benchmarks/add_to_zoo.py` writes them from a run.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent


class ZooEncoder(NamedTuple):
    """An encoder of the zoo, and how good it is.

    Attributes:
        name: its name.
        config: the config that it was trained with, such as "configs/zoo/NAME.py:logo".
        step: number of training steps.
        resize: short side of the images that it is meant for, in pixels.
        crop: side of their center crop, in pixels.
        mean: mean of red, green and blue, in [0, 1].
        std: standard deviation of the channels.
        sha256: SHA-256 of the file of weights, in hexadecimal digits.
        results: of each evaluation, by the name of its file in the run's folder,
            "protocol", "values" in percent by metric, and "splits", numbers of images.
    """

    name: str
    config: str
    step: int
    resize: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str
    results: Mapping[str, Any]

    @property
    def weights(self) -> Path:
        """The file of weights."""
        return FOLDER / f"{self.name}.safetensors"


def names() -> tuple[str, ...]:
    """Returns the names of the encoders.

    >>> names()
    ('cifar10-resnet18w16-moco-logo',)
    """
    return tuple(sorted(file.stem for file in FOLDER.glob("*.json")))


def find(source: str | Path) -> ZooEncoder | None:
    """Returns the encoder of a name; None if there is none, or a path of this name.

    The last part of a path counts as the name, because configs have absolute paths.

    >>> find("cifar10-resnet18w16-moco-logo").crop
    32
    """
    path = Path(source)
    if path.name not in names() or path.exists():
        return None
    found = json.loads((FOLDER / f"{path.name}.json").read_text(encoding="utf-8"))
    statistics = {x: tuple(found[x]) for x in ("mean", "std")}
    return ZooEncoder(**{"name": path.name} | found | statistics)


def located(source: Path) -> Path:
    """Returns the file of weights of a name of the zoo, and any other path itself."""
    found = find(source)
    return found.weights if found else source
