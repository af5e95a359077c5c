"""`logo_jax.evaluate`: its protocols on a tiny untrained encoder."""

import re
import shutil
import zlib

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from logo_jax import _cli, evaluate, protocols
from logo_jax.experiment import make_experiment, make_spec
from logo_jax.experiment.pretrained import FrozenEncoder
from logo_jax.parallel.mesh import make_mesh
from logo_jax.protocols.base import EvalResult
from logo_jax.protocols.linear_probe import RECIPES, chosen_recipe
from logo_jax.runs import evaluation
from logo_jax.training import workdir
from logo_jax.training.checkpoints.manager import CheckpointManager
from tests.commands.test_main import TINY, tiny_config
from tests.run_commands import evaluated

CONFIG = "configs/cifar10_simsiam.py:baseline"
FIELDS = {"monitor.crop": 0}
RESNET = FIELDS | {"encoder.backbone": "resnet10"}
PHOTOGRAPHS = {"data.source": "photographs", "data.path": ""}
KNN = ["knn/k3_t0.1/top1", "knn/k3_t0.1/top5"]


@pytest.fixture(name="arrays", scope="module")
def fixture_arrays(tmp_path_factory):
    """Three classes of different colors, which an untrained encoder can distinguish."""
    folder = tmp_path_factory.mktemp("arrays")
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 16)):
        labels = np.arange(count) % 3
        images = rng.integers(0, 40, (count, 8, 8, 3), dtype=np.uint8)
        images[np.arange(count), :, :, labels] += 200
        np.savez(folder / f"{split}.npz", images=images, labels=labels)
    return folder


@pytest.fixture(name="several", scope="module")
def fixture_several(arrays, tmp_path_factory):
    """The same images with multi-label labels of three classes."""
    folder = tmp_path_factory.mktemp("several")
    for split in ("train", "test"):
        with np.load(arrays / f"{split}.npz") as file:
            images, labels = file["images"], file["labels"]
        shown = np.where(np.arange(3) == labels[:, None], 1, -1)
        np.savez(folder / f"{split}.npz", images=images, labels=shown)
    return folder


@pytest.fixture(name="saved", scope="module")
def fixture_saved(arrays, tmp_path_factory):
    """A run's folder with a checkpoint, and its state."""
    return save_run(tmp_path_factory.mktemp("run"), arrays, FIELDS)


@pytest.fixture(name="resnet", scope="module")
def fixture_resnet(arrays, tmp_path_factory):
    """The same with a ResNet-10, whose weights other libraries can have."""
    return save_run(tmp_path_factory.mktemp("resnet"), arrays, RESNET)


def save_run(folder, arrays, fields):
    config = tiny_config("cifar10_simsiam", "baseline", arrays, **fields)
    workdir.claim_workdir(folder, config.to_dict())
    state = make_experiment(config, make_mesh(jax.devices()[:1])).init()
    with CheckpointManager(folder / "checkpoints") as checkpoints:
        checkpoints.save(7, state)
    return folder, state


@pytest.fixture(name="folder")
def fixture_folder(saved):
    return saved[0]


def test_knn_is_evaluated_with_other_neighbors_than_those_of_the_run(folder):
    report = evaluated(folder, "--knn=3,0.1;1,0.5")
    assert [name.rpartition("/")[0] for name in report["values"]][::2] == [
        "knn/k3_t0.1",
        "knn/k1_t0.5",
    ]
    assert report["settings"] == {"k, T": [[3, 0.1], [1, 0.5]]}
    assert report["values"][KNN[0]] == evaluated(folder)["values"][KNN[0]]


def test_a_report_has_the_values_and_everything_that_defines_them(folder, capsys):
    report = evaluated(folder)
    assert list(report["values"]) == KNN
    assert report["protocol"].startswith("knn")
    assert report["encoder"] == "step 7"
    assert report["splits"] == {"bank": 40, "queries": 16}
    assert report["layers"] == ["backbone"]
    assert report["settings"] == {"k, T": [[3, 0.1]]}
    assert report["resolution"] == {"resize": 0, "crop": 0}
    assert report["augmentation"] == "none"
    assert report["versions"]["jax"] == jax.__version__
    assert report["seconds"] > 0
    printed = capsys.readouterr().out
    assert f"{KNN[0]:32s} {report['values'][KNN[0]]:6.2f} %\n" in printed
    assert printed.splitlines()[-1].endswith("evaluations/knn-step_7.json")


