"""Every method, with and without LoGo, small enough to compile in seconds."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from logo_jax.losses import donsker_varadhan, jensen_shannon
from logo_jax.methods import (
    BYOL,
    CosineAffinity,
    LearnedAffinity,
    LoGo,
    MoCo,
    SimSiam,
    SwAV,
)
from logo_jax.methods.base import ENCODER, PROTOTYPES, Batch, Method
from logo_jax.methods.pairing import pair_weights
from logo_jax.networks import heads
from logo_jax.networks.batch_norm import BatchNorm
from logo_jax.networks.encoder import Encoder
from logo_jax.networks.folded_views import FoldedViews
from logo_jax.networks.vit import PATCHES, ViT
from logo_jax.parallel.mesh import AXIS, batch_sharding, make_mesh, replicate
from logo_jax.training import optim
from logo_jax.training.train_step import make_train_step
from tests.golden.tiny import TinyBackbone

BATCH, DIM = 8, 8
# the affinity of the released code
RELEASED = {
    "loss": jensen_shannon,
    "trained": True,
    "noise": 0.3,
    "noise_on": "positives",
    "negatives": "flip",
    "regressor_norm": "separate",
    "both_orders": False,
    "normalize": True,
}


def sgd(make=optim.sgd):
    return make(0.05, momentum=0.9, weight_decay=1e-3)


class Norms(NamedTuple):
    """The batch norms of a method.

    Attributes:
        axis_name: device axis over which statistics are shared; None: none.
        groups: groups of images with their own statistics on each device.
        parts: parts of a device's images that are encoded one after another.
    """

    axis_name: str | None = AXIS
    groups: int = 1
    parts: int = 1

    def of_all(self, **fields):
        """Returns a batch norm whose input are all images of a device."""
        return BatchNorm(self.axis_name, self.groups, **fields)

    def of_part(self, **fields):
        """Returns a batch norm whose input is one part of the images."""
        return BatchNorm(self.axis_name, self.groups // self.parts, **fields)

    def backbone(self):
        return TinyBackbone((4, 8), self.axis_name, self.groups // self.parts)


GLOBAL, PER_DEVICE = Norms(), Norms(None)


def simsiam(norms=GLOBAL, pairing="global_targets", num_local=2):
    encoder = Encoder(
        norms.backbone(),
        heads.simsiam_head(2, 8, DIM, norm=norms.of_part),
        norms.parts,
    )
    predictor = heads.simsiam_predictor(4, DIM, norms.of_part, parts=norms.parts)
    return SimSiam(encoder, predictor, sgd(), pair_weights(pairing, 2, num_local))


def moco(norms=GLOBAL, pairing="global_targets", num_local=2, backbone=None, **fields):
    backbone = backbone or norms.backbone()
    encoder = Encoder(backbone, heads.moco_head(8, DIM), norms.parts)
    weights = pair_weights(pairing, 2, num_local)
    fields = {
        "tx": sgd(),
        "queue_size": 64,
        "momentum": 0.9,
        "temperature": 0.2,
        "shuffle": False,
        "encode_unused_views": False,
    } | fields
    return MoCo(encoder, pair_weights=weights, **fields)


def moco_vit(norms=GLOBAL):
    """Returns MoCo with a vision transformer whose patches have a frozen projection."""
    vit = ViT(depth=1, heads=2, width=4, patch=4, frozen_patches=True)
    tx = optim.frozen(sgd(), PATCHES)
    return moco(norms, backbone=FoldedViews(vit), tx=tx)


def byol_encoder(norms):
    head = heads.byol_head(8, DIM, norm=norms.of_part)
    return Encoder(norms.backbone(), head, norms.parts)


def byol(norms=GLOBAL, pairing="global_targets", num_local=2, **fields):
    encoder = byol_encoder(norms)
    predictor = heads.simsiam_predictor(8, DIM, norms.of_part, parts=norms.parts)
    fields = {"momentum": optim.momentum_schedule(0.5, num_steps=8)} | fields
    weights = pair_weights(pairing, 2, num_local)
    return BYOL(encoder, predictor, sgd(), weights, **fields)


def swav(norms=GLOBAL, pairing="global_targets", num_local=2, **fields):
    encoder = byol_encoder(norms)
    weights = pair_weights(pairing, 2, num_local)
    fields = {
        "tx": sgd(),
        "num_prototypes": 6,
        "temperature": 0.1,
        "epsilon": 0.05,
        "iterations": 3,
        "queue_size": 0,
        "queue_start": 0,
    } | fields
    return SwAV(encoder, pair_weights=weights, **fields)


def freezing(steps):
    """Returns optimizers of SwAV that freeze the prototypes in the first steps."""
    rates = {"momentum": 0.9, "weight_decay": 1e-3}
    encoder = optim.lars(0.5, **rates)
    prototypes = optim.sgd(0.05, frozen_steps=steps, **rates)
    return optim.by_network({ENCODER: encoder, PROTOTYPES: prototypes})


def learned(norms=GLOBAL, **fields):
    fields = {"regressor": heads.Regressor(8, 2, norm=norms.of_all)} | fields
    return LearnedAffinity(tx=sgd(), **RELEASED | fields)


def optional(norms=GLOBAL):
    """Returns a learned affinity that differs from the released one in every option."""
    return learned(
        norms,
        loss=donsker_varadhan,
        noise_on="both",
        negatives="roll",
        regressor_norm="joint",
        both_orders=True,
    )


def logo(base, norms=GLOBAL, affinity=None, **fields):
    fields = {
        "update_kind": "released",
        "weight": 0.5,
        "clip_ratio": 0.3,
        "reset_norm": False,
        "steps_per_epoch": 1,
        "update_momentum_before_repel": False,
    } | fields
    return LoGo(
        base=base,
        affinity=affinity or learned(norms),
        repel_tx=sgd(optim.clipped_sgd),
        **fields,
    )


METHODS: dict[str, Callable[..., Method]] = {
    "simsiam": simsiam,
    "moco": moco,
    "moco_one_way": lambda **f: moco(pairing="one_way", **f),
    "moco_shuffled": lambda **f: moco(shuffle=True, **f),
    "simsiam_all_pairs": lambda **f: simsiam(pairing="all_pairs", **f),
    "moco_all_pairs": lambda **f: moco(pairing="all_pairs", **f),
    "byol": byol,
    "swav": swav,
    "swav_queue": lambda **f: swav(queue_size=2 * BATCH, tx=freezing(1), **f),
    "logo_simsiam": lambda **f: logo(simsiam(**f), **f),
    "logo_simsiam_joint": lambda **f: logo(simsiam(**f), update_kind="joint", **f),
    "logo_moco": lambda **f: logo(moco(**f), update_momentum_before_repel=True, **f),
    "logo_moco_joint": lambda **f: logo(moco(**f), update_kind="joint", **f),
    "logo_moco_vit": lambda **f: logo(moco_vit(**f), update_kind="joint", **f),
    "logo_byol": lambda **f: logo(byol(**f), **f),
    "logo_byol_joint": lambda **f: logo(byol(**f), update_kind="joint", **f),
    "logo_swav": lambda **f: logo(swav(**f), **f),
    "logo_swav_joint": lambda **f: logo(swav(**f), update_kind="joint", **f),
    "logo_every_option": lambda **f: logo(simsiam(**f), affinity=optional(**f), **f),
    "logo_cosine": lambda **f: logo(simsiam(**f), affinity=CosineAffinity(), **f),
}


def batch(seed=0):
    keys = jax.random.split(jax.random.key(seed))
    return Batch(
        jax.random.normal(keys[0], (BATCH, 2, 8, 8, 3)),
        jax.random.normal(keys[1], (BATCH, 2, 4, 4, 3)),
    )


@dataclasses.dataclass
class Trainer:
    """A method compiled for the first `num_devices` devices; counts its traces."""

    method: Method
    num_devices: int = 1
    traces: int = 0

    def __post_init__(self):
        def counted(state, examples, key):
            self.traces += 1
            return self.method.update(state, examples, key)

        self.mesh = make_mesh(jax.devices()[: self.num_devices])
        self.compiled = make_train_step(
            counted,
            lambda key, examples, epoch: examples,
            self.mesh,
            jax.random.split(jax.random.key(7)),
        )

    @functools.cached_property
    def first(self):
        return jax.device_get(jax.jit(self.method.init)(jax.random.key(1), batch()))

    def init(self):
        """Returns a copy of the first state; a step donates its state."""
        return replicate(self.first, self.mesh)

    def run(self, state, steps, start=0):
        metrics = {}
        for i in range(start, start + steps):
            examples = jax.device_put(batch(i), batch_sharding(self.mesh))
            state, metrics = self.compiled(state, examples, jnp.int32(0))
        return state, metrics


@functools.cache
def one_device(name):
    """Returns the trainer of a method on one device, which all tests share."""
    return Trainer(METHODS[name](norms=PER_DEVICE))
