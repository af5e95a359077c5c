"""`report similarity`: learned affinity and cosine similarity of crops of images."""

import jax
import numpy as np
import pytest

from logo_jax import report
from logo_jax.data.sources.base import ArraySource
from logo_jax.data.sources.folder import load_unsplit_folder
from logo_jax.experiment import make_spec, pretrained
from logo_jax.methods.base import TrainState
from logo_jax.parallel.mesh import make_mesh
from logo_jax.training import workdir
from logo_jax.training.checkpoints.manager import CheckpointManager
from logo_jax.visualization import similarity
from tests.commands.test_main import tiny_config
from tests.commands.test_report import Page, refused
from tests.data.pictures import smooth, write_folder


@pytest.fixture(name="run", scope="module")
def fixture_run(tmp_path_factory):
    path = tmp_path_factory.mktemp("similar")
    images = np.stack([smooth(12, 12, seed=i) for i in range(24)])
    for split in ("train", "test"):
        np.savez(path / split, images=images, labels=np.arange(24) % 6)
    config = tiny_config("cifar10_moco", "logo", path)
    workdir.claim_workdir(path / "run", config.to_dict())
    state = jax.jit(make_spec(config, num_devices=1).init)()
    with CheckpointManager(path / "run" / "checkpoints") as checkpoints:
        checkpoints.save(5, state)
    return path / "run"


@pytest.fixture(name="judge", scope="module")
def fixture_judge(run):
    config = workdir.read_config(run)
    mesh = make_mesh(jax.devices()[:1])
    return similarity.AffinityScorer(pretrained.from_run(run, config, mesh))


@pytest.mark.slow
def test_both_figures_are_drawn_for_the_runs_images_or_other_images(
    run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(similarity, "NUM_PAIRS", 40)
    pictures = write_folder(
        tmp_path / "pictures", {"cat": 3, "dog": 2, "eel": 1, "fox": 1}
    )
    flags = ("similarity", f"--workdir={run}")
    for given, groups in (
        ([], "groups: 0, 1, 2, 3;"),
        ([f"--images={pictures}"], "groups: cat, dog, eel, fox;"),
    ):
        out = tmp_path / f"out{len(given)}"
        report.main([*flags, f"--out={out}", *given])
        page = Page(out)
        assert page.figures == ["similarity", "overlap"]
        assert groups in page.images[0][1]
        assert "step 5" in page.text
        assert (out / "overlap.png").stat().st_size > 1000
    assert "rank correlation" in capsys.readouterr().out
    assert "--overwrite" in refused(capsys, *flags, f"--out={out}")


@pytest.mark.parametrize(
    ("variant", "fields"),
    [("baseline", {}), ("logo", {"logo.affinity": "random"})],
    ids=["baseline", "random"],
)
def test_a_run_without_a_learned_affinity_is_refused(variant, fields):
    config = tiny_config("cifar10_moco", variant, "x", **fields)
    spec = make_spec(config, num_devices=1)
    state, mesh = TrainState(0, {}, {}, {}, {}), make_mesh(jax.devices()[:1])
    with pytest.raises(ValueError, match="has learned no affinity"):
        similarity.AffinityScorer(pretrained.FrozenEncoder(spec, state, mesh, "step 1"))


@pytest.mark.slow
def test_scores_do_not_depend_on_the_order_or_on_the_other_pairs(judge, monkeypatch):
    monkeypatch.setattr(similarity, "BATCH_SIZE", 4)
    images = ArraySource(
        np.stack([smooth(12, 12, seed=i) for i in range(8)]), origin="x"
    )
    crops = judge.cut(images, np.arange(8), 2, jax.random.key(0)).crops
    first, second = crops[:, 0], crops[:, 1]
    found = judge.scores(first, second)
    assert np.ptp(found.learned) > 0.001
    np.testing.assert_allclose(judge.scores(second, first), found, rtol=1e-4)
    turned = judge.scores(first[::-1], second[::-1])
    np.testing.assert_allclose(turned.learned[::-1], found.learned, rtol=1e-4)
    own = judge.scores(first, first)
    np.testing.assert_allclose(own.cosine, 1.0, rtol=1e-4)


def test_a_repeated_image_has_other_crops(judge):
    images = ArraySource(smooth(12, 12)[None], origin="x")
    cut = judge.cut(images, np.zeros(8, int), 2, jax.random.key(0))
    assert len(np.unique(cut.boxes.reshape(16, 4), axis=0)) > 10
    assert np.ptp(cut.crops, axis=(0, 1)).max() > 0.1


def test_groups_are_classes_or_images_if_there_are_no_classes(tmp_path):
    sizes = {"a": 12, "b": 2, "c": 1, "d": 1, "e": 1}
    names, rows = similarity.groups(
        load_unsplit_folder(write_folder(tmp_path / "classes", sizes))
    )
    assert names == ["a", "b", "c", "d"]
    assert len(set(rows[0])) == 10
    assert set(rows[1]) == {12, 13}
    assert set(rows[3]) == {15}
    blank = np.zeros((9, 4, 4, 3), np.uint8)
    names, rows = similarity.groups(ArraySource(blank, origin="x"))
    assert names == ["image 0", "image 2", "image 4", "image 6"]
    np.testing.assert_array_equal(rows, np.repeat([[0], [2], [4], [6]], 10, axis=1))