def test_photographs_are_not_named_after_an_unused_data_set(saved):
    config = tiny_config("quickstart", "baseline", "", **FIELDS | PHOTOGRAPHS)
    spec = make_spec(config, num_devices=1)
    subject = FrozenEncoder(spec, saved[1], make_mesh(jax.devices()[:1]), "step 7")
    outcome = EvalResult("knn", {KNN[0]: 5.0}, {"queries": 3}, {})
    assert evaluation.as_report(subject, outcome, 1.0)["dataset"] == "photographs"


def test_trivial_baselines_include_the_untrained_encoder(folder):
    report = evaluated(folder, "--trivial_baselines")
    baselines = {k: v for k, v in report["values"].items() if k not in KNN}
    assert list(baselines) == [
        f"baseline/{name}" for name in ("raw pixels", "mean color", "untrained network")
    ]
    assert baselines["baseline/mean color"] == 100.0
    untrained = evaluated(folder, "--untrained")
    assert untrained["encoder"] == "untrained"
    assert untrained["values"][KNN[0]] == baselines["baseline/untrained network"]


def test_a_finished_linear_probe_is_not_trained_again(folder):
    flags = ("--protocol=linear", "--num_epochs=5", "--batch_size=8")
    first = evaluated(folder, *flags, "--learning_rate=3")
    assert first["splits"] == {"train": 40, "test": 16}
    assert first["settings"]["milestones"] == [3.0, 4.0]
    assert first["settings"]["learning_rate"] == 3
    assert first["augmentation"].startswith("random crops")
    name = "linear-moco-num_epochs_5-batch_size_8-learning_rate_3.0-step_7"
    assert (folder / "evaluations" / f"{name}.json").is_file()
    probe = folder / "linear" / name
    written = (probe / "metrics.jsonl").read_text()
    assert evaluated(folder, *flags, "--learning_rate=3")["values"] == first["values"]
    assert (probe / "metrics.jsonl").read_text() == written


def test_one_label_of_each_class_trains_the_default_of_the_recipe(folder, capsys):
    flags = ("--protocol=finetune", "--labels=1", "--num_epochs=2")
    report = evaluated(folder, *flags)
    assert report["splits"] == {"train": 3, "val": 0, "test": 16}
    assert list(report["values"]) == ["finetune/top1", "finetune/top5"]
    assert report["settings"]["learning_rate"] == 0.02
    assert report["settings"]["batch_size"] == 3
    printed = capsys.readouterr().out
    assert "the recipe's default, because each class has one labeled" in printed
    classifier = folder / "finetune" / "finetune-byol-labels_1-num_epochs_2-step_7"
    assert f"--classifier={classifier / 'classifier'}" in printed


def test_cached_features_are_probed_at_a_grid_of_settings(folder):
    report = evaluated(
        folder, "--protocol=linear", "--recipe=features", "--num_epochs=200"
    )
    assert report["splits"] == {"train": 32, "val": 8, "test": 16}
    assert np.shape(report["settings"]["val_top1"]) == (5, 3)
    assert report["values"]["linear/top1"] > 60
    assert report["values"]["linear/top5"] == 100


@pytest.mark.slow
def test_few_labels_are_the_bank_and_the_training_images(folder, capsys):
    # without --knn there are as many neighbors as labeled images, at most
    report = evaluated(folder, "--labels=1", "--labels_seed=2")
    assert report["splits"] == {"bank": 3, "queries": 16}
    assert report["settings"] == {"k, T": [[3, 0.1]]}
    assert report["labels"]["per_class"] == [1, 1]
    assert len(report["labels"]["indices"]) == 3
    line = "labels: 3 of 40 images, 1 of each of 3 classes (labels_seed=2)"
    assert line in capsys.readouterr().out
    flags = ("--protocol=linear", "--labels=0.5", "--num_epochs=2")
    probed = evaluated(folder, *flags)
    assert probed["splits"]["train"] == 19
    assert probed["settings"]["batch_size"] == 16  # on four devices
    gridded = evaluated(folder, *flags, "--recipe=features")
    assert gridded["splits"] == {"train": 16, "val": 3, "test": 16}
    assert gridded["labels"] == probed["labels"]


