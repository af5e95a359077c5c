"""`logo_jax.report` writes a self-contained page that names what is omitted."""

import base64
import html.parser
import io
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from logo_jax import report
from logo_jax.data.sources.base import ArraySource
from logo_jax.experiment import make_spec
from logo_jax.experiment.experiment import some_of
from logo_jax.parallel.mesh import make_mesh
from logo_jax.training import workdir
from logo_jax.training.checkpoints.manager import CheckpointManager
from logo_jax.training.logging.metric_writer import MetricWriter
from logo_jax.visualization import run_figures, run_report
from logo_jax.visualization.run_crops import crop_examples
from logo_jax.visualization.run_figures import EvalImages
from tests.commands.test_main import tiny_config
from tests.data.pictures import smooth

FIELDS = {"monitor.resize": 0}
CURVES = {"knn", "loss", "health", "throughput"}
SEEN = {"crops", "neighbours", "features"}  # codespell:ignore neighbours
MEASURED = {
    "loss": 1.5,
    "regressor_loss": float("nan"),
    "health/rank": 3.0,
    "health/std": 0.5,
    "grad_norm": 1.0,
    "images_per_second": 10.0,
}


def make_run(folder, arrays, variant="logo", **changes):
    """Writes the folder of a run of three steps, without training; returns its path."""
    config = tiny_config("cifar10_moco", variant, arrays, **FIELDS, **changes)
    workdir.claim_workdir(folder, config.to_dict())
    workdir.record_machine(folder, make_mesh(jax.devices()[:1]))
    with MetricWriter(folder, resume_step=0) as writer:
        for step in (1, 2, 3):
            writer.write(step, MEASURED)
        writer.write(3, {"knn/k3_t0.1/top1": 40.0})
    return folder


