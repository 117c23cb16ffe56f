# SPDX-License-Identifier: Apache-2.0
# Everything runs from .venv, made from the hashed lock files in requirements/.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-interop test-pg lint types contracts fmt fuzz model bench gate stress lock docs clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## Make .venv from the lock file and install Troth into it

$(VENV)/.uv: requirements/uv.txt
	@echo "==> creating $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit("Troth needs Python 3.11 or newer; found " + sys.version.split()[0] + ". Set PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

$(STAMP): $(VENV)/.uv requirements/dev.txt pyproject.toml
	@echo "==> installing the locked dependencies (once; about a minute on a slow line)"
	@VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(PY) -m uv pip sync --quiet --require-hashes requirements/dev.txt
	@VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(PY) -m uv pip install --quiet --offline --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP) ## Run the main job: two attested stock Envoys, a mixed pair, a refusal, a withdrawal
	@if command -v $(firstword $(CC)) >/dev/null; then \
	  $(MAKE) --no-print-directory gate && $(PY) -m troth demo $(DEMO_ARGS); \
	else \
	  echo "==> no C compiler ($(CC)): without the gate nothing is proved per connection"; \
	  $(PY) -m troth demo --no-gate $(DEMO_ARGS); \
	fi

test: $(STAMP) ## Lint, types, contracts and every test
	@$(MAKE) --no-print-directory lint types contracts gate
	@$(PY) -m pytest $(PYTEST_ARGS)

test-interop: $(STAMP) ## Prove it against the real SPIRE, built by Go: some 15 minutes the first time, then 2
	@TROTH_INTEROP=1 $(PY) -m pytest -o timeout=1800 --durations=0 tests/interop/spire $(PYTEST_ARGS)

test-pg: $(STAMP) ## Three servers on a real PostgreSQL: kill, restart, cut off and slow down, at length
	@TROTH_CHAOS_ROUNDS=$(or $(TROTH_CHAOS_ROUNDS),3) $(PY) -m pytest -o timeout=900 tests/scenarios/test_several_servers.py \
	  tests/unit/control_plane/server/test_two_servers.py tests/unit/adapters/registry $(PYTEST_ARGS)

lint: $(STAMP) ## Check style
	@$(PY) -m ruff check src tests
	@$(PY) -m ruff format --check src tests

types: $(STAMP) ## Check types
	@$(PY) -m mypy

contracts: $(STAMP) ## Check the arrow of knowledge
	@$(BIN)/lint-imports --no-cache >/dev/null || $(BIN)/lint-imports --no-cache

fmt: $(STAMP) ## Format the code
	@$(PY) -m ruff check --fix-only --quiet src tests
	@$(PY) -m ruff format --quiet src tests

fuzz: $(STAMP) ## Fuzz every decoder of outside bytes: FUZZ_SECONDS=600
	@PYTHONPATH=tests $(PY) -m fuzz --seconds $(or $(FUZZ_SECONDS),60) $(FUZZ_ARGS)

model: $(STAMP) ## Prove the invariants of membership in every world of a larger size; minutes
	@PYTHONPATH=tests $(PY) -m model

bench: $(STAMP) ## Measure, as ratios to a floor measured in the same run
	@PYTHONPATH=tests $(PY) -m benchmarks $(BENCH_ARGS)

gate: ## Build the Envoy gate in place; a C compiler is all it takes
	@$(MAKE) --no-print-directory --silent -C native/gate

stress: $(STAMP) ## Push 50,000 hostile connections through stock Envoys; fuzz and sanitize the gate at length
	@TROTH_GATE_STRESS_CONNECTIONS=50000 TROTH_GATE_HOST_PAIRS=50000 TROTH_GATE_FUZZ_ITERATIONS=5000000 \
	  $(PY) -m pytest -q -o timeout=0 tests/native/test_gate_stress.py tests/native/test_gate_source.py

lock: $(VENV)/.uv ## Resolve the dependencies again
	@$(PY) -m uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --extra envoy --extra tdx --extra postgres --group dev pyproject.toml -o requirements/dev.txt

clean: ## Remove the environment and what the demo left
	@rm -rf $(VENV) .demo report.html report.json
