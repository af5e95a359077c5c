"""Commands, files, links and code in the README and docs exist and work."""

import importlib
import importlib.util
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_losses_snippet_prints_the_shape_in_its_comment(capsys):
    (snippet,) = blocks("python")
    exec(snippet, {})
    printed = capsys.readouterr().out.strip()
    assert printed == re.findall(r"# (\(.*?\))", snippet)[-1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file(page):
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    relative = [link for link in links if "://" not in link]
    assert [link for link in relative if not (page.parent / link).exists()] == []


def test_the_results_of_the_readme_are_on_the_results_page():
    (section,) = re.findall(r"^## Results\n(.*?)^## ", README, re.DOTALL | re.MULTILINE)
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    page = (ROOT / "docs" / "results.md").read_text().splitlines()
    assert rows
    assert [row for row in rows if row not in page] == []


def test_every_config_named_in_the_readme_exists():
    named = re.findall(r"--config=(configs/\w+\.py)(?::(\w+))?", README)
    assert named
    for file, variant in named:
        module = file.removesuffix(".py").replace("/", ".")
        assert (
            importlib.import_module(f"logo_jax.{module}")
            .get_config(variant)
            .method.name
        )


def test_readme_and_docs_show_every_command_and_no_other():
    text = "".join(page.read_text() for page in PAGES)
    modules = set(re.findall(r"-m (logo_jax\.\w+)", text))
    commands = (
        "convert",
        "doctor",
        "embed",
        "evaluate",
        "main",
        "predict",
        "prepare",
        "report",
        "sweep",
    )
    assert modules == {f"logo_jax.{name}" for name in commands}
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_make_sets_up_as_the_readme_says():
    makefile = (ROOT / "Makefile").read_text()
    values = dict(re.findall(r"^(\w+) \??= (.*)$", makefile, re.MULTILINE))
    (recipe,) = re.findall(r"^setup:\n\t(.*)$", makefile, re.MULTILINE)
    for _ in values:  # a value may refer to another
        recipe = re.sub(r"\$\((\w+)\)", lambda name: values[name[1]], recipe)
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    assert f"{recipe} && .venv/bin/python -m pytest -n 2" in commands
