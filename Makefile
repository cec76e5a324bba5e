# `make` or `make help` lists what there is. Everything a target needs is installed by its own scripts.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
# The locked tools live outside the tree, in a folder named by the hash of the lock; made at the first use.
VENV = $(shell $(PYTHON) -m tests.harness.venv)
PYTEST = $(VENV)/bin/python -m pytest

.PHONY: help demo demo-down test unit control-plane e2e e2e-full lint format generate engine-tables lock cluster cluster-down cluster-status images bench-loop bench-adapters bench-serving bench-setup prune

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## the whole loop on this machine: cluster, serve, fine-tune, hot-load, answer
	@$(PYTHON) -m tests.harness.demo

demo-down: cluster-down ## remove the demo and its cluster

test: ## everything: unit, control plane, end to end (about 25 min when the builds are cached)
	@$(PYTHON) -m tests.cluster preflight
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory control-plane
	@$(MAKE) --no-print-directory e2e

unit: lint ## lint, types, layers, unit and golden tests
	@$(PYTEST) -q tests/unit tests/hub tests/golden

control-plane: ## tests against a real API server, without nodes
	@$(PYTHON) -m tests.cluster build kubernetes helm helm-unittest kubeconform
	@$(PYTEST) -q tests/control_plane

e2e: ## tests on the embedded cluster: two real nodes, real vLLM, real QLoRA
	@$(PYTHON) -m tests.harness.e2e

e2e-full: ## more models on the same cluster, each with an engine of its own: embeddings and scores; not part of make test
	@$(PYTHON) -m tests.harness.e2e tests/e2e_full

lint: ## ruff, mypy --strict, import-linter
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@cd operator && $(VENV)/bin/lint-imports --config ../pyproject.toml --no-cache

format: ## format and fix what can be fixed
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .

generate: ## CRDs and the field reference, from the models
	@PYTHONPATH=operator $(VENV)/bin/python -m graftwork.api.crds --out crds charts/graftwork-crds/files
	@PYTHONPATH=operator $(VENV)/bin/python -m graftwork.api.reference --out docs/reference

engine-tables: ## what the pinned vLLM takes (flags, parsers, methods), asked of its image; after a new version, review the difference
	@$(VENV)/bin/python -m tests.harness.engine_tables

lock: ## renew every lock file (hashes, no index addresses)
	@$(PYTHON) -m tests.cluster.images lock

cluster: ## the embedded cluster: control plane, two nodes, DNS, storage
	@$(PYTHON) -m tests.cluster up

cluster-down: ## remove the cluster and everything it set up on this machine
	@$(PYTHON) -m tests.cluster down

cluster-status: ## what runs, what does not
	@$(PYTHON) -m tests.cluster status

images: ## build every container image (content-addressed, cached outside the tree)
	@$(PYTHON) -m tests.cluster.images build

bench-loop: ## docs/benchmarks/loop.json: publish to answer, load latency, idle writes, memory
	@$(VENV)/bin/python -m tests.harness.bench_loop

bench-adapters: ## docs/benchmarks/adapters.json: hot-loading with 1 and 3 pods, the guard's cost, 100 adapters; ONLY=<phase> ARGS=...
	@PYTHONPATH=images/agent:images/common $(VENV)/bin/python -m tests.harness.bench_adapters $(if $(ONLY),--only $(ONLY)) $(ARGS)

bench-serving: ## docs/benchmarks/serving.json: children of an LLMDeployment, writes, 300 at once, requests lost in disruptions; ONLY=<phase> ARGS=...
	@PYTHONPATH=images/agent:images/common $(VENV)/bin/python -m tests.harness.bench_serving $(if $(ONLY),--only $(ONLY)) $(ARGS)

bench-setup: ## docs/benchmarks/loop.json: the time of a whole command, WHAT=build-cold|demo-cold|demo-warm|test-warm
	@$(PYTHON) -m tests.harness.bench_setup $(WHAT)

prune: ## remove old builds from the cache
	@$(PYTHON) -m tests.cluster.images prune
