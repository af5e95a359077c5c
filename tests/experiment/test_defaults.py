"""Fields that are chosen from the images and the memory when a run begins."""

import re
from typing import Any

import jax
import numpy as np
import pytest

import logo_jax
from logo_jax.configs import load
from logo_jax.configs.base import is_open
from logo_jax.data.load import load_arrays
from logo_jax.experiment import choosing, make_spec, memory, parse
from logo_jax.experiment.defaults import Facts, choose, open_fields
from logo_jax.parallel.mesh import make_mesh
from logo_jax.training import workdir
from tests.backbones import CHEAP

MANY = 10**6  # images of a step that fit


def chosen(facts, variant="logo", most=MANY, **fields):
    """The values of all fields by dotted name, after the open ones are chosen."""
    config = load(f"folder:{variant}", fields).to_dict()
    values, _ = choose(config, facts, lambda config: most)
    assert not open_fields(values)
    groups = {name: group for name, group in values.items() if isinstance(group, dict)}
    return {
        f"{g}.{name}": x for g, group in groups.items() for name, x in group.items()
    }


@pytest.mark.parametrize(
    ("short", "longest", "sides", "stem", "canvas"),
    [
        (20, 30, (32, 32), "cifar", 32),
        (32, 32, (32, 32), "cifar", 32),
        (64, 70, (64, 32), "cifar", 80),
        (96, 96, (64, 32), "cifar", 96),  # STL-10: 64 px in configs/stl10_simsiam.py
        (160, 200, (96, 48), "imagenet", 208),
        (256, 320, (160, 64), "imagenet", 320),
        (375, 500, (224, 96), "imagenet", 512),  # ImageNet: as in the paper
        (480, 640, (224, 96), "imagenet", 640),  # COCO
        (3000, 4000, (224, 96), "imagenet", 512),
    ],
)
def test_crops_and_network_follow_the_size_of_the_images(
    short, longest, sides, stem, canvas
):
    found = chosen(Facts(1000, short, longest))
    assert (found["crops.global_crops"][1], found["crops.local_crops"][1]) == sides
    assert found["crops.global_crops"][2] == (0.4, 1.0)
    assert found["encoder.stem"] == stem
    assert found["augment.blur_prob"] == (0.5 if stem == "imagenet" else 0)
    assert found["data.canvas"] == canvas
    assert found["monitor.crop"] == sides[0] <= found["monitor.resize"]


