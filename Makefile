# Everything a newcomer needs: `make demo`, `make test`. Works with nothing but Python 3.11 or newer on PATH.

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
JOBS   ?= 2
# The first interpreter that runs and is new enough; 3.11 first, because constraints.txt was recorded with it.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; break; }; done)
QUIET  := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_PROGRESS_BAR=off PIP_ROOT_USER_ACTION=ignore

.PHONY: help install demo test test-all conformance lint bench clean

help:  ## What there is to run
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

install: $(STAMP)  ## Make .venv with the package and everything that its tests need

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "guardrail needs Python 3.11 or newer on PATH (or: make PYTHON=/path/to/python)" >&2; exit 2; }
	@echo "Installing into $(VENV) (a few minutes the first time)" >&2
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@$(QUIET) $(BIN)/python -m pip install -qq --constraint constraints.txt --editable '.[test]'
	@touch $(STAMP)

demo: $(STAMP)  ## The main job on real text, offline
	@$(BIN)/guardrail demo

test: $(STAMP)  ## Everything but the slow tests: lint, types, import direction, behaviour
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile -m "not slow"

test-all: $(STAMP)  ## Every test
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

conformance: $(STAMP)  ## Every client path on every supported version of openai, anthropic and litellm; writes docs/conformance.md
	@$(BIN)/python tests/conformance/environments.py

lint: $(STAMP)  ## ruff, mypy, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(STAMP)  ## Every benchmark; each prints one JSON object
	@for script in benchmarks/*.py; do echo "$$script" >&2; $(BIN)/python "$$script" || exit 1; done

clean:  ## Remove what `make` and the tools left behind
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
