"""The check of words finds every banned word and phrase."""

import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("codespell_lib", reason="codespell is not installed: .[dev] has it")

ROOT = pathlib.Path(__file__).parents[2]
ENTRIES = (ROOT / "docs" / "banned_words.txt").read_text().splitlines()
BANNED = [entry.partition("->")[0] for entry in ENTRIES]


def codespell(text):
    return subprocess.run(
        [sys.executable, "-m", "codespell_lib", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


def test_every_entry_of_the_list_is_found_in_a_text():
    """A phrase is found only if the regex in pyproject.toml names it, too."""
    texts = [f"Images {words} than others".replace(" :", ":") for words in BANNED]
    found = codespell("\n".join(texts))
    lines = found.stdout.splitlines()
    missed = [words for words in BANNED if not any(f"{words} ==>" in x for x in lines)]
    assert missed == []


def test_american_spelling_and_plain_words_pass_and_british_spelling_does_not():
    assert codespell("Returns the color of each pixel if it is known.").stdout == ""
    found = codespell("Returns the centre.").stdout  # codespell:ignore centre
    assert found.rstrip().endswith("==> center")
