# Everything installs into .venv; `make help` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
BIN := .venv/bin
UV := $(shell command -v uv || echo .venv-uv/bin/uv)
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/asya
MEMBERS := shim proxy operator cli

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.venv-uv/bin/uv:
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/python -m pip install --quiet --disable-pip-version-check uv

.venv/.installed: requirements.lock $(MEMBERS:%=%/pyproject.toml) | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	$(UV) pip sync --quiet --require-hashes --python $(BIN)/python requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation $(MEMBERS:%=-e %)
	touch $@

.PHONY: install
install: .venv/.installed ## install the locked dependencies and the packages into .venv

.PHONY: lock
lock: | $(UV) ## write requirements.lock anew from requirements.in
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate requirements.in -o requirements.lock

.PHONY: lint
lint: install ## ruff, import contracts, lock freshness, shell, Dockerfiles
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache

.PHONY: types
types: install ## strict type check
	$(BIN)/mypy

.PHONY: test
test: install ## every test that needs no cluster
	$(BIN)/pytest