@pytest.fixture(name="arrays", scope="module")
def fixture_arrays(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arrays")
    for split, count in (("train", 24), ("test", 10)):
        images = np.stack([smooth(12, 12, seed=i) for i in range(count)])
        np.savez(folder / split, images=images, labels=np.arange(count) % 3)
    return folder


@pytest.fixture(name="run", scope="module")
def fixture_run(arrays, tmp_path_factory):
    """A run with a checkpoint, and with HTML and math characters in its name."""
    folder = make_run(tmp_path_factory.mktemp("runs") / "a <b> & $c", arrays)
    config = workdir.read_config(folder)
    state = jax.jit(make_spec(config, num_devices=1).init)()
    with CheckpointManager(folder / "checkpoints") as checkpoints:
        checkpoints.save(3, state)
    return folder


class Page(html.parser.HTMLParser):
    """Contents of a page: figures, images, references and text."""

    def __init__(self, folder):
        super().__init__()
        self.figures, self.images, self.references = [], [], []
        self.tags, self.words = set(), []
        self.source = (folder / "index.html").read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.add(tag)
        self.references += [attributes[x] for x in ("src", "href") if x in attributes]
        if tag == "figure":
            self.figures.append(attributes["id"])
        if tag == "img":
            self.images.append((attributes["src"], attributes["alt"]))

    def handle_data(self, data):
        self.words.append(data)


def written(capsys, out, *arguments):
    """Runs the command and returns the page that it writes."""
    report.main([*map(str, arguments), f"--out={out}"])
    assert str(out / "index.html") in capsys.readouterr().out
    return Page(out)


def refused(capsys, *arguments):
    """Returns the one line on stderr of a command that ends with exit code 2."""
    with pytest.raises(SystemExit, match="2"):
        report.main(list(map(str, arguments)))
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.slow
def test_a_page_has_every_figure_and_is_self_contained(run, tmp_path, capsys):
    out = tmp_path / "page"
    page = written(capsys, out, run, "--config=configs/cifar10_moco.py")
    assert set(page.figures) == CURVES | SEEN
    assert len(page.images) == len(page.figures)
    for name, (source, alt) in zip(page.figures, page.images, strict=True):
        head, data = source.split(",")
        assert head == "data:image/png;base64"
        png = base64.b64decode(data, validate=True)
        assert png == (out / f"{name}.png").read_bytes()
        with Image.open(io.BytesIO(png)) as image:
            image.load()
            assert min(image.size) > 100
            assert len(image.convert("L").getcolors()) > 10  # the figure is not blank
        assert len(alt) > 30
    assert all(x.startswith(("data:", "#")) for x in page.references)
    assert "script" not in page.tags
    assert "url(" not in page.source
    assert "@import" not in page.source
    assert "a <b> & $c" in page.text
    assert "encoder.width 64 4" in page.text  # values of the recipe and of the run
    assert jax.__version__ in page.text
    assert "1 x cpu" in page.text


@pytest.mark.slow
def test_figures_without_their_data_are_omitted_with_a_reason(
    run, arrays, tmp_path, capsys
):
    bare = make_run(tmp_path / "bare", arrays, "baseline")  # no local crops
    workdir.record_data(bare, {})  # other images than those of the report
    page = written(capsys, tmp_path / "1", bare)
    assert set(page.figures) == CURVES | {"crops"}
    assert "has no checkpoint yet" in page.text
    assert "the data have changed since the start of the run (queries: " in page.text
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    config = json.loads((moved / "config.json").read_text())
    config["data"]["path"] = str(tmp_path / "gone")
    (moved / "config.json").write_text(json.dumps(config))
    page = written(capsys, tmp_path / "2", moved)
    assert set(page.figures) == CURVES
    assert page.text.count(f"{tmp_path / 'gone'}") > 1
    (moved / "metrics.jsonl").unlink()
    page = written(capsys, tmp_path / "3", moved, "--no_images")
    assert not page.figures
    assert "Nothing has been measured yet" in page.text


def test_runs_share_their_curves_and_are_compared(arrays, tmp_path, capsys):
    one = make_run(tmp_path / "one", arrays)
    two = make_run(tmp_path / "two", arrays, "baseline", seed=7)
    page = written(capsys, tmp_path / "out", one, two)
    assert set(page.figures) == CURVES | {"run1-crops", "run2-crops"}
    assert "seed 0 7" in page.text
    assert "logo.update_kind released none" in page.text
    assert "encoder.width 4 4" not in page.text
    together = [alt for _, alt in page.images if "Last values" in alt]
    assert len(together) == len(CURVES)
    assert all("(one)" in alt and "(two)" in alt for alt in together)


def test_photographs_are_not_named_after_an_unused_data_set(tmp_path):
    changes = {"data.source": "photographs", "data.path": ""}
    config = tiny_config("quickstart", "logo", "", **changes).to_dict()
    run = run_report.RunRecord("run", tmp_path, config, rows=[], machine={})
    assert run_report.facts_of(run)["data"] == "photographs"


def test_results_of_evaluations_are_a_table(arrays, tmp_path, capsys):
    folder = make_run(tmp_path / "one", arrays)
    assert not run_report.evaluated(run_report.read_runs([folder]))
    result = {"values": {"finetune/top1": 62.5}, "encoder": "step 3", "dataset": "d"}
    result |= {"labels": {"images": 45, "seed": 2}}
    (folder / "evaluations").mkdir()
    file = folder / "evaluations" / "finetune-byol-step_3.json"
    file.write_text(json.dumps(result))
    page = written(capsys, tmp_path / "out", folder, "--no_images")
    row = "finetune-byol-step_3 step 3 d 45 (seed 2) finetune/top1 62.50 %"
    assert row in page.text
    file.write_text("{")
    assert "step_3.json is damaged" in refused(capsys, folder, "--no_images")


def test_bad_input_is_reported_in_one_line(run, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    flags = (run, "--no_images")
    assert "config.json" in refused(capsys, tmp_path)
    assert "not the folder of a run" in refused(capsys, tmp_path / "none")
    assert "--overwrite" in refused(capsys, *flags, f"--out={tmp_path / 'there'}")
    assert "once" in refused(capsys, run, run)
    out = f"--out={tmp_path / 'new'}"
    assert "no.py" in refused(capsys, *flags, out, "--config=no.py")
    wrong = "--config=configs/cifar10_moco.py:wrong"
    assert "wrong" in refused(capsys, *flags, out, wrong)
    assert not (tmp_path / "new").exists()


def test_crops_show_the_pixels_of_their_boxes(arrays):
    plain = dict.fromkeys(
        [f"augment.{x}_prob" for x in ("flip", "jitter", "grayscale", "blur")], 0.0
    )
    config = tiny_config("cifar10_moco", "logo", arrays, **FIELDS, **plain)
    spec = make_spec(config, num_devices=1)
    images = np.stack([smooth(64, 48, seed=i) for i in range(5)])
    examples = some_of(ArraySource(images, origin="x"), spec)
    for example in crop_examples(spec, examples):
        assert example.image.shape == (*example.size, 3) == (64, 48, 3)
        crops = [*example.global_crops, *example.local_crops]
        for box, crop in zip(example.boxes.astype(int), crops, strict=True):
            top, left, height, width = box
            inside = example.image[top : top + height, left : left + width] / 255
            np.testing.assert_allclose(
                crop.mean((0, 1)), inside.mean((0, 1)), atol=0.02
            )


def test_no_image_is_its_own_neighbor():
    features = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    images = np.arange(20, dtype=np.uint8)[:, None, None, None].repeat(3, axis=-1)
    bank = EvalImages(images, features, np.arange(20, dtype=np.int32))
    asked = EvalImages(*(x[[3, 9]] for x in bank))
    mesh = make_mesh(jax.devices()[:1])
    found = run_figures.nearest(asked, bank, mesh, in_bank=True)
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    order = np.argsort(-units[[3, 9]] @ units.T, axis=1)
    np.testing.assert_array_equal(found.labels, order[:, 1:9])
    np.testing.assert_array_equal(found.images[..., 0].squeeze(), order[:, 1:9])
    whole = run_figures.nearest(asked, bank, mesh, in_bank=False)
    np.testing.assert_array_equal(whole.labels, order[:, :8])
