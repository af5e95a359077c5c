"""A trained encoder, restored from a run's checkpoint or read from a weights file."""

import dataclasses
import functools
import pathlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from logo_jax.augment.multi_crop import prepare_eval
from logo_jax.data import splits
from logo_jax.data.load import ExperimentData, Split, load_images
from logo_jax.data.sources.base import ImageSource
from logo_jax.evaluation.features import Features, FeatureSplits, LabeledImages, extract
from logo_jax.evaluation.knn_monitor import make_encode_with
from logo_jax.experiment.data import decode_in_memory
from logo_jax.experiment.experiment import make_eval_crops
from logo_jax.experiment.spec import ExperimentSpec, make_spec
from logo_jax.interop import huggingface
from logo_jax.interop.backbone import Backbone
from logo_jax.interop.torchvision import read_backbone
from logo_jax.methods.average import with_average
from logo_jax.methods.base import (
    EMA_ENCODER,
    ENCODER,
    KEY_ENCODER,
    TARGET_ENCODER,
    TrainState,
)
from logo_jax.parallel.mesh import batch_sharding, replicate
from logo_jax.storage import copies
from logo_jax.training.checkpoints.manager import CheckpointManager
from logo_jax.training.workdir import CONFIG_FILE

ONLINE = "online"
# The encoders of a state, by their names for users: the trained one, the momentum
# encoder of MoCo, BYOL or a method of one's own, and the average of `config.train.ema`.
ENCODERS = {
    ONLINE: (ENCODER,),
    "target": (KEY_ENCODER, TARGET_ENCODER),
    "ema": (EMA_ENCODER,),
}


