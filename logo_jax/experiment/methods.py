"""Methods that a config describes: a base method, and LoGo around it."""

import dataclasses
from collections.abc import Hashable
from typing import Any

import jax
import numpy as np
import optax

from logo_jax import losses
from logo_jax.experiment import networks
from logo_jax.experiment.optimizers import make_optimizer, schedules
from logo_jax.experiment.reader import Reader
from logo_jax.methods import (
    BYOL,
    CosineAffinity,
    LearnedAffinity,
    LoGo,
    MoCo,
    OnlineLinear,
    SimSiam,
    SwAV,
    affinity,
    logo,
)
from logo_jax.methods.affinity import Affinity
from logo_jax.methods.base import BaseMethod, Method
from logo_jax.networks.encoder import Encoder
from logo_jax.networks.resnet import Norm
from logo_jax.training import optim
from logo_jax.training.schedule import TrainingSchedule

REGRESSOR_LOSSES = {
    "jensen_shannon": losses.jensen_shannon,
    # the paper's affinity is never negative: the softplus of the score
    "difference": lambda positive, negative: losses.mine_difference(
        jax.nn.softplus(positive), jax.nn.softplus(negative)
    ),
    "donsker_varadhan": losses.donsker_varadhan,
}
AFFINITIES = ("regressor", "random", "cosine")
UPDATES = ("none", *logo.UPDATES)
# of the online classifier, at its peak: on the quickstart 1 is slow, 10 overshoots
LINEAR_RATE = 3.0
RUNNING_STATS = ("all", "globals")


@dataclasses.dataclass(frozen=True)
class MethodParts:
    """What methods are put together from.

    Attributes:
        read: the config.
        norm: constructor of batch norms.
        encoder: backbone and head.
        plan: of the loop.
        rate: learning rate at its peak.
        pair_weights: weight of each directed pair of views.
        num_classes: of the images' labels; 0: unknown, and no classifier learns.
    """

    read: Reader
    norm: Norm
    encoder: Encoder
    plan: TrainingSchedule
    rate: float
    pair_weights: np.ndarray
    num_classes: int = 0

    def tx(self, **fields: Any) -> optax.GradientTransformationExtraArgs:
        """The config's optimiser on its schedule."""
        group = self.read.optimizer
        schedule = group.choice("schedule", schedules(group, self.rate, self.plan))
        return make_optimizer(group, schedule(), **fields)

    @property
    def common(self) -> dict[str, Any]:
        """Fields of every base method but its optimiser."""
        return {
            "encoder": self.encoder,
            "pair_weights": self.pair_weights,
            "running_stats": self.read.one_of("running_stats", RUNNING_STATS),
        }


def make_method(parts: MethodParts) -> Method:
    """The method a config describes."""
    make_base = parts.read.method.choice("name", BASES)
    return _with_logo(parts, _with_linear(parts, make_base(parts)))


def _simsiam(parts: MethodParts) -> SimSiam:
    read, tx = parts.read, parts.tx()
    hidden = read.method.predictor_hidden
    predictor = networks.make_predictor(read.encoder, hidden, parts.norm)
    if read.method.predictor_fixed_rate:
        fixed = make_optimizer(read.optimizer, parts.rate)
        tx = optim.by_network({"encoder": tx, "predictor": fixed})
    return SimSiam(predictor=predictor, tx=tx, **parts.common)


def _byol(parts: MethodParts) -> BYOL:
    read = parts.read
    hidden = read.method.predictor_hidden
    predictor = networks.make_predictor(read.encoder, hidden, parts.norm)
    base = read.method.momentum
    momentum = optim.momentum_schedule(base, num_steps=parts.plan.num_steps)
    return BYOL(predictor=predictor, tx=parts.tx(), momentum=momentum, **parts.common)


def _moco(parts: MethodParts) -> MoCo:
    return MoCo(tx=parts.tx(), **_fields(parts.read.method), **parts.common)


def _swav(parts: MethodParts) -> SwAV:
    read, per_epoch = parts.read.method, parts.plan.steps_per_epoch
    frozen = round(read.frozen_epochs * per_epoch)
    start = round(read.queue_start_epoch * per_epoch)
    tx: dict[Hashable, optax.GradientTransformation] = {
        "encoder": parts.tx(),
        "prototypes": parts.tx(frozen_steps=frozen),
    }
    fields = _fields(read, without=("frozen_epochs", "queue_start_epoch"))
    return SwAV(tx=optim.by_network(tx), queue_start=start, **fields, **parts.common)


BASES = {"simsiam": _simsiam, "moco": _moco, "byol": _byol, "swav": _swav}


def _fields(read: Reader, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Every field of a group that a method takes as it is."""
    left_out = ("name", *without)
    return {name: value for name, value in read.all().items() if name not in left_out}


def _with_linear(parts: MethodParts, base: BaseMethod) -> BaseMethod:
    """The base method, with a classifier beside it where a config wants one."""
    if not (parts.read.monitor.linear and parts.num_classes):
        return base
    rate = optim.cosine_schedule(LINEAR_RATE, num_steps=parts.plan.num_steps)
    tx = optim.sgd(rate, momentum=0.9, weight_decay=0.0)
    return OnlineLinear(base, parts.num_classes, tx)


def _with_logo(parts: MethodParts, base: BaseMethod) -> Method:
    """The base method, or LoGo around it where local crops repel."""
    read = parts.read.logo
    kind = read.one_of("update_kind", UPDATES)
    if kind == "released" and parts.read.optimizer.name != "sgd":
        raise ValueError(
            "config.logo.update_kind='released' needs config.optimizer.name='sgd': it "
            "holds one SGD step small against another; use 'joint'"
        )
    fields = {
        "affinity": _affinity(parts),
        "repel_tx": parts.tx(make=optim.clipped_sgd),
        "weight": read.weight,
        "clip_ratio": read.clip_ratio,
        "reset_norm": read.reset_norm,
        "steps_per_epoch": parts.plan.steps_per_epoch,
        "update_momentum_before_repel": read.update_momentum_before_repel,
    }
    if kind == "none":
        return base
    return LoGo(base=base, update_kind=kind, **fields)


def _affinity(parts: MethodParts) -> Affinity:
    """How alike two local crops are found."""
    read, plan = parts.read.logo, parts.plan
    kind = read.one_of("affinity", AFFINITIES)
    scale = parts.read.data.batch_size / 256
    rate = read.regressor_learning_rate * scale
    schedule = read.choice(
        "regressor_schedule", schedules(parts.read.optimizer, rate, plan)
    )
    learned = LearnedAffinity(
        regressor=networks.make_regressor(read, parts.norm),
        tx=make_optimizer(parts.read.optimizer, schedule(), optim.sgd),
        loss=read.choice("regressor_loss", REGRESSOR_LOSSES),
        trained=kind != "random",
        regressor_norm=read.one_of("regressor_norm", networks.REGRESSOR_NORMS),
        noise=read.noise,
        noise_on=read.one_of("noise_on", affinity.NOISE_ON),
        negatives=read.one_of("negatives", affinity.NEGATIVES),
        both_orders=read.both_orders,
        normalize=read.normalize,
    )
    return CosineAffinity() if kind == "cosine" else learned
