"""The method of a config: a base method, optionally inside LoGo."""

import dataclasses
import inspect
from collections.abc import Callable, Hashable
from typing import Annotated, Any, NamedTuple, get_type_hints

import jax
import numpy as np
import optax

from logo_jax import losses
from logo_jax.configs import import_object
from logo_jax.experiment import networks
from logo_jax.experiment.config import (
    FRACTION,
    AtLeast1,
    Config,
    MethodConfig,
    NotNegative,
    check_fields,
    lookup,
    require,
)
from logo_jax.experiment.optimizers import learning_rate, make_optimizer
from logo_jax.methods import (
    BYOL,
    CosineAffinity,
    LearnedAffinity,
    LoGo,
    MoCo,
    OnlineLinear,
    SimSiam,
    SwAV,
)
from logo_jax.methods.affinity import Affinity
from logo_jax.methods.base import BaseMethod, Method
from logo_jax.networks.encoder import Encoder
from logo_jax.networks.resnet import Norm
from logo_jax.networks.vit import PATCHES
from logo_jax.training import optim
from logo_jax.training.schedule import TrainingSchedule

REGRESSOR_LOSSES = {
    "jensen_shannon": losses.jensen_shannon,
    # The paper's affinity, the softplus of the score, is never negative.
    "difference": lambda positive, negative: losses.mine_difference(
        jax.nn.softplus(positive), jax.nn.softplus(negative)
    ),
    "donsker_varadhan": losses.donsker_varadhan,
}
# Peak learning rate of the online classifier. In the quickstart 1 is slow and 10
# overshoots.
LINEAR_RATE = 3.0


@dataclasses.dataclass(frozen=True)
class MethodParts:
    """Objects from which methods are built.

    Attributes:
        config: all fields.
        norm: constructor of the batch norms whose input are all images of a device.
        part_norm: constructor of the batch norms whose input is one part of them.
        encoder: backbone and head.
        training: length of the training.
        pair_weights: weight of each directed pair of views, [s, t].
        num_classes: number of classes of the images' labels; 0: unknown, and no
            classifier is trained.
    """

    config: Config
    norm: Norm
    part_norm: Norm
    encoder: Encoder
    training: TrainingSchedule
    pair_weights: np.ndarray
    num_classes: int = 0

    @property
    def rate(self) -> float:
        """The peak learning rate at the config's batch size."""
        return self.scaled(self.config.optimizer.learning_rate)

    def scaled(self, rate: float) -> float:
        """Converts a learning rate for batch size 256 to the config's batch size."""
        return rate * self.config.data.batch_size / 256

    def tx(self, **more: Any) -> optax.GradientTransformationExtraArgs:
        """Returns the config's optimizer with its schedule."""
        group = self.config.optimizer
        rate = learning_rate(group, self.rate, self.training)
        tx = make_optimizer(group, rate, **more)
        return optim.frozen(tx, PATCHES) if self.config.encoder.frozen_patches else tx

    def predictor(self, hidden: int) -> Any:
        """Returns a predictor with a hidden layer of this size."""
        return networks.make_predictor(
            self.config.encoder, hidden, self.part_norm, self.encoder.parts
        )


def _simsiam(
    parts: MethodParts, *, predictor_hidden: AtLeast1, predictor_fixed_rate: bool
) -> dict[str, Any]:
    tx = parts.tx()
    if predictor_fixed_rate:
        fixed = make_optimizer(parts.config.optimizer, parts.rate)
        tx = optim.by_network({"encoder": tx, "predictor": fixed})
    return {"predictor": parts.predictor(predictor_hidden), "tx": tx}


def _byol(
    parts: MethodParts,
    *,
    predictor_hidden: AtLeast1,
    momentum: Annotated[float, FRACTION],
) -> dict[str, Any]:
    schedule = optim.momentum_schedule(momentum, num_steps=parts.training.num_steps)
    return {"predictor": parts.predictor(predictor_hidden), "momentum": schedule}


def _swav(
    parts: MethodParts, *, queue_start_epoch: NotNegative, frozen_epochs: NotNegative
) -> dict[str, Any]:
    steps_per_epoch = parts.training.steps_per_epoch
    frozen = round(frozen_epochs * steps_per_epoch)
    tx: dict[Hashable, optax.GradientTransformation] = {
        "encoder": parts.tx(),
        "prototypes": parts.tx(frozen_steps=frozen),
    }
    start = round(queue_start_epoch * steps_per_epoch)
    return {"tx": optim.by_network(tx), "queue_start": start}


def _derive_nothing(parts: MethodParts) -> dict[str, Any]:
    del parts
    return {}