@dataclasses.dataclass(frozen=True)
class FrozenEncoder:
    """An encoder that is evaluated and not trained.

    Attributes:
        spec: the objects that its config describes, including the data to evaluate on.
        state: the train state with all its seeds, on every device.
        mesh: the devices.
        source: "step 100", "step 100, ema", "untrained", or the name of the weights
            file; identifies the encoder in results.
        which: which of the state's encoders this is, a name in ENCODERS. It is in the
            place of the trained encoder.
        given: images to evaluate on, if they are in memory; otherwise those of the
            config.
        step: step of the run's checkpoint; None if it is not from a run.
    """

    spec: ExperimentSpec
    state: TrainState
    mesh: Mesh
    source: str
    which: str = ONLINE
    given: ExperimentData | None = None
    step: int | None = None

    def seeds(self) -> Iterator[Self]:
        """Yields a frozen encoder for each seed."""
        several = self.spec.schedule.seeds
        if len(several) == 1:
            yield self
            return
        for i, seed in enumerate(several):
            schedule = dataclasses.replace(self.spec.schedule, seeds=(seed,))
            yield dataclasses.replace(
                self,
                spec=dataclasses.replace(self.spec, schedule=schedule),
                state=jax.tree.map(lambda x, i=i: x[i], self.state),
            )

    def of_seed(self, seed: int | None) -> Self:
        """Returns the encoder of a seed; with only one seed, `seed` may be None.

        Raises:
            ValueError: if the run does not have the seed.
        """
        found = dict(zip(self.spec.schedule.seeds, self.seeds(), strict=True))
        if seed is None and len(found) == 1:
            (seed,) = found
        if seed not in found:
            raise ValueError(
                f"--seed={seed} must be one of the run's seeds {sorted(found)}"
            )
        return found[seed]

    def untrained(self) -> Self:
        """Returns the encoder as it is initialized from the config's seeds."""
        state = replicate(self.spec.first_state(), self.mesh)
        return dataclasses.replace(self, state=state, source="untrained")

    @property
    def backbone(self) -> Backbone:
        """The backbone and its weights; for one seed only."""
        return Backbone(self.spec.encoder.backbone, _backbone_weights(self.state))

    def on(self, images: ExperimentData | None) -> Self:
        """Returns the encoder with images in memory to evaluate on; None: none."""
        return dataclasses.replace(self, given=images)

    def data(self) -> ExperimentData:
        """Returns the images to evaluate on; decoded, if they have one size and fit.

        Raises:
            ValueError: if the images are not as the config describes.
            FileNotFoundError: if the images do not exist.
        """
        config = self.spec.config.data
        return decode_in_memory(config, self.given or load_images(config.location))

    def features(self, images: ImageSource) -> Features:
        """Computes backbone features of all images, cropped as by the monitor."""
        return self.features_of(make_eval_crops(self.spec, images))

    def features_of(self, images: LabeledImages) -> Features:
        """Computes backbone features of images that are already cropped."""
        encode_with = make_encode_with(
            self.spec.encoder,
            functools.partial(prepare_eval, spec=self.spec.config.augment.policy),
            batch_sharding(self.mesh),
            ("backbone",),
        )
        # fine-tuning on few labels may use fewer devices than the config's batch size
        # is a multiple of
        devices = self.mesh.devices.size
        batch_size = devices * -(-self.spec.config.data.batch_size // devices)
        found = extract(encode_with(self.state), images, batch_size=batch_size)
        return found["backbone"]

    def parts(self, split: Split) -> FeatureSplits:
        """Computes features to train, validate and test a classifier on."""
        found = {name: self.features(images) for name, images in split.images.items()}
        rows = split.draw({name: part.labels for name, part in found.items()})
        return FeatureSplits(
            **{name: _chosen(found[part.split], part) for name, part in rows.items()}
        )


def is_run(folder: pathlib.Path) -> bool:
    """Whether a path is a run; a folder of transformers has a config.json, too."""
    has_config = (folder / CONFIG_FILE).is_file()
    return has_config and not huggingface.has_weights(folder)


def _backbone_weights(state: TrainState) -> dict[str, Any]:
    """Returns the backbone's parameters and, which may be empty, running statistics."""
    groups = {"params": state.params, "batch_stats": state.batch_stats}
    return {name: group[ENCODER].get("backbone", {}) for name, group in groups.items()}


def _chosen(features: Features, rows: splits.SplitRows) -> Features:
    return Features(*(x[rows.indices] for x in features))


def from_run(
    folder: pathlib.Path,
    config: Mapping[str, Any],
    mesh: Mesh,
    *,
    step: int | None = None,
    encoder: str = ONLINE,
) -> FrozenEncoder:
    """Restores an encoder of a run from a checkpoint.

    Args:
        folder: the run's folder.
        config: the run's config.
        mesh: the devices.
        step: step of the checkpoint; the newest undamaged one if None.
        encoder: a name in ENCODERS.

    Raises:
        ValueError: if there is no such checkpoint, or if the run has no such encoder.
    """
    train = config["train"]
    spec = make_spec(
        {**config, "train": {**train, "ema": 0.0}}, num_devices=mesh.devices.size
    )
    like = spec.shapes
    if train["ema"] and encoder == "ema":
        like = jax.eval_shape(with_average, like)
    _require_encoder(encoder, like, folder, bool(train["ema"]))
    with CheckpointManager(folder / "checkpoints", read_only=True) as checkpoints:
        if step is None:
            found = checkpoints.restore_latest(like)
        else:
            found = step, checkpoints.restore(step, like)
    if found is None:
        raise ValueError(f"{folder} has no checkpoint yet; train it first")
    step_number, state = found
    state = replicate(_chosen_encoder(state, encoder), mesh)
    which = "" if encoder == ONLINE else f", {encoder}"
    source = f"step {step_number}{which}"
    return FrozenEncoder(spec, state, mesh, source, encoder, step=step_number)


def _require_encoder(encoder: str, state: TrainState, folder: Any, ema: bool) -> None:
    """Raises unless the run has the encoder; the state's leaves are not used."""
    has = [name for name, networks in ENCODERS.items() if _in(state, networks)]
    has += ["ema"] if ema and "ema" not in has else []
    if encoder not in has:
        why = {
            "target": "its method has no momentum encoder",
            "ema": "it was trained without config.train.ema",
        }
        raise ValueError(
            f"--encoder={encoder} must be an encoder of {folder}: {', '.join(has)}"
            + (f"; {why[encoder]}" if encoder in why else "")
        )


def _in(state: TrainState, networks: Sequence[str]) -> list[str]:
    return [name for name in networks if name in state.params | state.memory]


def _chosen_encoder(state: TrainState, encoder: str) -> TrainState:
    """Puts one of a state's encoders in the place of the trained one."""
    (network,) = _in(state, ENCODERS[encoder])
    variables = state.variables(network)
    memory = {name: x for name, x in state.memory.items() if name != EMA_ENCODER}
    return state.replace(
        params=state.params | {ENCODER: variables["params"]},
        batch_stats=state.batch_stats | {ENCODER: variables["batch_stats"]},
        memory=memory,
    )


def with_backbone(state: TrainState, weights: Any) -> TrainState:
    """Returns a state in which the encoder and momentum encoders have a backbone.

    Args:
        state: the train state; if it has several seeds, all get the same weights.
        weights: "params" and "batch_stats" of the backbone.
    """

    def replaced(networks: dict[str, Any], new: Any) -> dict[str, Any]:
        return {
            name: {**network, "backbone": _like(new, network["backbone"])}
            if isinstance(network, Mapping) and "backbone" in network
            else network
            for name, network in networks.items()
        }

    return state.replace(
        params=replaced(state.params, weights["params"]),
        batch_stats=replaced(state.batch_stats, weights.get("batch_stats")),
        memory=replaced(state.memory, weights["params"]),
    )


def describe_weights(origin: str, tree: Any) -> str:
    """Describes weights by their origin, their number and a checksum."""
    leaves, crc = jax.tree.leaves(tree), 0
    for leaf in leaves:
        crc = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), crc)
    numbers = sum(np.size(leaf) for leaf in leaves)
    return f"{origin}, {len(leaves)} tensors, {numbers:,} numbers, crc32 {crc:08x}"


def _like(weights: Any, old: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.broadcast_to(x, y.shape), weights, old)


def from_file(
    file: pathlib.Path, config: Mapping[str, Any], mesh: Mesh
) -> FrozenEncoder:
    """Reads an encoder's backbone from a safetensors file with torchvision's names.

    Args:
        file: the weights file, which may be in a bucket.
        config: config of the encoder that the weights belong to. The rest of the
            encoder's state is initialized and not used.
        mesh: the devices.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it has the weights of another network.
    """
    spec = make_spec(config, num_devices=mesh.devices.size)
    state = spec.first_state()
    file = copies.on_disk(file)
    read = read_backbone(file, _backbone_weights(state))
    state = replicate(with_backbone(state, read), mesh)
    # The checksum distinguishes files of the same name.
    source = f"{file.name}, crc32 {zlib.crc32(file.read_bytes()):08x}"
    return FrozenEncoder(spec, state, mesh, source)