@pytest.mark.parametrize(
    ("count", "batch_size", "epochs"),
    [
        (2, 2, 1000),
        (10, 8, 1000),
        (100, 32, 1000),
        (1500, 128, 300),
        (20_000, 256, 200),
        (126_689, 256, 200),
        (1_281_167, 256, 39),
        (10_000_000, 256, 5),
        (100_000_000, 256, 1),
    ],
)
def test_the_length_follows_the_number_of_images(count, batch_size, epochs):
    found = chosen(Facts(count, 64, 64, bank=count, queries=count))
    assert found["data.batch_size"] == batch_size
    assert found["train.num_epochs"] == epochs
    steps = epochs * (count // batch_size)
    assert 1000 <= steps < 400_000
    assert 10 <= steps / found["monitor.knn_every_steps"] <= 40
    assert found["train.checkpoint_every_steps"] <= 1000
    assert 1 <= found["train.log_every_steps"] <= 20
    bank = min(count, 20_000)
    assert found["monitor.train_examples"] in (bank, 0)
    assert max(k for k, _ in found["monitor.knn"]) <= max(1, bank // 5)


def test_a_given_field_is_kept_and_the_others_follow_it():
    fields = {
        "crops.global_crops": (2, 96, (0.4, 1.0)),
        "data.batch_size": 16,
        "train.num_steps": 2,
        "monitor.knn": ((3, 0.1),),
        "train.checkpoint_every_steps": 7,
    }
    found = chosen(Facts(1500, 320, 400), **fields)
    assert {name: found[name] for name in fields} == fields
    assert found["crops.local_crops"][1] == 48
    assert (found["monitor.crop"], found["monitor.resize"]) == (96, 110)
    assert found["monitor.knn_every_steps"] == 25
    assert found["train.log_every_steps"] == 1
    epochs = chosen(Facts(1500, 320, 400), **{"data.batch_size": 16})
    assert epochs["train.num_epochs"] == 200  # 93 steps each
    with pytest.raises(ValueError, match="batch_size=-3 must be"):
        parse(load("folder", {"data.batch_size": -3}))


def test_a_variant_of_twice_the_epochs_has_twice_the_chosen_number():
    found = chosen(Facts(1500, 320, 400), "baseline_400")
    assert found["train.num_epochs"] == 600
    assert found["crops.local_crops"][0] == 0
    assert found["crops.global_crops"] == (2, 224, (0.2, 1.0))


@pytest.mark.parametrize(
    ("most", "unit", "batch_size"),
    [(200, 1, 128), (200, 3, 192), (1, 8, 16), (MANY, 96, 192), (70, 8, 64)],
)
def test_the_batch_fits_the_memory_and_the_devices(most, unit, batch_size):
    facts = Facts(10**5, 64, 64, unit=unit, fewest=2 * unit)
    assert chosen(facts, most=most)["data.batch_size"] == batch_size


def test_the_stem_is_that_of_starting_weights(tmp_path):
    assert chosen(Facts(100, 32, 32, stem="imagenet"))["encoder.stem"] == "imagenet"
    _, data = load_arrays(np.zeros((40, 32, 32, 3), np.uint8))
    workdir.claim_workdir(tmp_path / "run", load("cifar10_simsiam").to_dict())
    (tmp_path / "transformers").mkdir()  # it has a config.json, as a run has
    (tmp_path / "transformers" / "config.json").write_text('{"model_type": "resnet"}')
    (tmp_path / "transformers" / "model.safetensors").touch()
    for weights, stem in (
        ("a.safetensors", "imagenet"),
        ("run", "cifar"),
        ("transformers", "imagenet"),
    ):
        fields = {"data.source": "arrays", "encoder.weights": str(tmp_path / weights)}
        config = load("folder", fields | {"crops.global_crops": (2, 96, (0.4, 1.0))})
        mesh = make_mesh(jax.devices()[:1])
        values, _ = choosing.chosen(config.to_dict(), None, mesh, lambda: data)
        assert values["encoder"]["stem"] == stem


def test_a_queue_has_whole_batches_and_no_image_twice():
    fields = {"data.batch_size": -1, "method.queue_size": -1, "train.num_epochs": -1}
    config = load("cifar10_moco", fields | {"auto": True}).to_dict()
    for count, queue in ((100, 64), (10**5, 4096)):
        facts = Facts(count, 32, 32, unit=8, fewest=16)  # batch_norm=split:8
        values, found = choose(config, facts, lambda config: MANY)
        assert found["method.queue_size"] == queue
        assert list(found) == [
            "data.batch_size",
            "method.queue_size",
            "train.num_epochs",
        ]
        make_spec(values, num_devices=1, steps_per_epoch=3).check(1)


@pytest.mark.parametrize(
    ("variant", "count", "devices", "batch_size", "queue"),
    [
        # a step adds two batches of keys
        ("logo", 100, 1, 32, 64),
        ("logo", 40, 1, 32, 64),
        ("logo", 10**5, 1, 256, 4096),
        ("logo", 10**5, 3, 192, 3840),
        ("released", 100, 1, 32, 64),
        # a step adds one batch of keys
        ("baseline", 100, 1, 32, 96),
        ("baseline", 10**5, 3, 192, 4032),
    ],
)
def test_moco_on_a_folder_has_a_chosen_batch_and_a_queue_of_whole_steps(
    variant, count, devices, batch_size, queue
):
    config = load(f"folder_moco:{variant}").to_dict()
    unit = 8 * devices  # batch_norm=split:8
    facts = Facts(count, 64, 64, unit=unit, fewest=2 * unit)
    values, _ = choose(config, facts, lambda config: MANY)
    assert values["data"]["batch_size"] == batch_size
    assert values["method"]["queue_size"] == queue
    spec = make_spec(values, num_devices=devices)
    assert type(getattr(spec.method, "base", spec.method)).__name__ == "MoCo"
    spec.check(devices)


@pytest.mark.parametrize(
    ("held_out", "steps", "unused"),
    [(8, 0, ()), (8, 3, ("train.num_epochs",)), (0, 0, choosing.OF_KNN)],
)
def test_the_lines_about_what_was_chosen_leave_out_what_is_not_used(
    held_out, steps, unused
):
    pixels, labels = np.zeros((48, 32, 32, 3), np.uint8), np.arange(48) % 2
    _, data = load_arrays(pixels, labels, held_out)
    fields = {"data.source": "arrays", "train.num_steps": steps}
    config = load("folder_moco", fields).to_dict()
    mesh = make_mesh(jax.devices()[:1])
    _, text = choosing.chosen(config, None, mesh, lambda: data, memory=2.0**30)
    _, first, *_ = text.splitlines()
    assert first.startswith("  data.batch_size=")
    assert max(map(len, text.splitlines())) < 130
    stated = re.findall(r"(\w+\.\w+)=", text.partition("\n")[2])
    assert set(stated) == set(open_fields(config)) - set(unused)


def test_all_chosen_values_are_plain_and_a_config_with_them_describes_a_method():
    for count, short in ((2, 10), (100, 64), (1500, 320)):
        values, found = choose(
            load("folder").to_dict(), Facts(count, short, short), lambda config: MANY
        )
        make_spec(values, num_devices=1)
        assert not any(is_open(field, value) for field, value in found.items())


def test_the_estimate_of_memory_is_linear_in_the_pixels():
    spec = make_spec(load("folder").to_dict(), num_devices=1)
    small, large = (memory.forward_bytes(spec.encoder, side, 3) for side in (64, 128))
    assert 3.8 < large / small < 4.1  # the head does not depend on the pixels
    assert small > 64 * 64 * 3 * 4


@pytest.mark.slow
def test_a_run_stores_what_was_chosen_and_keeps_it_when_it_is_resumed(
    tmp_path, monkeypatch, capfd
):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (24, 8, 8, 3), np.uint8)
    fields = CHEAP | {"train.num_steps": 1}
    call: Any = {"config": "folder:baseline", "workdir": tmp_path / "run", **fields}
    run = logo_jax.pretrain(images, **call)
    printed = capfd.readouterr().err
    assert re.search(r"chosen for 24 images of about 8x8 px and [\d.e+]+ GiB", printed)
    assert "data.batch_size=16" in printed
    assert run.config["data"]["batch_size"] == 16
    assert run.config["crops"]["global_crops"] == (2, 32, (0.2, 1.0))
    assert not open_fields(run.config)
    monkeypatch.setattr(choosing, "usable_memory", lambda mesh: (1.0, ""))
    again = logo_jax.pretrain(images, **call)
    assert again.config == run.config
    printed = capfd.readouterr().err
    assert "resumed from step 1 of 1" in printed
    assert "chosen" not in printed
    area = {"crops.global_crops": (2, -1, (0.3, 1.0))}  # the side alone is open
    twice = r"train.epochs_factor: 1 -> 2\); .* --from=.*run --workdir=ANOTHER"
    for variant, changes, message in (
        ("baseline", {"data.batch_size": 8}, "data.batch_size: 16 -> 8"),
        ("baseline", area, r"crops.global_crops: \(2, 32, \(0.2, 1.0\)\) -> "),
        ("baseline_400", {}, twice),
    ):
        call["config"] = f"folder:{variant}"
        with pytest.raises(logo_jax.InputError, match=message):
            logo_jax.pretrain(images, **call, **changes)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("train.num_epochs", -1),
        ("data.batch_size", -1),
        ("encoder.stem", "auto"),
        ("monitor.knn", ()),
        ("crops.local_crops", (2, -1, (0.1, 0.4))),
    ],
)
def test_fields_are_left_open_only_if_the_config_permits_it(field, value):
    with pytest.raises(ValueError, match=rf"^config.{field}=.* must be"):
        parse(load("cifar10_simsiam", {field: value}))
    parse(load("cifar10_simsiam", {field: value, "auto": True}))


@pytest.mark.slow
def test_little_memory_gives_a_small_batch(monkeypatch):
    _, data = load_arrays(np.zeros((4000, 32, 32, 3), np.uint8))
    mesh = make_mesh(jax.devices()[:2])
    config = load("folder", {"data.source": "arrays"}).to_dict()
    sizes = []
    for memory_bytes in (2.0**40, 2.0**32, 2.0**20):
        monkeypatch.setattr(
            choosing, "usable_memory", lambda m, x=memory_bytes: (x, "")
        )
        values, _ = choosing.chosen(config, None, mesh, lambda: data)
        sizes.append(values["data"]["batch_size"])
    assert sizes[0] == 256
    assert 32 <= sizes[1] < 256
    assert sizes[2] == 2
