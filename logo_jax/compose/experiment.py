"""A description with its data on the devices, ready to run."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from logo_jax import step
from logo_jax.augment.policy import prepare_eval
from logo_jax.compose.description import Description, describe
from logo_jax.data import sources
from logo_jax.data.images import ImageSet
from logo_jax.data.resident import Resident
from logo_jax.monitor import KnnMonitor, make_encode_with
from logo_jax.state import TrainState


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A description with its data on the devices, ready to run.

    Attributes:
        description: what the config says.
        mesh: the devices.
        loader: batches by step number.
        train_step: `(state, examples, epoch) -> (state, metrics)`, compiled.
        monitor: kNN while training; None without labels or a test set.
    """

    description: Description
    mesh: Mesh
    loader: Resident
    train_step: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    monitor: KnnMonitor | None

    def init(self) -> TrainState:
        """The state before the first step, on every device."""
        return step.replicate(jax.jit(self.description.init)(), self.mesh)


def experiment(config: Mapping[str, Any], mesh: Mesh) -> Experiment:
    """Everything a config describes, on the devices of the mesh.

    Raises:
        ValueError: as `describe`, and where data do not fit; before data are read for
            all that does not depend on them.
        FileNotFoundError: where the data are not there.
    """
    num_devices = mesh.devices.size
    first = describe(config, num_devices=num_devices)
    jax.eval_shape(first.init)  # a queue or crops that do not fit show here
    train, test = load_data(first)
    steps_per_epoch = len(train.images) // first.batch_size
    if not steps_per_epoch:
        raise ValueError(
            f"config.data.batch_size={first.batch_size} exceeds the "
            f"{len(train.images)} training images; use a smaller one"
        )
    description = describe(
        config, num_devices=num_devices, steps_per_epoch=steps_per_epoch
    )
    return Experiment(
        description=description,
        mesh=mesh,
        loader=Resident(
            images=step.replicate(train.images, mesh),
            batch_size=description.batch_size,
            seeds=description.plan.seeds,
            sharding=step.batch_sharding(mesh, several=len(description.plan.seeds) > 1),
        ),
        train_step=train_step(description, mesh),
        monitor=knn_monitor(description, train, test, mesh),
    )


def train_step(description: Description, mesh: Mesh) -> Callable[..., Any]:
    """The compiled step of what a config describes."""
    return step.make_train_step(
        description.method.update,
        description.make_batch,
        mesh,
        description.keys("crops", "steps"),
    )


def load_data(description: Description) -> tuple[ImageSet, ImageSet | None]:
    """The training set, and the test set where there is one."""
    train = sources.load(split="train", **description.data)
    if train.labels is None:
        return train, None
    return train, sources.load(split="test", **description.data)


def knn_monitor(
    description: Description, train: ImageSet, test: ImageSet | None, mesh: Mesh
) -> KnnMonitor | None:
    """The kNN monitor a config asks for; None where labels are missing."""
    if train.labels is None or test is None or test.labels is None:
        return None
    fields = description.monitor
    limits = (fields["train_examples"], fields["test_examples"])
    bank, queries = (
        (part.images[: n or None], labels[: n or None])
        for part, labels, n in zip(
            (train, test), (train.labels, test.labels), limits, strict=True
        )
    )
    return KnnMonitor(
        encode_with=make_encode_with(
            description.encoder,
            functools.partial(prepare_eval, spec=description.augment),
            step.batch_sharding(mesh),
            ("backbone", "projector") if fields["projector"] else ("backbone",),
        ),
        train=bank,
        test=queries,
        settings=fields["knn"],
        num_classes=int(max(train.labels.max(), test.labels.max())) + 1,
        batch_size=description.batch_size,
        num_seeds=len(description.plan.seeds),
    )
