"""Converts tour.py to the notebook tour.ipynb.

python colabs/notebook.py

A line `# %%` begins a code cell and `# %% [markdown]` a text cell, as in Jupytext,
Spyder and VS Code.
"""

import json
import re
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("tour.py")
NOTEBOOK = SCRIPT.with_suffix(".ipynb")
METADATA = {
    "colab": {"toc_visible": True},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def convert(script: str) -> str:
    """Returns the notebook of a script, as the text of an .ipynb without outputs."""
    _, *parts = re.split(r"^# %%", script, flags=re.MULTILINE)
    cells = [_cell(i, *part.split("\n", 1)) for i, part in enumerate(parts)]
    notebook = {
        "cells": cells,
        "metadata": METADATA,
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _cell(number: int, mark: str, text: str) -> dict[str, Any]:
    text, name = text.strip("\n"), f"cell-{number:02d}"
    if mark.strip() == "[markdown]":
        text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
        cell = {"cell_type": "markdown", "id": name, "metadata": {}}
    else:
        cell = {"cell_type": "code", "execution_count": None, "id": name}
        cell |= {"metadata": {}, "outputs": []}
    return cell | {"source": text.splitlines(keepends=True)}


if __name__ == "__main__":
    NOTEBOOK.write_text(convert(SCRIPT.read_text(encoding="utf-8")), encoding="utf-8")
