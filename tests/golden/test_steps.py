"""Training trajectories equal those of the reference implementations."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.methods import LearnedAffinity, LoGo, MoCo, SimSiam
from logo_jax.methods.base import TrainState
from logo_jax.methods.pairing import pair_weights
from logo_jax.networks import heads
from logo_jax.networks.encoder import Encoder
from logo_jax.parallel.mesh import make_mesh, replicate
from logo_jax.training import optim
from tests.contracts import cases
from tests.golden import tiny
from tests.golden import torch_names as names

# Relative to an array's largest entry, after all steps. The differences are rounding:
# if our step is computed in float64, the float32 references differ from it by up to
# 5.6e-6 and our float32 step by up to 3.7e-6; with other sizes of SimSiam's networks
# and batches, our float32 and float64 steps differ by up to 1.3e-5. Without weight
# decay, the smallest error that was tried, the difference is 4.6e-4.
TOLERANCE = 5e-5

RELEASED = {
    "moco_steps.npz": "one_way",
    "moco_multicrop_steps.npz": "global_targets",
    "moco_logo_steps.npz": "global_targets",
}
JOINT = ("moco_logo_joint_steps.npz", "simsiam_logo_joint_steps.npz")


def load(name):
    if not (names.DATA / name).exists():
        pytest.skip(f"LOGO_GOLDEN_DIR={names.DATA} has no {name}")
    return names.load(name)


def config_of(golden):
    return {
        key: value.tolist() for key, value in names.under(golden, "config/").items()
    }


def sgd_of(config, make=optim.sgd):
    return make(
        config["lr"], momentum=config["momentum"], weight_decay=config["weight_decay"]
    )


def backbone_of(golden, prefix):
    first = golden[f"{prefix}0.weight"]
    return tiny.TinyBackbone((first.shape[0], golden[f"{prefix}3.weight"].shape[0]))


def released_state(golden, at):
    """Returns the state from a released file, which has no optimizer state."""
    tensors = names.under(golden, f"{at}/")
    networks = {
        "encoder": names.encoder(
            names.under(tensors, "encoder_q/"), backbone="f.", head="fc."
        ),
        "key_encoder": names.encoder(
            names.under(tensors, "encoder_k/"), backbone="f.", head="fc."
        ),
        "regressor": mlp(names.under(tensors, "regressor/mlp.")),
    }
    return state_of(networks) | {
        "queue": tensors["queue"].T,
        "cursor": tensors["queue_ptr"][0].astype(np.int32),
    }


def mlp(tensors):
    params, stats = names.sequential(tensors)
    return {"mlp": params}, {"mlp": stats}


def joint_state(golden, at):
    tensors = names.under(golden, f"{at}/")
    networks = {
        "encoder": names.encoder(
            names.under(tensors, "encoder/"), backbone="0.", head="1."
        ),
        "regressor": mlp(names.under(tensors, "regressor/")),
    }
    if "queue" not in tensors:
        predictor = names.sequential(names.under(tensors, "predictor/"))
        return state_of(networks | {"predictor": predictor})
    networks["key_encoder"] = names.encoder(
        names.under(tensors, "key_encoder/"), backbone="0.", head="1."
    )
    return state_of(networks) | {"queue": tensors["queue"].T}


def state_of(networks):
    return {
        "params": {name: params for name, (params, _) in networks.items()},
        "batch_stats": {name: stats for name, (_, stats) in networks.items()},
    }


def place(state: TrainState, reference, mesh):
    """Returns the state with the reference's parameters, statistics and queue."""
    params, stats = reference["params"], reference["batch_stats"]
    memory = {"key_encoder": params.get("key_encoder")} | reference
    placed = state.replace(
        params={name: params[name] for name in state.params},
        batch_stats={name: stats[name] for name in state.batch_stats},
        memory={name: memory.get(name, old) for name, old in state.memory.items()},
    )
    assert jax.tree.structure(placed) == jax.tree.structure(state)
    return replicate(placed, mesh)


