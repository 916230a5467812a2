# Two commands to begin with: `make demo` and `make test`. Everything else is for those who change the code.
PYTHON ?= python3
VENV ?= .venv
DATA ?= data
BIN := $(VENV)/bin

.PHONY: setup demo test lint docs bench serve clean
.DEFAULT_GOAL := test

# The stamp makes the second run quick: the environment is made again only when what it is made of has changed.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

setup: $(VENV)/.installed

demo: setup
	$(BIN)/rec-engine demo

test: setup
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell src tests scripts benchmarks docs configs README.md CONTRIBUTING.md CHANGELOG.md

docs: setup
	$(BIN)/zensical build --strict

bench: setup
	$(BIN)/python benchmarks/quality.py --data $(DATA) --results results

serve: setup
	$(BIN)/rec-engine serve

clean:
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
