PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: setup newest format check test test-slow quickstart docs colab

setup:
	$(PYTHON) -m venv $(VENV) && $(BIN)/pip install -q -e ".[dev]"

newest:
	$(BIN)/pip install -q --upgrade -e . jax flax optax orbax-checkpoint grain

format:
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/codespell *.md Makefile .github .ci benchmarks colabs docs examples logo_jax tests

test:
	$(BIN)/python -m pytest -n 2

test-slow:
	$(BIN)/python -m pytest -n 2 -m slow

quickstart:
	$(BIN)/python -m logo_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

colab:
	$(PYTHON) colabs/notebook.py

docs:
	$(BIN)/pip install -q -e ".[docs]"
	$(BIN)/mkdocs build --strict
