# Two commands do everything on a fresh machine, each with its own set-up: `make demo` and `make test`.
# A second call is instant: .venv is rebuilt only when pyproject.toml changes.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
MADE   := $(VENV)/.made
RUN    := $(VENV)/.runtime-installed
DEV    := $(VENV)/.dev-installed
# Not compiled here: Python does that with what is imported, a quarter of it.
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet install --no-compile

.PHONY: help demo test lint format types bench test-gpu test-lowest clean

help:
	@echo "make demo       set up, then tell the whole story on a built-in network that FP16 breaks"
	@echo "make test       set up, then run the tests"
	@echo "make lint       ruff check and ruff format --check      make format  apply both"
	@echo "make types      pyright"
	@echo "make bench      measure against the peers; reports/     (BENCH='--help' for its options)"
	@echo "make test-gpu   the tests that need an NVIDIA GPU"
	@echo "make test-lowest  the tests with the oldest dependencies pyproject.toml allows"

$(MADE): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("probe needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] + ": try make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@echo "setting up $(VENV) (once)" >&2
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(RUN): $(MADE)
	@$(PIP) --editable .
	@touch $@

$(DEV): $(MADE)
	@$(PIP) --editable '.[dev]'
	@touch $(RUN) $@

demo: $(RUN)
	@$(BIN)/probe demo

test: $(DEV)
	@$(BIN)/python -m pytest -n auto

lint: $(DEV)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(DEV)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(DEV)
	@$(BIN)/pyright

# Most of the time is compiling on the CPU: many processes share the GPU.
test-gpu: $(DEV)
	@$(PIP) --editable '.[cuda]'
	@$(BIN)/python -m pytest -m gpu -n auto --maxprocesses 16 --dist worksteal

# Benchmarks run alone: nothing else on the machine, no xdist.
bench: $(DEV)
	@$(BIN)/python tests/bench/record_and_compare.py $(BENCH)

test-lowest:
	@rm -rf $(VENV)-lowest
	@$(PYTHON) -m venv $(VENV)-lowest
	@$(VENV)-lowest/bin/python -m pip --quiet --quiet install --no-compile --constraint tests/lowest.txt --editable '.[dev]'
	@$(VENV)-lowest/bin/python -m pytest -n auto

clean:
	rm -rf $(VENV) $(VENV)-lowest build dist .pytest_cache .ruff_cache .hypothesis
