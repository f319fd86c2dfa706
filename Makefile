# make setup      .venv with the package (as a built wheel) and everything tests and linters need
# make demo       a made-up 67 megapixel scene, stylised; prints which files to look at
# make test       the quick tests, against the installed wheel
# make test-slow  every test
# make lint       ruff, mypy and shellcheck
# make bench      the tables of benchmarks/README.md
# make storm      kills, damaged files and crafted files by the thousand, with counts; goes on where it was stopped
#
# Knobs: PYTHON=python3.12  JOBS=4 (pytest processes)  PYTEST='-k geometry'
#        KILLS=1000  DAMAGE=20000  CRAFTED=500  SEED=1  STORM='--seconds 300' (of make storm)

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := setup
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,\
	$(shell $(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))))
JOBS ?= 2
PYTEST ?=
KILLS ?= 1000
DAMAGE ?= 20000
CRAFTED ?= 500
SEED ?= 1
STORM ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq

# Folders count too: their time tells that a file went away.
SOURCES := $(shell find urst_tiles -name __pycache__ -prune -o -print) pyproject.toml LICENSE $(wildcard README.md)

SCRIPTS := .ci/run pipelines/demo.sh pipelines/slurm.sbatch

.PHONY: setup demo test test-slow lint bench storm clean

setup: $(VENV)/.wheel

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "setup: no Python 3.11 or newer found; install one (apt install python3 python3-venv) or name it: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "setup: $(PYTHON) cannot make a virtual environment (no ensurepip); install it: apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.wheel: $(VENV)/.made $(SOURCES) constraints.txt
	@echo "setup: building the wheel and installing it into $(VENV)"
	@rm -rf $(VENV)/wheel
	@$(PIP) wheel --no-deps --wheel-dir $(VENV)/wheel -c constraints.txt .
	@$(PIP) install -c constraints.txt "$$(echo $(VENV)/wheel/*.whl)[train,test,dev]"
	@$(PIP) install --no-deps --force-reinstall $(VENV)/wheel/*.whl
	@touch $@

demo: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" pipelines/demo.sh

# PYTHONSAFEPATH: neither the current folder nor a script's goes onto sys.path, in the tests' child processes too, so
# that `import urst_tiles` finds the wheel or nothing.
test test-slow storm: export PYTHONSAFEPATH := 1

test: setup
	@$(BIN)/pytest -n $(JOBS) -m "not slow" $(PYTEST)

test-slow: setup
	@$(BIN)/pytest -o faulthandler_timeout=3600 $(PYTEST)

lint: setup
	@status=0; $(BIN)/ruff check . || status=1; $(BIN)/ruff format --check . || status=1; $(BIN)/mypy || status=1; \
	$(BIN)/shellcheck $(SCRIPTS) || status=1; exit $$status

bench: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" python benchmarks/run.py

storm: setup
	@$(BIN)/python tests/storm --kills $(KILLS) --damage $(DAMAGE) --crafted $(CRAFTED) --seed $(SEED) --state storm $(STORM)

clean:
	rm -rf $(VENV) demo storm .pytest_cache .mypy_cache .ruff_cache .hypothesis