def assert_follows(state: TrainState, reference):
    ours = {
        "params": state.params
        | {k: v for k, v in state.memory.items() if k == "key_encoder"},
        "batch_stats": state.batch_stats,
    } | {k: v for k, v in state.memory.items() if k in ("queue", "cursor")}
    expected = {
        "params": {k: reference["params"][k] for k in ours["params"]},
        "batch_stats": {k: reference["batch_stats"][k] for k in ours["batch_stats"]},
    } | {k: reference.get(k, ours[k]) for k in ours if k in ("queue", "cursor")}
    for (path, got), want in zip(
        jax.tree.leaves_with_path(ours), jax.tree.leaves(expected), strict=True
    ):
        assert_close(got, want, jax.tree_util.keystr(path))


def assert_close(got, want, what, scale=1e-2):
    error = np.abs(np.asarray(got) - want).max()
    scale = max(np.abs(want).max(), scale)
    assert error <= TOLERANCE * scale, (
        f"{what}: error is {error / scale:.1e} of its largest entry"
    )


def follow(method, golden, read, noise_of, metric_names):
    """Runs and checks every step of a golden file, given its crops and noise."""
    mesh = make_mesh(jax.devices()[:1])
    batch = tiny.stack_crops(golden, 0)
    first = jax.jit(method.init)(jax.random.key(0), batch)
    state = place(first, read(golden, "init"), mesh)

    def update(state, batch, key, noise):
        if not isinstance(method, LoGo):
            return method.update(state, batch, key)
        affinity = dataclasses.replace(method.affinity, given=noise)
        return dataclasses.replace(method, affinity=affinity).update(state, batch, key)

    compiled = tiny.compile_update(update, mesh)
    steps = golden["config/steps"].item()
    for i in range(steps):
        state, metrics = compiled(state, tiny.stack_crops(golden, i), noise_of(i))
        assert_follows(state, read(golden, f"step{i + 1}"))
        for theirs, ours in metric_names.items():
            if f"metric/{theirs}" in golden:
                # A mean of cosines may cancel, so the scale is that of a cosine, 1.
                value = golden[f"metric/{theirs}"][i]
                assert_close(metrics[ours], value, theirs, scale=1.0)


@pytest.mark.parametrize("name", RELEASED)
def test_released_moco_is_followed_step_by_step(name):
    golden = load(name)
    config = config_of(golden)
    hidden = golden["init/encoder_q/fc.0.weight"].shape[0]
    encoder = Encoder(
        backbone_of(golden, "init/encoder_q/f."), heads.moco_head(hidden, config["dim"])
    )
    num_local = 2 if "crops0/local1" in golden else 0
    method = MoCo(
        encoder,
        sgd_of(config),
        pair_weights(RELEASED[name], 2, num_local),
        queue_size=config["queue"],
        momentum=config["momentum_encoder"],
        temperature=config["temperature"],
        shuffle=False,
        encode_unused_views=True,
    )
    if "noise0/q" in golden:
        method = LoGo(
            base=method,
            affinity=affinity_of(config),
            repel_tx=sgd_of(config, optim.clipped_sgd),
            update_kind="released",
            weight=0.0,
            clip_ratio=config["clip_ratio"],
            reset_norm=False,
            steps_per_epoch=1,
            update_momentum_before_repel=True,
        )

    def noise_of(i):
        if "noise0/q" not in golden:
            return jnp.zeros((config["batch"],))
        return released_noise(golden, config, i)

    metric_names = {
        "Loss": "loss",
        "Loss_g": "loss_global_global",
        "Loss_l": "loss_local_global",
        "Regressor_max": "repulsion",
    }
    follow(method, golden, released_state, noise_of, metric_names)


@dataclasses.dataclass(frozen=True)
class GivenNoise(LearnedAffinity):
    """Learned affinity with the reference's noise instead of random noise."""

    given: Any = None

    def draw_noise(self, key, shape):
        del key
        assert self.given.shape == shape
        return self.given