@pytest.mark.slow
def test_transfer_holds_out_a_fifth_and_reports_the_metric_asked_for(folder):
    report = evaluated(folder, "--protocol=transfer", "--metric=mean_per_class")
    assert report["splits"] == {"train": 32, "val": 8, "test": 16}
    assert report["values"]["transfer/mean_per_class"] > 60
    assert report["settings"]["strength"] in report["settings"]["strengths"]
    assert len(report["settings"]["strengths"]) == 45
    assert report["settings"]["converged"] is True


def test_multi_label_images_are_evaluated_by_svm_only(folder, several, capsys):
    report = evaluated(folder, "--protocol=svm", f"--dataset={several}")
    assert report["splits"] == {"train": 40, "test": 16}
    assert report["values"]["svm/map"] > 60
    assert report["dataset"] == str(several)
    with pytest.raises(SystemExit, match="2"):
        evaluated(folder, "--protocol=transfer", f"--dataset={several}")
    assert "use --protocol=svm" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        evaluated(folder, "--protocol=svm")
    assert "use logistic" in capsys.readouterr().err


def torchvision_tensors(backbone):
    """Returns the tensors of a backbone with torchvision's names, without `interop`."""
    names = {"kernel": "weight", "scale": "weight", "mean": "running_mean"}
    names |= {"var": "running_var", "bias": "bias"}
    tensors = {"fc.weight": np.ones((3, 4)), "bn1.num_batches_tracked": np.array(3)}
    for path, value in jax.tree.leaves_with_path(backbone):
        *layers, leaf = (entry.key for entry in path[1:])
        name = ".".join(layers).replace("_0", ".0")
        name = name.replace("downsample_conv", "downsample.0")
        name = name.replace("downsample_bn", "downsample.1")
        value = np.asarray(value)
        if value.ndim == 4:
            value = np.ascontiguousarray(value.transpose(3, 2, 0, 1))
        tensors[f"{name}.{names[leaf]}"] = value
    return tensors


@pytest.fixture(name="weights")
def fixture_weights(resnet, arrays, tmp_path):
    """Flags that evaluate the run's backbone from a file, and the tensors for it."""
    state = resnet[1]
    groups = {"params": state.params, "batch_stats": state.batch_stats}
    tensors = torchvision_tensors(
        {name: group["encoder"]["backbone"] for name, group in groups.items()}
    )
    assert {"conv1.weight", "layer4.0.downsample.1.running_var"} <= tensors.keys()
    fields = TINY | RESNET | {"data.path": arrays}
    del fields["crops.local_crops"]
    flags = [f"--config={CONFIG}", f"--weights={tmp_path / 'w.safetensors'}"]
    return [*flags, *(f"--config.{k}={v}" for k, v in fields.items())], tensors


@pytest.mark.slow
def test_a_file_with_torchvisions_names_is_the_same_encoder(resnet, weights, tmp_path):
    folder, (flags, tensors) = resnet[0], weights
    save_file(tensors, tmp_path / "w.safetensors")
    report = evaluated(folder, *flags)
    assert report["values"] == evaluated(folder)["values"]
    crc = zlib.crc32((tmp_path / "w.safetensors").read_bytes())
    assert report["encoder"] == f"w.safetensors, crc32 {crc:08x}"
    evaluated(folder, *flags, "--config.augment.mean=(0.5,0.5,0.5)")
    assert len(list((folder / "evaluations").glob("knn-w.safetensors*"))) == 2


@pytest.mark.slow
def test_files_of_one_name_and_other_content_have_probes_of_their_own(
    resnet, weights, tmp_path
):
    folder, (flags, tensors) = resnet[0], weights
    flags += ["--protocol=linear", "--num_epochs=3", "--batch_size=8"]
    save_file(tensors, tmp_path / "w.safetensors")
    first = evaluated(folder, *flags)
    save_file(tensors | {"fc.weight": np.zeros((3, 4))}, tmp_path / "w.safetensors")
    again = evaluated(folder, *flags)
    assert again["encoder"] != first["encoder"]
    assert len(list((folder / "linear").glob("*w.safetensors*"))) == 2


def test_data_sets_in_folders_of_one_name_have_reports_of_their_own(
    folder, arrays, tmp_path
):
    for parent in "ab":
        shutil.copytree(arrays, tmp_path / parent / "images")
        evaluated(folder, f"--dataset={tmp_path / parent / 'images'}")
    assert len(list((folder / "evaluations").glob("knn-images_*-step_7.json"))) == 2


