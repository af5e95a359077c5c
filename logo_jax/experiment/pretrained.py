"""An encoder that learns no more: restored from a run, or read from a file."""

import dataclasses
import functools
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Self

import jax
from jax.sharding import Mesh

from logo_jax.augment.multi_crop import prepare_eval
from logo_jax.data import splits
from logo_jax.data.load import Split
from logo_jax.data.sources.base import ImageSource
from logo_jax.evaluation.features import Features, FeatureSplits, LabeledImages, extract
from logo_jax.evaluation.knn_monitor import make_encode_with
from logo_jax.experiment.experiment import make_eval_crops
from logo_jax.experiment.spec import ExperimentSpec, make_spec
from logo_jax.interop.backbone import Backbone
from logo_jax.interop.torchvision import read_backbone
from logo_jax.methods.base import ENCODER, TrainState
from logo_jax.parallel.mesh import batch_sharding, replicate
from logo_jax.training.checkpoints.manager import CheckpointManager


@dataclasses.dataclass(frozen=True)
class FrozenEncoder:
    """A train state whose encoder is only looked at.

    Attributes:
        description: what its config says, of the data to evaluate on too.
        state: of all its seeds, on every device.
        mesh: the devices.
        source: "step 100", "untrained", or the file the weights are from: names what
            was evaluated.
    """

    description: ExperimentSpec
    state: TrainState
    mesh: Mesh
    source: str

    def seeds(self) -> Iterator[Self]:
        """One for each seed."""
        several = self.description.plan.seeds
        if len(several) == 1:
            yield self
            return
        for i, seed in enumerate(several):
            plan = dataclasses.replace(self.description.plan, seeds=(seed,))
            yield dataclasses.replace(
                self,
                description=dataclasses.replace(self.description, plan=plan),
                state=jax.tree.map(lambda x, i=i: x[i], self.state),
            )

    def of_seed(self, seed: int | None) -> Self:
        """The one of a seed; None will do where there is only one.

        Raises:
            ValueError: where the run has not that one.
        """
        found = dict(zip(self.description.plan.seeds, self.seeds(), strict=True))
        if seed is None and len(found) == 1:
            (seed,) = found
        if seed not in found:
            raise ValueError(f"--seed={seed} must be one of the run's, {sorted(found)}")
        return found[seed]

    def untrained(self) -> Self:
        """The encoder before the first step, as its config's seeds draw it."""
        state = replicate(self.description.first_state(), self.mesh)
        return dataclasses.replace(self, state=state, source="untrained")

    @property
    def backbone(self) -> Backbone:
        """The network that is evaluated, and its weights; of one seed."""
        groups = {"params": self.state.params, "batch_stats": self.state.batch_stats}
        weights = {name: group[ENCODER]["backbone"] for name, group in groups.items()}
        return Backbone(self.description.encoder.backbone, weights)

    def features(self, images: ImageSource) -> Features:
        """Backbone features of all images, as the config's monitor cuts them."""
        return self.features_of(make_eval_crops(self.description, images, 0))

    def features_of(self, images: LabeledImages) -> Features:
        """Backbone features of images that are cut already."""
        encode_with = make_encode_with(
            self.description.encoder,
            functools.partial(prepare_eval, spec=self.description.augment),
            batch_sharding(self.mesh),
            ("backbone",),
        )
        found = extract(
            encode_with(self.state), images, batch_size=self.description.batch_size
        )
        return found["backbone"]

    def parts(self, cut: Split) -> FeatureSplits:
        """Features of the rows that are trained, validated and tested on."""
        found = {split: self.features(images) for split, images in cut.images.items()}
        rows = cut.draw({split: part.labels for split, part in found.items()})
        return FeatureSplits(
            **{name: _chosen(found[part.split], part) for name, part in rows.items()}
        )


def _chosen(features: Features, rows: splits.SplitRows) -> Features:
    return Features(*(x[rows.indices] for x in features))


def from_run(
    folder: pathlib.Path, config: Mapping[str, Any], mesh: Mesh
) -> FrozenEncoder:
    """The newest sound checkpoint of a run.

    Raises:
        ValueError: where there is none.
    """
    description = make_spec(config, num_devices=mesh.devices.size)
    like = jax.eval_shape(description.init)
    with CheckpointManager(folder / "checkpoints", read_only=True) as checkpoints:
        found = checkpoints.restore_latest(like)
    if found is None:
        raise ValueError(f"{folder} has no checkpoint yet; train it first")
    step_number, state = found
    state = replicate(state, mesh)
    return FrozenEncoder(description, state, mesh, f"step {step_number}")


def from_file(
    file: pathlib.Path, config: Mapping[str, Any], mesh: Mesh
) -> FrozenEncoder:
    """The backbone in a safetensors file with torchvision's names.

    Args:
        file: of weights.
        config: with the encoder that they belong to; the rest of its state, as it is
            initialised, is not looked at.
        mesh: the devices.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it holds another network.
    """
    description = make_spec(config, num_devices=mesh.devices.size)
    state = description.first_state()
    groups = {"params": state.params, "batch_stats": state.batch_stats}
    backbone = {name: group[ENCODER]["backbone"] for name, group in groups.items()}
    read = read_backbone(file, backbone)
    with_backbone = {
        name: group | {ENCODER: group[ENCODER] | {"backbone": read[name]}}
        for name, group in groups.items()
    }
    state = replicate(state.replace(**with_backbone), mesh)
    # another file may have its name
    source = f"{file.name}, crc32 {zlib.crc32(file.read_bytes()):08x}"
    return FrozenEncoder(description, state, mesh, source)
