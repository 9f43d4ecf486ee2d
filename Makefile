# make demo: the main job on this machine.   make test: all tests.   make lint: style, types, import rules.
# make chaos DURATION=120 SEED=1 REPLICAS=2 NATS=1: faults of all kinds, and a judge that counts what they broke.
# make outage PART=kms SECONDS=3600: a back end (kms or nats) is gone for that long.
# make docs: the documentation as a site, in build/docs; a link that leads nowhere fails.
# make fuzz DURATION=60 SEED=1: odd inputs for every decoder.
# Needs Python 3.11 to 3.14 with its venv module. Everything else goes into .venv, in the locked versions.

PYTHON ?= python3
WORKERS ?= 2
PYTEST_ARGS ?=
DURATION ?= 120
SEED ?= 1
PART ?= kms
SECONDS ?= 600
REPLICAS ?= 2
NATS ?= 1
BIN = .venv/bin
READY = .venv/ready

.PHONY: demo test test-full chaos outage fuzz lint format lock config-example contract docs clean help

help:
	@sed -n '1,6s/^# //p' Makefile

demo: $(READY)
	$(BIN)/initiator dev --once

test: $(READY)
	$(BIN)/pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

test-full: $(READY)
	INITIATOR_SLOW=1 $(BIN)/pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

chaos: $(READY)
	$(BIN)/python -m tests.chaos --duration $(DURATION) --seed $(SEED) --replicas $(REPLICAS) --nats $(NATS)

outage: $(READY)
	$(BIN)/python -m tests.chaos.outage --part $(PART) --seconds $(SECONDS)

fuzz: $(READY)
	$(BIN)/python -m tests.fuzz --duration $(DURATION) --seed $(SEED)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

contract: $(READY)
	$(BIN)/python -m initiator.contract docs/contract

# from nothing each time: a page that is not read again is not checked
docs: $(READY)
	$(BIN)/sphinx-build --fresh-env --fail-on-warning --keep-going --nitpicky --quiet docs build/docs

config-example: $(READY)
	$(BIN)/initiator config example > config.example.yaml

$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 15) else "Python 3.11 to 3.14 is needed, this is %d.%d: make PYTHON=python3.11 ..." % v)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

# exact versions with hashes, for every supported Python; no address of a registry gets in
lock: $(READY)
	$(BIN)/python -m pip install --quiet 'uv>=0.9'
	$(BIN)/uv pip compile pyproject.toml --extra fast --extra age --extra nats $(LOCK) -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra fast --extra demo --group dev $(LOCK) -o requirements-dev.lock

LOCK = --universal --python-version 3.11 --generate-hashes --no-header --quiet --upgrade

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
