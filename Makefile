# Recipes for people and for CI; `make` lists them.
.DEFAULT_GOAL := help
.NOTPARALLEL:
SHELL := /bin/bash
BIN := .venv/bin

# Processes of each test pass; the second starts meshes of processes, those of a file one at
# a time.
TEST_WORKERS ?= 2

# What is played at night, and how: virtual minutes, seeds, processes (0: one on each core).
SCENARIO ?= rough-weather
MINUTES ?= 60
SEEDS ?= 5000
WORKERS ?= 0

.PHONY: help
help: ## list the recipes
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

.PHONY: setup
setup: ## make .venv: system packages, pinned dependencies, models
	@bash .ci/setup

.PHONY: demo
demo: setup ## run the main job on a local mesh of real processes
	@$(BIN)/meshnode demo $(DEMO)

.PHONY: setup-tests
setup-tests: ## the same, and what only tests need: js-libp2p, from npm
	@bash .ci/setup tests

.PHONY: test
test: setup-tests ## run the whole test suite
	@status=0; \
	$(BIN)/pytest -q -n $(TEST_WORKERS) --dist worksteal --ignore tests/e2e || status=$$?; \
	$(BIN)/pytest -q -n $(TEST_WORKERS) --dist loadfile tests/e2e || status=$$?; \
	exit $$status

.PHONY: check
check: format-check lint types layers test ## all that CI checks: format, lint, types, layers, tests

.PHONY: format
format: setup ## put the code into its format, and mend what ruff can
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

.PHONY: format-check
format-check: setup ## see that the code is in its format
	@$(BIN)/ruff format --check

.PHONY: lint
lint: setup ## run ruff's rules
	@$(BIN)/ruff check

.PHONY: types
types: setup ## run mypy, strict
	@$(BIN)/mypy

.PHONY: layers
layers: setup ## see that imports keep to the layers
	@$(BIN)/lint-imports

.PHONY: simulate-night
simulate-night: setup ## play thousands of seeds of a troubled mesh, and go on from where that stopped
	@$(BIN)/meshnode simulate $(SCENARIO) --minutes $(MINUTES) --seeds $(SEEDS) \
	    --workers $(WORKERS) --resume .simulations/$(SCENARIO)-$(MINUTES).jsonl \
	    --html .simulations/$(SCENARIO)-$(MINUTES).html

.PHONY: wheel
wheel: setup ## build the wheel into dist/
	@$(BIN)/python -m build --wheel --no-isolation

.PHONY: changes
changes: setup ## show the changelog of the next release
	@$(BIN)/towncrier build --draft --version next
