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
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.venv-uv/bin/uv:
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/python -m pip install --quiet --disable-pip-version-check uv

.venv/.locked: requirements.lock | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	$(UV) pip sync --quiet --compile-bytecode --require-hashes --python $(BIN)/python requirements.lock
	touch $@

.venv/.installed: .venv/.locked $(MEMBERS:%=%/pyproject.toml)
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation $(MEMBERS:%=-e %)
	$(BIN)/python -m compileall -q $(MEMBERS:%=%/src)
	touch $@

# Other people's libraries, which the shim is tested with.
.venv-%/.locked: tests/shim/libraries/%.lock | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv-$*
	$(UV) pip sync --quiet --require-hashes --python .venv-$*/bin/python $<
	touch $@

.PHONY: install
install: .venv/.installed ## install the locked dependencies and the packages into .venv

COMPILE := pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate
# The images' locks are parts of the one lock.
LOCKS := proxy/requirements operator/requirements .ci/build tests/shim/libraries/adapted tests/shim/libraries/installed

.PHONY: lock
lock: | $(UV) ## write the locks anew from their .in files
	$(UV) $(COMPILE) requirements.in -o requirements.lock
	for lock in $(LOCKS); do $(UV) $(COMPILE) -c requirements.lock $$lock.in -o $$lock.lock; done

.PHONY: demo
demo: install ## a conversation through a kill -9, a restart and two replicas, on SQLite
	$(BIN)/python examples/demo.py

.PHONY: lint
lint: install ## formatting, ruff, import contracts, lock, shell scripts, Dockerfiles, workflows
	.ci/tools.sh
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/lint-imports --no-cache
	for lock in requirements $(LOCKS); do \
	  copy=.venv/locks/$$lock.lock; mkdir -p $$(dirname $$copy); cp $$lock.lock $$copy; \
	  $(UV) $(COMPILE) -c requirements.lock $$lock.in -o $$copy; \
	  diff -q $$lock.lock $$copy || { echo "$$lock.lock is stale: run make lock" >&2; exit 1; }; \
	done
	git ls-files '*.sh' .ci/run | xargs shellcheck
	git ls-files 'Dockerfile*' '*/Dockerfile' | xargs -r $(BIN)/hadolint
	git ls-files '.github/workflows/*' | xargs -r $(CACHE)/bin/actionlint

.PHONY: types
types: install ## strict type check
	$(BIN)/mypy

.PHONY: servers
servers: cluster-build ## install the real servers that the tests run against
	tests/servers/install.sh

.PHONY: test
test: install servers .venv-adapted/.locked ## every test that needs no cluster, on one CPython (and the shim on every one installed)
	time $(BIN)/pytest -m "not soak" -n 2 --dist loadscope

.PHONY: soak
soak: install servers .venv-adapted/.locked .venv-installed/.locked ## the long campaigns; hours, by hand, log kept in build/soak.log
	tests/servers/build.sh soak
	tests/servers/debian.sh
	mkdir -p build
	$(BIN)/pytest -m soak --soak --timeout 3600 2>&1 | tee build/soak.log

.PHONY: libraries
libraries: install .venv-adapted/.locked .venv-installed/.locked ## each library of docs/usage/libraries.md below a mount
	$(BIN)/pytest -m "soak or not soak" -n 2 --dist loadscope tests/shim/libraries

.PHONY: bench
bench: install servers ## side-by-side benchmarks, ratios in one run
	$(BIN)/python bench/state.py
	$(BIN)/python bench/backends.py
	$(BIN)/python bench/webhook.py
	$(BIN)/python bench/actors.py

.PHONY: cluster-build
cluster-build: ## build Kubernetes' components from pinned Go modules, once
	e2e/cluster/build.sh

.PHONY: cluster-up
cluster-up: ## start a real single-node Kubernetes on this machine (root, no Docker)
	e2e/cluster/deps.sh
	e2e/cluster/build.sh
	e2e/cluster/image.sh base 3.13
	e2e/cluster/up.sh

.PHONY: cluster-down
cluster-down: ## end that Kubernetes; nothing of it stays behind
	e2e/cluster/down.sh

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' proxy/pyproject.toml)

.PHONY: images
images: ## images of operator and proxy, with docker where it runs, else with buildah
	docker info >/dev/null 2>&1 || { e2e/cluster/deps.sh; e2e/cluster/image.sh base 3.13; }
	images/build.sh asya-operator Dockerfile.operator
	images/build.sh asya-state-proxy Dockerfile.proxy

.PHONY: chart
chart: install cluster-build ## lint the Helm chart, compare what it renders, package it into dist/
	$(CACHE)/cluster/bin/helm lint --strict chart
	$(BIN)/pytest e2e/test_chart.py
	$(CACHE)/cluster/bin/helm package --destination dist chart

.PHONY: docs
docs: install ## build the documentation into build/site; a warning is an error
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.PHONY: e2e
e2e: install ## whole pods: on the cluster of KUBECONFIG, else on kind where Docker is, else on a local one
	time e2e/run.sh