def affinity_of(config):
    regressor = heads.Regressor(config["regressor_hidden"], depth=2)
    return GivenNoise(regressor, sgd_of(config), **cases.RELEASED)


def released_noise(golden, config, i):
    noise = np.stack([golden[f"noise{i}/q"], golden[f"noise{i}/k"]])
    return jnp.asarray(noise * config["noise_scale"], jnp.float32)[:, None]


def test_official_simsiam_is_followed_step_by_step():
    golden = load("simsiam_steps.npz")
    config = config_of(golden)
    rates = {
        "encoder": lambda count: jnp.asarray(config["lr_encoder"])[count],
        "predictor": config["lr_predictor"],
    }
    tx = optim.by_network(
        {name: sgd_of(config | {"lr": rate}) for name, rate in rates.items()}
    )
    hidden = golden["init/encoder.fc.0.weight"].shape[0]
    method = SimSiam(
        Encoder(
            backbone_of(golden, "init/encoder.f."),
            heads.simsiam_head(3, hidden, config["dim"]),
        ),
        heads.simsiam_predictor(config["pred_dim"], config["dim"]),
        tx,
        pair_weights("symmetric", 2, 0),
    )

    def read(golden, at):
        tensors = names.under(golden, f"{at}/")
        params, stats = names.encoder(tensors, "encoder.f.", "encoder.fc.")
        without_frozen_bias(
            params, stats, passes=2 * int(at.strip("step") or 0) if at != "init" else 0
        )
        predictor = names.sequential(names.under(tensors, "predictor."))
        return state_of({"encoder": (params, stats), "predictor": predictor})

    follow(method, golden, read, lambda i: jnp.zeros((8,)), {"loss": "loss"})


def without_frozen_bias(params, stats, passes):
    """Drops the projector's last bias, which the official code freezes.

    The following batch norm subtracts the bias again. Only its running mean depends on
    the bias, by the fraction that its passes have updated.
    """
    bias = params["head"]["fc2"].pop("bias")
    norm = stats["head"]["bn2"]
    norm["mean"] = norm["mean"] - bias * np.float32(1 - 0.9**passes)


@pytest.mark.parametrize("name", JOINT)
def test_the_joint_update_is_followed_step_by_step(name):
    golden = load(name)
    config = config_of(golden)
    weights = pair_weights("global_targets", 2, 2)
    tx = sgd_of(config)
    backbone = backbone_of(golden, "init/encoder/0.")
    hidden = golden["init/encoder/1.0.weight"].shape[0]
    if name.startswith("moco"):
        encoder = Encoder(backbone, heads.moco_head(hidden, config["dim"]))
        base = MoCo(
            encoder,
            tx,
            weights,
            queue_size=config["queue"],
            momentum=config["momentum_encoder"],
            temperature=config["temperature"],
            shuffle=False,
            encode_unused_views=False,
        )
    else:
        encoder = Encoder(backbone, heads.simsiam_head(2, hidden, config["dim"]))
        predictor = heads.simsiam_predictor(config["predictor_hidden"], config["dim"])
        base = SimSiam(encoder, predictor, tx, weights)
    method = LoGo(
        base=base,
        affinity=affinity_of(config),
        repel_tx=tx,
        update_kind="joint",
        weight=config["repulsion_weight"],
        clip_ratio=0.0,
        reset_norm=False,
        steps_per_epoch=1,
        update_momentum_before_repel=False,
    )

    def noise_of(i):
        noise = np.stack([golden[f"noise{i}/{side}"] for side in (1, 2)])
        return jnp.asarray(noise)[:, None]

    metric_names = {
        "loss": "loss",
        "global_global": "loss_global_global",
        "local_global": "loss_local_global",
        "local_local": "repulsion",
        "regressor": "regressor_loss",
    }
    follow(method, golden, joint_state, noise_of, metric_names)