@pytest.mark.parametrize(
    ("flags", "resolution"),
    [
        (["--crop=6"], {"resize": 6, "crop": 6}),
        (["--crop=6", "--resize=7"], {"resize": 7, "crop": 6}),
        ([], {"resize": 0, "crop": 0}),
    ],
)
def test_transfer_crops_the_whole_short_side_by_default(flags, resolution, folder):
    flags = ["--protocol=transfer", *flags]
    assert evaluated(folder, *flags)["resolution"] == resolution


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("layer1.0.conv1.weight", None, "has no layer1.0.conv1.weight"),
        ("layer5.0.conv1.weight", np.ones(3), "has layer5.0.conv1.weight, which"),
        ("conv1.weight", np.ones((8, 3, 7, 7)), r"conv1.weight has shape \(8, 3, 7, 7"),
    ],
)
def test_a_file_of_another_network_is_refused_in_one_line(
    name, change, message, folder, weights, tmp_path, capsys
):
    flags, tensors = weights
    tensors = {k: v for k, v in (tensors | {name: change}).items() if v is not None}
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(SystemExit, match="2"):
        evaluated(folder, *flags)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--weights=x"], "--weights=FILE and --config=FILE.py must be given together"),
        (
            ["--weights=x", f"--config={CONFIG}", "--untrained"],
            "does not read --weights",
        ),
        (["--protocol=nope"], "--protocol"),
        (["--protocol=linear", "--batch_size=4000"], "exceeds the 40 training images"),
        (["--knn=41,0.1"], "k=41 in monitor.knn exceeds the 40 examples of the bank"),
        (["--knn=41,0.1"], "or --knn=20,0.07 of evaluate"),
        (
            ["--knn=20"],
            "'20' must be pairs K,T separated by ;, such as '20,0.07;",
        ),
        (["--knn=3,0"], "config.monitor.knn=((3, 0.0),) must be pairs (neighbors >= 1"),
        (["--protocol=svm", "--knn=3,0.1"], "--knn is not an option of --protocol=svm"),
        (["--protocol=linear", "--learning_rate=-1"], "learning_rate=-1"),
        (["--num_epochs=3"], "--num_epochs is not an option of --protocol=knn"),
        (["--labels=14"], "--labels=14 exceeds the 13 labeled images of class 1 in"),
        (["--labels=1.5"], "--labels=1.5 must be a fraction of the labels of each"),
        (["--labels_seed=1"], "--labels_seed=1 needs --labels"),
        (
            ["--protocol=linear", "--recipe=features", "--labels=1"],
            "each class has one labeled image, so that none can be held out",
        ),
        (
            ["--protocol=finetune", "--recipe=features"],
            "recipe='features' must be one of byol, simclr, moco",
        ),
        (["--dataset=nowhere"], "nowhere is not prepared"),
        (
            ["--recipe=moco"],
            "--recipe is not an option of --protocol=knn with --recipe=moco",
        ),
        (["--protocol=linear", "--num_epochs=0"], "whole number, 1 or more"),
        (
            ["--config.seed=1"],
            "--config.FIELD=VALUE needs --config; the folder of a run has its own",
        ),
        (["--flagfile=nowhere"], "--flagfile=nowhere cannot be read"),
    ],
)
def test_wrong_flags_end_with_one_line(flags, message, folder, capsys):
    with pytest.raises(SystemExit, match="2"):
        evaluated(folder, *flags)
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_the_flagfile_of_table_6_selects_its_protocol():
    flagfile = "--flagfile=configs/evaluation/imagenet1k_linear.flags"
    for given in ([flagfile], flagfile.split("=")):
        options = evaluate._parser().parse(["--workdir=x", *given])
        assert options.protocol == "linear"
        assert options.dataset == "imagenet2012"
        assert chosen_recipe(_cli.given(options, protocols.OPTIONS)) == RECIPES["moco"]


def test_flags_after_a_flagfile_override_it(tmp_path):
    file = tmp_path / "my flags"
    file.write_text("# a comment\n\n  --protocol=linear\n--config.data.path=/a b\n")
    arguments = ["--workdir=x", f"--flagfile={file}", "--protocol=svm"]
    options = evaluate._parser().parse(arguments)
    assert options.protocol == "svm"
    assert options.fields == {"data.path": "/a b"}
