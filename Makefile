# make run    the main job: ten tasks on a frozen encoder, table, plots and report
# make test   the test suite, in two processes (JOBS=2)      make test-slow   the tests that take minutes
# make test-faults   runs killed at thirty moments, stopped, damaged, on a full disk: about 10 minutes
# make lint   ruff and pyright      make setup       the environment alone
# make test-peft PEFT_PYTHON=...   PEFT's own logits, by a Python that has torch, transformers and peft
# make peers  .venv-peers with what the bench races against: torch, transformers, peft, lorashare, vlora (2 GB or more)
# make bench  all suites against them, about an hour on two free cores, into experiments/BENCH.md;
#             SUITES=serve measures one anew, and the page keeps the others
# make lock   resolve requirements.lock anew from pyproject.toml

PYTHON ?= python3
VENV ?= .venv
PEERS ?= .venv-peers
JOBS ?= 2
SUITES ?= train prefix serve adapters tasks roofline
ARGS ?=
BIN := $(VENV)/bin
MEASURED := experiments/bench/measured

.PHONY: run test test-slow test-faults test-peft lint setup lock peers bench

run: setup
	$(BIN)/python -m experiments.run $(ARGS)

test: setup
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not slow and not faults" $(ARGS)

test-slow: setup
	$(BIN)/python -m pytest -m "slow and not faults" $(ARGS)

test-faults: setup
	$(BIN)/python -m pytest -m faults $(ARGS)

test-peft: setup
	SHARE_JAX_PEFT_PYTHON=$(PEFT_PYTHON) $(BIN)/python -m pytest tests/formats/test_peft_equality.py $(ARGS)

peers: $(PEERS)/.ready

$(PEERS)/.ready: experiments/bench/peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r experiments/bench/peers.txt
	@touch $@

bench: setup peers
	for suite in $(SUITES); do \
	  $(BIN)/python -m experiments.bench $$suite --peers $(PEERS)/bin/python --json $(MEASURED)/$$suite.json $(ARGS) || exit $$?; \
	done
	$(BIN)/python -m experiments.bench page $(MEASURED)/*.json

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON): got nothing, expected Python 3.11 or newer; install it or pass PYTHON=/path/to/python" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11))' || { echo "error: $(PYTHON): got $$($(PYTHON) -V), expected Python 3.11 or newer; pass PYTHON=python3.12 or the like" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON): got no venv module, expected one; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --extra dev --no-header pyproject.toml -o requirements.lock
