# make setup      .venv with the package (as a built wheel) and everything tests and linters need
# make demo       a made-up 67 megapixel scene, stylised; prints which files to look at
# make test       the quick tests, against the installed wheel; those of the studio's page need Chromium, which is
#                 installed first where apt can do it, and are skipped without it
# make test-slow  every test
# make lint       ruff, mypy and shellcheck
# make bench      the tables of benchmarks/README.md
# make constraints  the hashes in constraints.txt anew, for the versions in it
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

.PHONY: setup demo browser test test-slow lint bench storm constraints clean

setup: $(VENV)/.wheel

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "setup: no Python 3.11 or newer found; install one (apt install python3 python3-venv) or name it: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "setup: $(PYTHON) cannot make a virtual environment (no ensurepip); install it: apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# Packages that build others come first, and builds see no others: else pip would fetch some for each build, unchecked.
BUILDERS := flit_core|setuptools|setuptools-download|pkgconfig|cffi|pycparser

# The entries of constraints.txt (each with its lines of hashes) whose first line is for awk's pattern $(1).
entries = awk '/^[^ \#]/ { wanted = $(1) } wanted' constraints.txt

$(VENV)/.packages: $(VENV)/.made constraints.txt
	@echo "setup: installing the packages of constraints.txt into $(VENV), each checked against its hash"
	@$(call entries,/^($(BUILDERS))==/) > $(VENV)/builders.txt
	@$(call entries,!/^torch==/) > $(VENV)/hashed.txt
	@$(PIP) install --require-hashes --no-deps --only-binary :all: -r $(VENV)/builders.txt
	@$(PIP) install --require-hashes --no-deps --no-build-isolation -r $(VENV)/hashed.txt
	@$(PIP) install "$$(grep '^torch==' constraints.txt)"
	@touch $@

# --no-index: everything is there by now, and what is not in constraints.txt is an error.
$(VENV)/.wheel: $(VENV)/.packages $(SOURCES)
	@echo "setup: building the wheel and installing it into $(VENV)"
	@rm -rf $(VENV)/wheel
	@$(PIP) wheel --no-deps --no-build-isolation --no-index --wheel-dir $(VENV)/wheel .
	@$(PIP) install --no-index "$$(echo $(VENV)/wheel/*.whl)[train,test,dev]"
	@$(PIP) install --no-index --no-deps --force-reinstall $(VENV)/wheel/*.whl
	@touch $@

demo: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" pipelines/demo.sh

# PYTHONSAFEPATH: neither the current folder nor a script's goes onto sys.path, in the tests' child processes too, so
# that `import urst_tiles` finds the wheel or nothing.
test test-slow storm: export PYTHONSAFEPATH := 1

# For the tests of the studio's page. Without it they are skipped, or fail where CI=true.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { \
		[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "test: installing Chromium" && apt-get -qq update && \
		DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium >/dev/null; \
	} || echo "test: there is no Chromium, so the studio's page is not tested (apt install chromium)" >&2

test: setup browser
	@$(BIN)/pytest -n $(JOBS) --dist worksteal -m "not slow" $(PYTEST)

test-slow: setup browser
	@$(BIN)/pytest -o faulthandler_timeout=3600 $(PYTEST)

lint: setup
	@status=0; $(BIN)/ruff check . || status=1; $(BIN)/ruff format --check . || status=1; $(BIN)/mypy || status=1; \
	$(BIN)/shellcheck $(SCRIPTS) || status=1; exit $$status

bench: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" python benchmarks/run.py

storm: setup
	@$(BIN)/python tests/storm --kills $(KILLS) --damage $(DAMAGE) --crafted $(CRAFTED) --seed $(SEED) --state storm $(STORM)

# Not after setup, which fails while a version and its hashes differ.
constraints: $(VENV)/.made
	@$(call entries,/^packaging==/) > $(VENV)/packaging.txt
	@$(PIP) install --require-hashes --no-deps -r $(VENV)/packaging.txt
	@$(BIN)/python pipelines/make_constraints.py constraints.txt

clean:
	rm -rf $(VENV) demo storm .pytest_cache .mypy_cache .ruff_cache .hypothesis
