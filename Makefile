# The two commands of the README are `make up` and `make test`; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BENCHES := $(wildcard tests/bench/*.py)

.PHONY: help install up test test-full lint bench models clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

install: $(INSTALLED) ## make .venv with everything, at the versions of requirements.lock

$(INSTALLED): pyproject.toml requirements.lock
	@bash .ci/prerequisites $(PYTHON)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); the first time, llama.cpp is compiled, which takes some minutes."
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --progress-bar on --constraint requirements.lock --editable ".[gateway,otel,train,dev]"
	@touch $@

up: $(INSTALLED) ## start the embedded mesh and its gateway, offline
	$(BIN)/monai-node up

test: $(INSTALLED) ## all that runs unprivileged, within minutes
	$(BIN)/python -m pytest -m "not full"

test-full: $(INSTALLED) ## also what takes minutes, root, Debian packages or a browser
	$(BIN)/python -m pytest

lint: $(INSTALLED) ## ruff, pyright (strict), import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(INSTALLED) ## every benchmark, one JSON line each
	@for bench in $(BENCHES); do $(BIN)/python $$bench --json || exit 1; done

models: $(INSTALLED) ## train the labellers of the planner anew, into build/models (an hour or two)
	$(BIN)/python -m monai_node.agents.training.small --seed 1 --out build/models
	$(BIN)/python -m monai_node.agents.training.lora --seed 1 --out build/models

clean: ## remove .venv and caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache
