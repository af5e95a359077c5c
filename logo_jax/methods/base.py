"""Definitions shared by all methods: the batch, the train state and the interfaces."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, Self, TypeAlias

import flax.linen as nn
import jax
import numpy as np
from flax import struct

ENCODER = "encoder"
PREDICTOR = "predictor"
REGRESSOR = "regressor"
KEY_ENCODER = "key_encoder"
TARGET_ENCODER = "target_encoder"
EMA_ENCODER = "ema_encoder"
PROTOTYPES = "prototypes"
LINEAR = "linear"

Metrics: TypeAlias = dict[str, jax.Array]
Params: TypeAlias = dict[str, Any]


class Batch(NamedTuple):
    """Augmented crops of b images; the crops of an image have the same row.

    Attributes:
        global_crops: large crops, [b, g, h, w, c].
        local_crops: small crops, [b, l, s, t, c]; l may be 0.
        labels: classes of the images, int32 [b], -1 if unknown, or None. No method
            trains its encoder on them.
    """

    global_crops: Any
    local_crops: Any
    labels: Any = None


class Targets(NamedTuple):
    """What a base method computes before its loss, without a gradient.

    Attributes:
        embeddings: what the views predict, [t, b, d]; None if the loss computes it.
        batch_stats: new batch-norm running statistics, by network.
        memory: new entries of `TrainState.memory`, by name; the loss is evaluated with
            the earlier ones.
        metrics: scalars to log.
    """

    embeddings: Any
    batch_stats: dict[str, Any]
    memory: dict[str, Any]
    metrics: Metrics


class Forward(NamedTuple):
    """Results of one evaluation of a base method's loss, in addition to the loss.

    Attributes:
        embeddings: projections, not normalized, of the views that predict, in the order
            of the pairing, [s, b, d]; local crops are last.
        batch_stats: new batch-norm running statistics, by network.
        memory: new entries of `TrainState.memory`, by name.
        metrics: scalars to log.
        features: backbone features of the first view that predicts, [b, f], without a
            stop-gradient; None if the encoder does not sow any.
    """

    embeddings: Any
    batch_stats: dict[str, Any]
    memory: dict[str, Any]
    metrics: Metrics
    features: Any = None


class TrainState(struct.PyTreeNode):
    """Every number that training changes or that its step needs.

    Attributes:
        step: number of updates so far, [].
        params: parameters that an optimizer updates, by network: "encoder",
            "predictor", "prototypes", "regressor", "linear".
        batch_stats: batch-norm running statistics, by network.
        opt_states: optimizer states, by the update that uses them: "base", "repel",
            "regressor", "linear".
        memory: state of a method that no gradient updates: "key_encoder", "queue" and
            "cursor" of MoCo; "target_encoder" of BYOL; "queue" of SwAV, if it has one;
            "grad_norm" of LoGo; the frozen encoder of `LinearProbe`; the setting of
            `FineTune`. SimSiam has none. With `config.train.ema`, any method has an
            "ema_encoder".
    """

    step: Any
    params: Params
    batch_stats: dict[str, Any]
    opt_states: dict[str, Any]
    memory: dict[str, Any]

    def variables(self, network: str) -> dict[str, Any]:
        """Returns the Flax variables of a network: "params" and "batch_stats".

        The parameters of a momentum encoder are taken from the memory.
        """
        group = self.params if network in self.params else self.memory
        stats = self.batch_stats.get(network, {})
        return {"params": group[network], "batch_stats": stats}

    def after(self, results: Targets | Forward) -> Self:
        """Returns this state with the statistics and the memory of a forward pass."""
        return self.replace(
            batch_stats=self.batch_stats | results.batch_stats,
            memory=self.memory | results.memory,
        )


# A term added to a base method's loss; returns its value, the new state and metrics.
ExtraLoss: TypeAlias = Callable[
    [TrainState, Forward], tuple[jax.Array, tuple[TrainState, Metrics]]
]
# A function that sees a base method's forward pass and has no effect on its gradient;
# returns the new state and metrics.
Observer: TypeAlias = Callable[[TrainState, Forward], tuple[TrainState, Metrics]]


def no_observer(state: TrainState, forward: Forward) -> tuple[TrainState, Metrics]:
    """Returns the unchanged state and no metrics."""
    del forward
    return state, {}


class Method(Protocol):
    """A self-supervised method: two pure functions of explicit state."""

    def init(self, key: jax.Array, batch: Batch) -> TrainState:
        """Returns the state before the first step; only the batch's shapes matter."""
        ...

    def update(
        self, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        """Takes one step on this device's rows of the batch."""
        ...


class BaseMethod(Method, Protocol):
    """A method that LoGo can extend.

    `methods/gradient.py` implements `update` for methods with a loss.
    """

    @property
    def encoder(self) -> nn.Module:
        """The network that is trained; maps images to embeddings [..., d]."""
        ...

    @property
    def pair_weights(self) -> np.ndarray:
        """Weight of each directed pair of views, [s, t]."""
        ...

    @property
    def running_stats(self) -> str:
        """Views that update the encoder's running statistics: "all" or "globals"."""
        ...

    def update_momentum_encoder(self, state: TrainState) -> TrainState:
        """Updates the momentum encoder, which is the first part of `update`."""
        ...

    def update(
        self,
        state: TrainState,
        batch: Batch,
        key: jax.Array,
        extra_loss: ExtraLoss | None = None,
        observe: Observer = no_observer,
    ) -> tuple[TrainState, Metrics]:
        """Takes one step on the sum of the method's loss and an extra loss.

        The metric `grad_norm` is the norm of the encoder's gradient.
        """
        ...
