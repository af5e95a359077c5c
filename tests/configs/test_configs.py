"""Every config and variant: fields, methods, and compiled train steps."""

import functools
import importlib
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.configs import base
from logo_jax.data.loader import Examples
from logo_jax.experiment import make_spec, networks
from logo_jax.experiment.experiment import compiled_step
from logo_jax.methods import LearnedAffinity, LoGo, MoCo
from logo_jax.parallel.mesh import make_mesh, replicate
from tests.backbones import BACKBONE

FOLDER = pathlib.Path(base.__file__).parent
EXPERIMENTS = sorted(
    path.stem
    for path in FOLDER.glob("*.py")
    if not path.stem.startswith(("base", "__"))
)
MESH = make_mesh(jax.devices()[:1])
every_experiment = pytest.mark.parametrize("name", EXPERIMENTS)


def load(name, variant=""):
    return importlib.import_module(f"logo_jax.configs.{name}").get_config(variant)


def describe(config, steps_per_epoch=10):
    return make_spec(config, num_devices=1, steps_per_epoch=steps_per_epoch)


def compiled(spec):
    return compiled_step(spec, MESH)


def examples(batch_size, side):
    ids = np.arange(batch_size, dtype=np.int32)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, side, side, 3), np.uint8)
    sizes = np.full((batch_size, 2), side, np.int32)
    return Examples(*map(jnp.asarray, (images, sizes, ids))), np.int32(0)


def program(name):
    """What the step of a config is compiled from, without crop areas and data set."""
    config = load(name).to_dict()
    crops = {group: crops[:2] for group, crops in config.pop("crops").items()}
    for group in ("data", "train", "monitor"):  # of data, the batch size alone counts
        values = config.pop(group)
        crops |= {"batch_size": values["batch_size"]} if group == "data" else {}
    return json.dumps([crops, config])


# COCO's configs have the programs of ImageNet-100's, with other constants.
PROGRAMS = list({program(name): name for name in reversed(EXPERIMENTS)}.values())


# The first block of a stage differs from the second.
SHALLOW = {f"resnet{n}": {"stage_sizes": (2, 1)} for n in (18, 34, 50)}
SHALLOW |= {f"vit_{size}": {"depth": 1} for size in ("mini", "tiny", "small")}


@pytest.fixture(name="shallow")
def fixture_shallow(monkeypatch):
    """Backbones with a block of each kind, which are traced and lowered faster."""
    for name, few in SHALLOW.items():
        whole = networks.BACKBONES[name]
        monkeypatch.setitem(networks.BACKBONES, name, functools.partial(whole, **few))


@pytest.mark.slow
@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_train_step_of_a_config_lowers_for_other_platforms(name):
    spec = describe(load(name))
    state = jax.eval_shape(spec.init)
    size = spec.crops["global_crops"].size
    b = spec.config.data.batch_size
    inputs = Examples(
        jax.ShapeDtypeStruct((b, size, size, 3), jnp.uint8),
        jax.ShapeDtypeStruct((b, 2), jnp.int32),
        jax.ShapeDtypeStruct((b,), jnp.int32),
    )
    # The gradient of JAX's attention in bfloat16 promotes types, as is JAX's default.
    attends = spec.config.encoder.backbone.startswith("vit")
    with jax.numpy_dtype_promotion("standard" if attends else "strict"):
        traced = compiled(spec).trace(state, inputs, np.int32(0))
        lowered = traced.lower(lowering_platforms=("cuda", "tpu"))  # from this machine
    assert lowered.compiler_ir() is not None
    after, metrics = traced.out_info
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert metrics["loss"].shape == ()


NETWORKS = {"small AlexNet": "alexnet", "ResNet-18": "resnet18"}
NETWORKS |= {"ResNet-34": "resnet34", "ResNet-50": "resnet50"}
NETWORKS |= {"ViT-Tiny": "vit_tiny", "ViT-Small": "vit_small"}
DATA = {"CIFAR-10": "cifar10", "STL-10": "stl10", "ImageNet-100": "imagenet100"}
DATA |= {"COCO 2017 images": "coco", "a folder of your own images": ""}


