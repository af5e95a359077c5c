"""The vocabulary: what a batch, a train state and a method are."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np
import optax
from flax import struct

ENCODER = "encoder"
PREDICTOR = "predictor"
REGRESSOR = "regressor"
KEY_ENCODER = "key_encoder"
TARGET_ENCODER = "target_encoder"
PROTOTYPES = "prototypes"
LINEAR = "linear"

Metrics: TypeAlias = dict[str, jax.Array]
Params: TypeAlias = dict[str, Any]


class Batch(NamedTuple):
    """Augmented crops of b images; crops of one image share its row.

    Attributes:
        global_crops: large crops, [b, g, h, w, c].
        local_crops: small crops, [b, l, s, t, c]; l may be 0.
        labels: of the images, as in `Examples`; no method learns its encoder from them.
    """

    global_crops: Any
    local_crops: Any
    labels: Any = None


class TrainState(struct.PyTreeNode):
    """Every number that changes while training, and nothing else.

    Attributes:
        step: updates done so far, [].
        params: what an optimiser moves, by network: "encoder", "predictor",
            "prototypes", "regressor", "linear".
        batch_stats: batch-norm running statistics, by network.
        opt_states: optimiser states, by the update that owns them: "base", "repel",
            "regressor", "linear".
        memory: what a method remembers and no gradient moves: MoCo's "key_encoder",
            "queue", "cursor"; BYOL's "target_encoder"; SwAV's "queue", where it has
            one; LoGo's "grad_norm"; empty for SimSiam.
    """

    step: Any
    params: Params
    batch_stats: dict[str, Any]
    opt_states: dict[str, Any]
    memory: dict[str, Any]


class Forward(NamedTuple):
    """What one evaluation of a base method's loss leaves behind.

    Attributes:
        embeddings: raw projections of the views that predict, in the pairing's order,
            [s, b, d]; local crops last.
        batch_stats: the new running statistics, by network.
        memory: the new memory, by name.
        metrics: scalars to log.
        features: the backbone's of the first view that predicts, [b, f], with their
            gradient; None where the encoder does not sow any.
    """

    embeddings: Any
    batch_stats: dict[str, Any]
    memory: dict[str, Any]
    metrics: Metrics
    features: Any = None


Aux: TypeAlias = tuple[TrainState, Metrics]
ExtraLoss: TypeAlias = Callable[[TrainState, Forward], tuple[jax.Array, Aux]]


@runtime_checkable
class Method(Protocol):
    """A self-supervised method: two pure functions of explicit state."""

    def init(self, key: jax.Array, batch: Batch) -> TrainState:
        """State before the first step; only the shapes of the batch matter."""
        ...

    def update(
        self, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        """State after one step on this device's rows of the batch, and its metrics."""
        ...


class BaseMethod(Method, Protocol):
    """A method whose update is one gradient step; LoGo wraps these."""

    @property
    def pair_weights(self) -> np.ndarray:
        """Weight of each directed pair of views, [s, t]."""
        ...

    def prepare(self, state: TrainState) -> TrainState:
        """State at the start of an update: where slow encoders move."""
        ...

    def update(
        self, state: TrainState, batch: Batch, key: jax.Array, term: ExtraLoss = ...
    ) -> tuple[TrainState, Metrics]:
        """As of any method, on the loss plus a term; `grad_norm` is the encoder's."""
        ...


class LossMethod(BaseMethod, Protocol):
    """A base method that has the loss and the optimiser itself."""

    @property
    def tx(self) -> optax.GradientTransformationExtraArgs:
        """The optimiser of `trains`."""
        ...

    @property
    def trains(self) -> tuple[str, ...]:
        """Names of the networks that the loss moves."""
        ...

    def loss(
        self, params: Params, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Forward]:
        """The loss at params on this device's rows, and what the pass leaves."""
        ...


Update = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]


def with_forward(state: TrainState, forward: Forward) -> TrainState:
    """State with the statistics and memory that a forward pass left behind."""
    return state.replace(
        batch_stats=state.batch_stats | forward.batch_stats,
        memory=state.memory | forward.memory,
    )
