"""The address of the repository is set in all files by one command."""

import re
import shutil

import pytest

from docs.address import FILES, ROOT, set_address

BADGE = "https://colab.research.google.com/github/{}/blob/main/colabs/tour.ipynb"


@pytest.fixture(name="tree")
def fixture_tree(tmp_path):
    """A copy of the files that contain the address."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def owners(tree):
    text = "".join((tree / name).read_text() for name in FILES)
    return set(
        re.findall(r"/github(?:\.com)?/([\w.-]+/logo[\w.-]*?)(?=\.git|[/\")\s])", text)
    )


def test_an_address_replaces_the_present_one_everywhere_and_can_be_changed(tree):
    for name in ("me/logo_jax", "someone.else/logo-fork", "me/logo_jax"):
        set_address(f"https://github.com/{name}", tree)
        assert owners(tree) == {name}
        assert BADGE.format(name) in (tree / "README.md").read_text()
        for file in FILES:
            assert f"/{name}" in (tree / file).read_text()


@pytest.mark.parametrize("address", ["me/logo_jax", "https://github.com/me", "x"])
def test_what_is_no_address_is_refused_and_changes_nothing(address, tree):
    before = owners(tree)
    with pytest.raises(ValueError, match="must be like https"):
        set_address(address, tree)
    assert owners(tree) == before


def test_no_other_file_names_the_address():
    (owner,) = owners(ROOT)
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.*")]
    pages = [page for page in pages if page.suffix in (".md", ".sh", ".yaml")]
    files = [*pages, *(ROOT / ".github").rglob("*.yml"), ROOT / "mkdocs.yml"]
    found = {str(file.relative_to(ROOT)) for file in files if owner in file.read_text()}
    assert found <= set(FILES)