@pytest.mark.parametrize("name", [x for x in EXPERIMENTS if x != "quickstart"])
def test_the_first_line_of_a_config_file_agrees_with_the_config(name):
    module = importlib.import_module(f"logo_jax.configs.{name}")
    config = load(name)
    title = module.__doc__.splitlines()[0]
    known = dict(NETWORKS | DATA)
    found = {words for words in known if words in title}
    assert {known[words] for words in found} == {
        config.encoder.backbone,
        config.data.name,
    }
    assert title.startswith(
        {"simsiam": "SimSiam", "moco": "MoCo", "byol": "BYOL", "swav": "SwAV"}[
            config.method.name
        ]
    )
    epochs = re.findall(r"(\d+) epochs", title)
    assert list(map(int, epochs)) == [config.train.num_epochs] * ("folder" not in name)
    for batch in re.findall(r"batch (\d+)", title):
        assert config.data.batch_size == int(batch)


@every_experiment
def test_a_config_file_states_the_main_numbers_of_the_experiment(name):
    text = (FOLDER / f"{name}.py").read_text()
    for field in (
        "data.batch_size",
        "crops.global_crops",
        "crops.local_crops",
        "encoder.backbone",
        "encoder.head_hidden",
        "encoder.embedding_dim",
        "optimizer.learning_rate",
        "optimizer.weight_decay",
        "batch_norm",
    ):
        assert f"    config.{field} = " in text, field
    for knob in load(name).method:
        if knob not in ("name", "encode_unused_views", "queue_start_epoch", "shuffle"):
            assert f"    config.method.{knob} = " in text, knob


@pytest.mark.parametrize("name", ["folder", "folder_moco"])
def test_configs_of_own_images_measure_knn_without_training(name):
    schedule = describe(load(name)).schedule
    assert schedule.trivial_baselines


@pytest.mark.parametrize("steps_per_epoch", [1, 70])  # 1: before the data are read
def test_a_warm_up_may_be_a_fraction_of_an_epoch_and_is_shorter_than_training(
    steps_per_epoch,
):
    config = load("cifar10_simsiam")
    config.train.num_epochs = 1
    for epochs in (0.6, 0.999):
        config.optimizer.warmup_epochs = epochs
        describe(config, steps_per_epoch)
    config.optimizer.warmup_epochs = 1.0
    with pytest.raises(
        ValueError, match="must be shorter than the training of 1 epochs"
    ):
        describe(config, steps_per_epoch)


@every_experiment
@pytest.mark.parametrize("variant", base.VARIANTS)
def test_every_variant_of_a_config_describes_a_method(name, variant):
    spec = describe(load(name, variant))
    wrapped = variant in ("logo", "released", "paper")
    assert isinstance(spec.method, LoGo) == wrapped
    local = spec.crops["local_crops"]
    assert local.count == (0 if variant.startswith("baseline") else 2)
    usual = 150 if name == "quickstart" else 200 * 10
    twice = variant == "baseline_400"
    assert spec.schedule.num_steps == usual * (2 if twice else 1)


# Compiling a step takes long, and the other configs at reduced size are the same as one
# of these with other numbers.
STEPPED = [
    name
    for name in EXPERIMENTS
    if name.startswith("cifar10") or name == "imagenet100_moco"
]


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPPED)
def test_a_config_at_reduced_size_takes_a_step(name):
    config = load(name)
    reduce(config)
    spec = describe(config)
    state = replicate(jax.jit(spec.init)(), MESH)
    before = jax.device_get(state.params["encoder"])
    step, inputs = compiled(spec), examples(config.data.batch_size, 16)
    after, _ = step(state, *inputs)
    # the learning rate of a warm-up's first step is 0
    after, metrics = step(after, *inputs)
    assert all(np.isfinite(value) for value in jax.device_get(metrics).values())
    moved = jax.tree.map(
        lambda a, b: bool(np.any(a != b)),
        before,
        jax.device_get(after.params["encoder"]),
    )
    assert any(jax.tree.leaves(moved))


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2])
def test_runs_with_different_seeds_have_the_same_programs(seeds):
    def programs(seed):
        config = load("cifar10_moco")
        reduce(config)
        config.seed, config.seeds = seed, seeds
        spec = describe(config)
        keys = spec.keys("parameters")
        first = jax.jit(spec.init)
        state = jax.eval_shape(first, keys)
        inputs, epoch = examples(config.data.batch_size, 16)
        if seeds > 1:
            inputs = jax.tree.map(lambda x: jnp.stack([x] * seeds), inputs)
        stepped = compiled(spec).trace(state, inputs, epoch)
        return [p.lower().as_text() for p in (first.trace(keys), stepped)]

    assert programs(0) == programs(5)