class BaseEntry(NamedTuple):
    """Describes how a base method is built.

    Attributes:
        kind: the method's class. It gets `encoder`, `pair_weights`, `running_stats`
            and, as `tx`, the config's optimizer. Its other fields are fields of the
            config's group `method` (knobs), unless `derive` returns them.
        derive: function that computes fields of the class from the parts and from
            further knobs, which are its keyword arguments.
        derived: names of the fields that `derive` returns, apart from `tx`.
    """

    kind: Any
    derive: Callable[..., dict[str, Any]] = _derive_nothing
    derived: tuple[str, ...] = ()

    def knobs(self) -> dict[str, Any]:
        """Returns the annotations of all knobs, by name."""
        computed = {"encoder", "pair_weights", "running_stats", "tx", *self.derived}
        types = get_type_hints(self.kind, include_extras=True)
        fields = {
            field.name: types[field.name]
            for field in dataclasses.fields(self.kind)
            if field.name not in computed
        }
        return self.own_knobs() | fields

    def own_knobs(self) -> dict[str, Any]:
        """Returns the annotations of the knobs that `derive` takes, by name."""
        return {
            parameter.name: parameter.annotation
            for parameter in inspect.signature(self.derive).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY
        }


BASES = {
    "simsiam": BaseEntry(SimSiam, _simsiam, derived=("predictor",)),
    "moco": BaseEntry(MoCo),
    "byol": BaseEntry(BYOL, _byol, derived=("predictor", "momentum")),
    "swav": BaseEntry(SwAV, _swav, derived=("queue_start",)),
}


def make_method(parts: MethodParts) -> Method:
    """Makes the method of a config.

    Raises:
        ValueError: if a field is unknown or wrong.
    """
    base = make_base(parts, parts.config.method)
    if parts.config.monitor.linear and parts.num_classes:
        base = _with_online_linear(parts, base)
    return _with_logo(parts, base)


def make_base(parts: MethodParts, config: MethodConfig) -> BaseMethod:
    """Makes the base method that a config names: one of `BASES`, or an imported class.

    Raises:
        ValueError: if the method is unknown, or one of its knobs is unknown, missing or
            wrong.
    """
    path = "config.method"
    if ":" in config.name:
        kind = import_object(config.name, f"{path}.name")
        if not (dataclasses.is_dataclass(kind) and isinstance(kind, type)):
            raise ValueError(
                f"{path}.name={config.name!r} must be a dataclass, such as a subclass "
                "of logo_jax.methods.gradient.GradientMethod"
            )
        entry = BaseEntry(kind)
    else:
        entry = lookup(BASES, config.name, f"{path}.name")
    annotations = entry.knobs()
    knobs = check_fields(annotations, config.knobs, path)
    for name, annotation in annotations.items():
        require(knobs[name], annotation, f"{path}.{name}")
    own = {name: knobs.pop(name) for name in entry.own_knobs()}
    given = {
        "encoder": parts.encoder,
        "pair_weights": parts.pair_weights,
        "running_stats": parts.config.running_stats,
    }
    derived = {"tx": parts.tx()} | entry.derive(parts, **own)
    try:
        return entry.kind(**given, **derived, **knobs)
    except ValueError as error:
        raise ValueError(f"{path}.{error}") from error


def _with_online_linear(parts: MethodParts, base: BaseMethod) -> BaseMethod:
    """Adds a linear classifier of the base method's features."""
    num_steps = parts.training.num_steps
    rate = optim.cosine_schedule(LINEAR_RATE, num_steps=num_steps)
    tx = optim.sgd(rate, momentum=0.9, weight_decay=0.0)
    return OnlineLinear(base, parts.num_classes, tx)


def _with_logo(parts: MethodParts, base: BaseMethod) -> Method:
    """Returns the base method, inside LoGo if the config has a repulsion."""
    config = parts.config.logo
    if config.update_kind == "none":
        return base
    if config.update_kind == "released" and parts.config.optimizer.name != "sgd":
        raise ValueError(
            "config.logo.update_kind='released' needs config.optimizer.name='sgd', "
            "because it limits an SGD step by the size of another; use 'joint'"
        )
    return LoGo(
        base=base,
        affinity=_affinity(parts),
        repel_tx=parts.tx(make=optim.clipped_sgd),
        update_kind=config.update_kind,
        weight=config.weight,
        clip_ratio=config.clip_ratio,
        reset_norm=config.reset_norm,
        steps_per_epoch=parts.training.steps_per_epoch,
        update_momentum_before_repel=config.update_momentum_before_repel,
    )


def _affinity(parts: MethodParts) -> Affinity:
    """Makes the measure of similarity of two local crops."""
    config, optimizer = parts.config.logo, parts.config.optimizer
    if config.affinity == "cosine":
        return CosineAffinity()
    peak = parts.scaled(config.regressor_learning_rate)
    rate = learning_rate(optimizer, peak, parts.training, config.regressor_schedule)
    # AdamW's weight decay is decoupled, and too large for the regressor's SGD
    decay = 0.0 if optimizer.name == "adamw" else optimizer.weight_decay
    sgd = dataclasses.replace(optimizer, weight_decay=decay)
    return LearnedAffinity(
        regressor=networks.make_regressor(config, parts.norm),
        tx=make_optimizer(sgd, rate, optim.sgd),
        loss=lookup(
            REGRESSOR_LOSSES, config.regressor_loss, "config.logo.regressor_loss"
        ),
        trained=config.affinity != "random",
        noise=config.noise,
        noise_on=config.noise_on,
        negatives=config.negatives,
        regressor_norm=config.regressor_norm,
        both_orders=config.both_orders,
        normalize=config.normalize,
    )
