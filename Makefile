# `make help` lists the targets. Everything is installed into .venv, from the lock
# files alone; nothing is changed outside this directory.

PYTHON ?= python3
UV ?= uv
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOG := $(VENV)/install.log

# pip looks for a newer pip and warns of root; neither is news to the reader of a log.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test bench lint format chaos fuzz lock clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

demo: $(STAMP) ## Install, and show requests streaming over NATS (no LLM needed)
	@$(BIN)/tokenbridge demo $(ARGS)

test: $(STAMP) ## Install, and run all tests (ARGS="-k sse" for some of them)
	@$(BIN)/pytest -q $(ARGS)

bench: $(STAMP) ## Measure against the peers, for minutes (ARGS="--quick" for a look)
	@$(BIN)/python -m benchmarks $(ARGS)

lint: $(STAMP) ## ruff check, ruff format --check, mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict

format: $(STAMP) ## Let ruff fix and format what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

chaos: $(STAMP) ## Break processes under load, judge every log (ARGS="--short --seed 1")
	@$(BIN)/python -m tests.chaos $(ARGS)

fuzz: $(STAMP) ## Fuzz the reading of backends' streams (ARGS="--count 100000 --seed 1")
	@$(BIN)/python -m tests.fuzz $(ARGS)

# Addresses stay out of the locks: which registry or mirror serves the files is the
# installer's own setting, and the hashes hold for all of them.
LOCK = $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(ARGS)

lock: ## Write requirements/*.txt anew, with uv (ARGS=--upgrade for newer releases)
	@command -v $(UV) >/dev/null || \
		{ echo "make lock needs uv, or its path: make lock UV=/path/to/uv" >&2; exit 1; }
	@mkdir -p requirements
	$(LOCK) pyproject.toml -o requirements/runtime.txt
	$(LOCK) --group build -c requirements/runtime.txt -o requirements/build.txt
	$(LOCK) pyproject.toml --extra server --group dev -c requirements/runtime.txt \
		-c requirements/build.txt -o requirements/dev.txt

clean: ## Remove .venv, caches and built files
	@rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Wheels only, for nothing may be built with tools that no lock names; nkeys has none
# and is built with the setuptools of requirements/build.txt.
PIP = $(BIN)/python -m pip install --require-hashes --no-build-isolation \
	--only-binary :all: --no-binary nkeys

# The stamp is as new as the last complete installation. A .venv without a working
# pip (interrupted, moved, or its Python removed) is made anew.
$(STAMP): requirements/build.txt requirements/dev.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
		echo "There is no $(PYTHON) here: install Python 3.11 or newer," \
			"or name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "tokenbridge needs Python 3.11 or newer, and $(PYTHON) is" \
			"$$($(PYTHON) --version 2>&1); name another: make PYTHON=python3.12" >&2; \
		exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments: install its venv module" \
			"(Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || \
		$(PYTHON) -m venv --clear $(VENV)
	@echo "Installing the locked dependencies into $(VENV) (once, about a minute)"
	@{ $(PIP) -r requirements/build.txt && $(PIP) -r requirements/dev.txt && \
		$(BIN)/python -m pip install --no-deps --no-build-isolation -e .; \
	} >$(LOG) 2>&1 || { \
		cat $(LOG) >&2; echo "The installation failed; pip's output is above." >&2; \
		exit 1; }
	@touch $@
