"""Configs and sweeps are found by name from any folder and are part of the wheel."""

import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

import logo_jax
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


@pytest.mark.parametrize("name", ["", "quickstar", "../main", "/quickstart"])
def test_the_error_for_an_unknown_name_lists_all_names(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=re.escape(repr(name))) as raised:
        configs.find(name)
    assert "quickstart, stl10_moco" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "name", ["base", "configs/base_folder.py", str(configs.FOLDER / "__init__.py")]
)
def test_a_file_that_experiments_share_is_no_config(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="give an experiment") as raised:
        configs.find(name)
    assert str(raised.value).startswith(name)
    pathlib.Path("base.py").touch()  # a file of the user
    assert configs.find("base.py") == pathlib.Path("base.py")


def test_a_sweep_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_path = spec.read("configs/sweeps/stl10_crop_ratio.py")
    assert spec.read("sweeps/stl10_crop_ratio") == by_path


def test_no_config_imports_from_the_working_directory():
    for file in configs.FOLDER.rglob("*.py"):
        assert "from configs" not in file.read_text(), file


def test_wheel_and_sdist_have_every_file_of_the_package_and_no_others(tmp_path):
    source = tmp_path / "source"
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "logo_jax", source / "logo_jax", ignore=unwanted)
    manifest = re.findall(r"\S+\.\w+", (ROOT / "MANIFEST.in").read_text())
    extra = ["pyproject.toml", "README.md", "LICENSE", *manifest]
    for name in (*extra, "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    code = "from setuptools import build_meta as b; b.build_wheel('..'); "
    line = [sys.executable, "-c", code + "b.build_sdist('..')"]
    subprocess.run(line, cwd=source, check=True, capture_output=True)
    files = [file for file in (source / "logo_jax").rglob("*") if file.is_file()]
    expected = sorted(file.relative_to(source).as_posix() for file in files)
    (wheel,) = tmp_path.glob("*.whl")
    packed = [n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n]
    assert sorted(packed) == expected
    assert "logo_jax/py.typed" in packed
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        packed = {x.name.partition("/")[2] for x in archive if x.isfile()}
    written = {"MANIFEST.in", "PKG-INFO", "setup.cfg"}
    packed = {name for name in packed if ".egg-info/" not in name} - written
    assert packed == {*expected, *extra}


def test_a_clone_has_a_link_to_the_configs_at_the_top():
    assert (ROOT / "configs").samefile(configs.FOLDER)


def test_all_files_state_the_same_version():
    """That of the newest section of the changelog with a date."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    released = re.findall(
        r"^## \[(\d\S+)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    assert project["version"] == logo_jax.__version__ == released[0][0]
    assert f'version: {released[0][0]}\ndate-released: "{released[0][1]}"' in citation
