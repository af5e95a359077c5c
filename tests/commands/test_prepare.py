import re
import subprocess
import sys

import numpy as np
import pytest

from logo_jax import prepare
from logo_jax.data import datasets
from logo_jax.data.builders import imagenet100
from tests.data import prepared
from tests.data.conftest import (
    fixture_arrays,  # noqa: F401
    fixture_arrays_dir,  # noqa: F401
    fixture_data_dir,  # noqa: F401
)
from tests.data.pictures import decoded
from tests.data.tar import jpeg, tar_bytes, write_tar

FAILS_IF_TENSORFLOW_IS_IMPORTED = (
    "import sys; from logo_jax import prepare; "
    "sys.exit(prepare.main() or 3 * ('tensorflow' in sys.modules))"
)


def run(*arguments):
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_arrays_are_prepared_without_tensorflow(arrays, arrays_dir, tmp_path):
    done = run(
        *("-c", FAILS_IF_TENSORFLOW_IS_IMPORTED, "cifar10"),
        *(f"--data_dir={tmp_path}", f"--from_arrays={arrays_dir}"),
    )
    assert done.returncode == 0, done.stderr
    assert f"wrote cifar10 to {tmp_path / 'cifar10' / '3.0.2'}" in done.stdout
    _, labels = decoded(prepared.load("cifar10", "test", tmp_path))
    np.testing.assert_array_equal(np.sort(labels), np.sort(arrays["test"][1]))


def test_bad_input_is_told_in_one_line_and_exits_with_2(tmp_path):
    failed = run(
        *("-m", "logo_jax.prepare", "cifar10"),
        *(f"--data_dir={tmp_path}", f"--from_arrays={tmp_path / 'none'}"),
    )
    assert failed.returncode == 2
    (line,) = failed.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path / 'none'} is not a folder")


def test_what_is_prepared_already_is_left_alone(data_dir, capsys):
    prepare.main(["cifar10", f"--data_dir={data_dir}"])
    assert "already prepared" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["mnist"],
        [],
        ["cifar10", "--folder=x"],
        ["cifar10", "--list"],
        ["stl10", "--from_arrays=x"],
        ["stl10", "--classes=x"],
    ],
)
def test_a_wrong_command_line_is_told_in_one_line_and_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        prepare.main(arguments)
    assert exit_.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def error_of(capsys, *arguments):
    """The one line on stderr with which the command line refuses arguments."""
    with pytest.raises(SystemExit) as exit_:
        prepare.main(arguments)
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("name", ["food101", "coco", "oxford_iiit_pet"])
def test_a_stock_builder_without_tensorflow_names_the_extra(
    name, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("sys.path", [])  # where TensorFlow would be found
    line = error_of(capsys, name, f"--data_dir={tmp_path}")
    assert line.endswith(
        "only with TensorFlow, and read without: pip install 'logo_jax[prepare]'"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["imagenet2012", "imagenet100"])
def test_imagenet_s_archives_are_named_with_their_place(name, tmp_path, capsys):
    line = error_of(capsys, name, f"--data_dir={tmp_path}")
    assert "ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar must be downloaded" in line
    assert str(tmp_path / "downloads" / "manual") in line
    assert "https://image-net.org" in line


def place_imagenet(folder, classes, validation):
    """Archives of one training image a class, and of validation images by number."""
    manual = folder / "downloads" / "manual"
    inner = {f"{name}.tar": tar_bytes({f"{name}_1.JPEG": jpeg(9)}) for name in classes}
    write_tar(manual / "ILSVRC2012_img_train.tar", inner)
    images = {f"ILSVRC2012_val_{i:08d}.JPEG": jpeg(9) for i in validation}
    write_tar(manual / "ILSVRC2012_img_val.tar", images)


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        ([1598], "imagenet100: train must have 126689 examples, got 100"),
        ([], "imagenet100 cannot be prepared: .*No examples were yielded"),
    ],
)
def test_another_number_of_images_is_told_in_one_line_and_leaves_nothing(
    validation, message, tmp_path, capsys
):
    classes = imagenet100.read_classes(imagenet100.DEFAULT_CLASSES)
    place_imagenet(tmp_path, classes, validation)
    with pytest.raises(SystemExit) as exit_:
        prepare.main(["imagenet100", f"--data_dir={tmp_path}"])
    assert exit_.value.code == 2
    (line,) = (
        line for line in capsys.readouterr().err.splitlines() if "error:" in line
    )
    assert re.search(message, line)
    assert [path.name for path in tmp_path.iterdir()] == ["downloads"]


def test_imagenet_is_prepared_with_a_list_of_classes_and_keeps_to_it(tmp_path, capsys):
    wnid = "n01558993"
    file = tmp_path / "classes.txt"
    file.write_text(f"{wnid}\n")
    labels = imagenet100.validation_labels()
    numbers = [i for i, label in enumerate(labels, 1) if label == wnid]
    place_imagenet(tmp_path, [wnid], numbers)
    own = ["imagenet100", f"--data_dir={tmp_path}", f"--classes={file}"]
    prepare.main(own)
    assert "wrote imagenet100" in capsys.readouterr().out
    prepare.main(own)
    assert "already prepared" in capsys.readouterr().out
    loaded = prepared.load("imagenet100", "validation", tmp_path)
    assert len(loaded) == 50
    assert loaded.class_names == (wnid,)
    assert "other classes" in error_of(capsys, "imagenet100", f"--data_dir={tmp_path}")


def test_the_list_names_every_data_set_and_how_it_is_had(capsys):
    prepare.main(["--list"])
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["name", "images", "classes"]
    assert [line.split()[0] for line in lines] == list(datasets.DATASETS)
    (stl10,) = (line for line in lines if line.startswith("stl10"))
    assert stl10.split() == ["stl10", "113,000", "10", "top1", "downloaded"]
    (food101,) = (line for line in lines if line.startswith("food101"))
    assert food101.endswith("downloaded; needs logo_jax[prepare]")