def reduce(config):
    """Reduces a config to small crops, a narrow network and a batch of eight.

    Changes of color, which take long to compile, are left out.
    """
    groups = (config.crops.global_crops, 12), (config.crops.local_crops, 8)
    config.crops.global_crops, config.crops.local_crops = (
        (crops[0], side, crops[2]) for crops, side in groups
    )
    config.augment.jitter_prob = config.augment.grayscale_prob = 0.0
    config.data.batch_size = 8
    config.encoder.backbone = BACKBONE
    config.encoder.width = 4
    config.encoder.head_hidden = config.encoder.embedding_dim = 8
    config.logo.regressor_width = 8
    if "queue_size" in config.method:
        config.method.queue_size = 16
    if "num_prototypes" in config.method:
        config.method.num_prototypes = 8


@pytest.mark.parametrize(
    ("batch_norm", "backbone", "may"),
    [
        ("split:8", "resnet18", True),
        ("global", "resnet18", False),
        ("split:8", "examples.own_backbone:Network", False),  # with its own batch norm
    ],
)
def test_the_parts_of_a_step_may_change_if_the_step_stays_the_same(
    batch_norm, backbone, may
):
    config = {"batch_norm": batch_norm, "encoder": {"backbone": backbone}}
    assert ("train.accumulate" in base.may_change(config)) == may


def test_released_has_all_settings_of_the_golden_run():
    method = describe(load("cifar10_moco", "released"), steps_per_epoch=195).method
    assert isinstance(method, LoGo)
    assert isinstance(method.base, MoCo)
    assert method.update_kind == "released"
    assert (method.clip_ratio, method.reset_norm) == (0.015, True)
    assert method.steps_per_epoch == 195
    assert method.update_momentum_before_repel
    assert method.base.running_stats == "all"
    base_method, affinity = method.base, method.affinity
    assert (base_method.queue_size, base_method.momentum) == (4096, 0.999)
    assert base_method.temperature == 0.07
    assert base_method.encode_unused_views
    assert base_method.shuffle
    assert isinstance(affinity, LearnedAffinity)
    assert affinity.loss.__name__ == "jensen_shannon"
    assert (affinity.noise, affinity.noise_on) == (0.3, "positives")
    assert (affinity.negatives, affinity.regressor_norm) == ("flip", "separate")
    assert (affinity.regressor.width, affinity.regressor.depth) == (256, 2)
    assert affinity.normalize
    assert not affinity.both_orders
    np.testing.assert_allclose(base_method.pair_weights.sum(), 1.0)


def test_paper_has_summed_pairs_and_a_joint_step_with_the_difference_loss():
    method = describe(load("cifar10_simsiam", "paper")).method
    assert isinstance(method, LoGo)
    assert isinstance(method.affinity, LearnedAffinity)
    assert (method.update_kind, method.weight) == ("joint", 1e-4)
    np.testing.assert_array_equal(
        method.base.pair_weights, [[0, 0.5], [0.5, 0], [1, 1], [1, 1]]
    )
    positive, negative = jnp.array([2.0]), jnp.array([1.0])
    difference = jax.nn.softplus(negative) - jax.nn.softplus(positive)
    np.testing.assert_allclose(
        method.affinity.loss(positive, negative), difference[0], rtol=1e-6
    )
    assert (method.affinity.negatives, method.affinity.noise_on) == ("roll", "none")


@every_experiment
def test_released_has_the_released_regressor_in_every_config(name):
    config = load(name, "released")
    method = describe(config).method
    assert isinstance(method, LoGo)
    assert isinstance(method.affinity, LearnedAffinity)
    assert (method.update_kind, method.clip_ratio) == ("released", 0.015)
    assert method.reset_norm
    assert method.steps_per_epoch == 10
    assert (
        config.optimizer.to_dict()
        | {
            "name": "sgd",
            "learning_rate": 0.03,
            "weight_decay": 1e-4,
            "schedule": "step",
            "warmup_epochs": 0.0,
        }
        == config.optimizer.to_dict()
    )
    assert method.affinity.regressor.width == 256
    assert method.affinity.regressor.depth == 2
    assert config.crops.local_crops[2] == (0.05, 0.4)
    assert config.batch_norm == "per_device"


