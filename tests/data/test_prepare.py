import subprocess
import sys

import numpy as np
import pytest

from logo_jax import prepare
from logo_jax.data import tfds_source

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
    labels = tfds_source.load("cifar10", "test", tmp_path).labels
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


@pytest.mark.parametrize("arguments", [["mnist"], [], ["cifar10", "--folder=x"]])
def test_a_wrong_command_line_is_told_in_one_line_and_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        prepare.main(arguments)
    assert exit_.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
