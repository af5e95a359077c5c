"""A backbone of the user's own: training, resuming, evaluating, embedding; refusals."""

import re

import jax
import numpy as np
import pytest

import logo_jax
from logo_jax import embed, main
from logo_jax.experiment import make_experiment
from logo_jax.parallel.mesh import make_mesh
from logo_jax.training import workdir
from tests.commands.test_main import fixture_arrays, run, tiny_config  # noqa: F401
from tests.data.pictures import write_folder
from tests.run_commands import evaluated

OWN = "tests.own_backbones:"
BACKBONES = {"linen": OWN + "ConvNeXt", "nnx": OWN + "NNXNet"}
VARIANTS = {"linen": "baseline", "nnx": "logo"}


def own_config(kind, arrays, **changes):
    changes = {"encoder.backbone": BACKBONES[kind]} | changes
    return tiny_config("cifar10_moco", VARIANTS[kind], arrays, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", BACKBONES)
def test_it_trains_resumes_and_is_evaluated_like_a_backbone_of_ours(
    kind, arrays, tmp_path
):
    config = own_config(kind, arrays)
    folder = tmp_path / "run"
    workdir.claim_workdir(folder, config.to_dict())
    with pytest.raises(KeyboardInterrupt):
        run(config, folder, until=3)
    resumed = run(config, folder)
    whole = run(config, tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    own = resumed.batch_stats["encoder"].get("backbone", {})
    assert bool(own) == (kind == "nnx")
    assert all(np.abs(x).min() > 0 for x in jax.tree.leaves(own))

    report = evaluated(folder, "--protocol=knn")
    assert report["encoder"] == "step 4"
    pictures = write_folder(tmp_path / "pictures", {"a": 2, "b": 1})
    out = tmp_path / "features.npz"
    sizes = ["--resize=12", "--crop=8"]
    embed.main([str(pictures), f"--workdir={folder}", f"--out={out}", *sizes])
    with np.load(out) as file:
        features = file["features"]
    encoder = logo_jax.load_encoder(folder, resize=12, crop=8)
    np.testing.assert_allclose(encoder(pictures), features, rtol=1e-5)
    assert features.shape == (3, 4 if kind == "linen" else 8)
    assert np.ptp(features, axis=0).max() > 1e-3


@pytest.mark.slow
def test_its_running_statistics_are_averaged_over_devices_and_seeds_are_apart(arrays):
    changes = {"seeds": 2, "running_stats": "globals", "train.num_steps": 2}
    changes["encoder.backbone"] = OWN + "nnx_net"  # a function, not the class
    config = own_config("nnx", arrays, **changes)
    experiment = make_experiment(config, make_mesh(jax.devices()[:2]))
    state = experiment.init()
    for examples, epoch in experiment.loader.batches(0, 2):
        state, _ = experiment.train_step(state, examples, epoch)
    for leaf in jax.tree.leaves(state.batch_stats):
        copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        np.testing.assert_array_equal(*copies)
        assert np.abs(copies[0][0] - copies[0][1]).max() > 1e-6  # of two seeds


REFUSED = {
    OWN + "missing": "cannot be imported: module 'tests.own_backbones' has no",
    "tests.missing:net": "cannot be imported: No module named 'tests.missing'",
    "os:sep": "is 'str', but must be the class of a Flax module, or a function",
    OWN + "MODULE": "is 'ConvNeXt', but must be the class of a Flax module, or a",
    OWN + "NNX_MODULE": "is 'Linear', but must be the class of a Flax module, or a",
    OWN
    + "with_a_depth": "raises TypeError: with_a_depth() missing 1 required positional",
    OWN + "a_function": "returns 'function', but must return a Linen module",
    OWN + "without_rngs": "returns 'NNXNet', but must return a Linen module; a "
    "function that returns an NNX module must take an argument rngs",
    OWN + "feature_map": "must map images [b, h, w, c] to features [b, f] with one f, "
    "but maps [8, 8, 8, 3] to [8, 8, 8, 4]; e.g. take the mean over pixels",
    OWN + "Dropping": "cannot encode images of 8x8 px: InvalidRngError: Dropout_0 "
    'needs PRNG for "dropout"',
    OWN + "NNXDropping": 'cannot encode images of 8x8 px: KeyError: "No RngStream '
    "named 'dropout' found in Rngs.\"; leave out dropout and stochastic depth: a ",
    OWN + "Caching": "has variables in cache, which are neither trained nor saved; ",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_backbone_that_cannot_be_used_is_refused_in_one_line(name, arrays):
    config = own_config("linen", arrays, **{"encoder.backbone": name})
    assert_refused(config, f"config.encoder.backbone={name!r} {REFUSED[name]}")


SIX = {
    "crops.global_crops": (2, 6, (0.4, 1.0)),
    "crops.local_crops": (2, 6, (0.1, 0.6)),
}


@pytest.mark.parametrize(
    ("changes", "sides"),
    [
        ({"crops.local_crops": SIX["crops.local_crops"]}, "8x8, 6x6"),
        ({"monitor.resize": 7, "monitor.crop": 6}, "8x8, 6x6"),
        (SIX, "6x6, 8x8"),  # the monitor's images are those of the arrays
    ],
)
def test_a_backbone_that_fits_one_size_is_refused_for_another(changes, sides, arrays):
    changes = {"encoder.backbone": OWN + "Flattening"} | changes
    config = own_config("nnx", arrays, **changes)
    fragment = f"Flattening' cannot encode images of {sides} px: ScopeParamShapeError"
    assert_refused(config, fragment)


def assert_refused(config, fragment):
    with pytest.raises(ValueError, match=re.escape(fragment)) as refused:
        make_experiment(config, make_mesh(jax.devices()[:1]))
    assert "\n" not in str(refused.value)


def test_a_refused_backbone_leaves_no_folder(arrays, tmp_path, capsys):
    folder = tmp_path / "run"
    given = {"data.source": "npz", "data.path": arrays, "data.batch_size": 8}
    given |= {"encoder.backbone": OWN + "feature_map"}
    fields = [f"--config.{name}={value}" for name, value in given.items()]
    with pytest.raises(SystemExit, match="2"):
        main.main(["--config=cifar10_simsiam", f"--workdir={folder}", *fields])
    (line,) = capsys.readouterr().err.splitlines()
    assert "must map images [b, h, w, c] to features [b, f]" in line
    assert not folder.exists()