def test_the_defaults_of_moco_are_those_of_its_notebook():
    method = describe(load("cifar10_moco", "multicrop")).method
    assert isinstance(method, MoCo)
    assert (method.queue_size, method.momentum, method.temperature) == (4096, 0.99, 0.1)
    assert not method.encode_unused_views


def test_the_schedule_of_the_regressor_is_a_separate_setting():
    rates = {}
    for schedule in ("constant", "cosine", "step"):
        config = load("cifar10_simsiam")
        config.logo.regressor_schedule = schedule
        method = describe(config).method
        assert isinstance(method, LoGo)
        assert isinstance(method.affinity, LearnedAffinity)
        rates[schedule] = [
            rate_after(method.affinity.tx, steps) for steps in (0, 1300, 1999)
        ]
    rate = 0.03 * 512 / 256
    np.testing.assert_allclose(rates["constant"], [rate] * 3, rtol=1e-5)
    np.testing.assert_allclose(rates["step"], [rate, rate / 10, rate / 100], rtol=1e-5)
    first, middle, last = rates["cosine"]
    assert first == pytest.approx(rate)
    assert rate > middle > last
    assert last < 1e-5


def rate_after(tx, steps):
    """The learning rate of a step: the first update for a gradient of 1."""
    params = {"x": jnp.zeros(())}
    state = tx.init(params)
    # the only integer in the state is the count of the schedule
    state = jax.tree.map(
        lambda leaf: jnp.full_like(leaf, steps) if leaf.dtype == jnp.int32 else leaf,
        state,
    )
    updates, _ = tx.update({"x": jnp.ones(())}, state, params)
    return -float(updates["x"])


@pytest.mark.parametrize(("optimizer", "kept"), [("sgd", 1 - 0.06 * 0.1), ("adamw", 1)])
def test_the_weight_decay_of_adamw_is_not_that_of_the_regressors_sgd(optimizer, kept):
    config = load("cifar10_moco")
    config.optimizer.name, config.optimizer.weight_decay = optimizer, 0.1
    config.logo.update_kind = "joint"
    tx = describe(config).method.affinity.tx
    params = jnp.ones(())
    updates, _ = tx.update(jnp.zeros(()), tx.init(params), params)
    np.testing.assert_allclose(params + updates, kept, rtol=1e-6)


def test_frozen_patches_are_frozen_in_every_optimizer_of_the_encoder():
    config = load("cifar10_vit_moco", "released")
    method = describe(config).method
    params = {"encoder": {"backbone": {"patches": jnp.ones(2), "norm": jnp.ones(2)}}}
    for tx, extra in ((method.base.tx, {}), (method.repel_tx, {"max_norm": 1.0})):
        zeros = jax.tree.map(jnp.zeros_like, params)
        updates, _ = tx.update(zeros, tx.init(params), params, **extra)
        found = updates["encoder"]["backbone"]
        np.testing.assert_array_equal(found["patches"], 0)
        assert np.all(found["norm"] < 0)  # weight decay


@pytest.mark.parametrize("frozen_epochs", [0.0, 0.4, 1.0])
def test_the_structure_of_a_state_does_not_depend_on_the_epoch_length(frozen_epochs):
    config = load("cifar10_swav")
    config.method.frozen_epochs = frozen_epochs
    states = [jax.eval_shape(describe(config, n).init) for n in (1, 97)]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])


def test_swav_style_has_the_crop_areas_of_the_supplement():
    crops = describe(load("imagenet100_simsiam", "swav_style")).crops
    assert crops["global_crops"].scale == (0.3, 1.0)
    assert crops["local_crops"].scale == (0.05, 0.3)


def test_two_global_and_six_local_crops_can_be_configured():
    config = load("cifar10_simsiam")
    config.crops.local_crops = (6, 16, (0.05, 0.3))
    spec = describe(config)
    assert isinstance(spec.method, LoGo)
    assert spec.method.base.pair_weights.shape == (8, 2)
    batch = jax.eval_shape(spec.make_batch, spec.keys("crops"), *examples(4, 32))
    assert batch.local_crops.shape == (4, 6, 16, 16, 3)
