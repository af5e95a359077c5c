"""Configs and sweeps are found by name from any folder and are part of the wheel."""

import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from logo_jax import configs
from logo_jax.sweeps import spec

QUICKSTART = configs.FOLDER / "quickstart.py"
ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
    "name", ["quickstart", "quickstart.py", "configs/quickstart.py", str(QUICKSTART)]
)
def test_a_config_is_found_by_name_and_by_path_from_any_folder(
    name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()  # a folder, such as a run's, is not a config
    assert configs.find(name) == QUICKSTART


def test_a_file_of_the_user_is_preferred_to_a_config_of_the_package(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    own = pathlib.Path("configs/quickstart.py")
    own.touch()
    assert configs.find("configs/quickstart.py") == own
    assert configs.find("quickstart") == QUICKSTART


@pytest.mark.parametrize(
    "name", ["", "quickstar", "../main", "__init__", "/quickstart"]
)
def test_the_error_for_an_unknown_name_lists_all_names(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=re.escape(repr(name))) as raised:
        configs.find(name)
    assert "quickstart, stl10_moco" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_sweep_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_path = spec.read("configs/sweeps/stl10_crop_ratio.py")
    assert spec.read("sweeps/stl10_crop_ratio") == by_path


def test_no_config_imports_from_the_working_directory():
    for file in configs.FOLDER.rglob("*.py"):
        assert "from configs" not in file.read_text(), file


def test_a_wheel_has_every_file_of_the_package_and_no_others(tmp_path):
    source = tmp_path / "source"
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "logo_jax", source / "logo_jax", ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    code = "from setuptools import build_meta as b; b.build_wheel('..')"
    line = [sys.executable, "-c", code]
    subprocess.run(line, cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = [n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n]
    files = [file for file in (source / "logo_jax").rglob("*") if file.is_file()]
    assert sorted(packed) == sorted(
        file.relative_to(source).as_posix() for file in files
    )
    assert "logo_jax/py.typed" in packed


def test_a_clone_has_a_link_to_the_configs_at_the_top():
    assert (ROOT / "configs").samefile(configs.FOLDER)
