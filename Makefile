# What people and CI run; `make help` lists it. Needs git, make and a Python of at least 3.11, nothing else: each target
# first sets up a virtual environment of its own, once, and again when what it is made from has changed.
#
#   make test PYTHON=python3.13 VENV=.venv313     # with another Python, in another environment
#   make test ARGS='-k timeout -x'                # further words for pytest
#   make test PROCESSES=0                         # one test after another, e.g. for --pdb

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# Of pytest. More than there are cores: most of what tests do is wait for processes that they have started.
PROCESSES ?= 4

# Each process that a test starts would compile all of straggler, and each of pytest's all tests: half of what they cost.
unexport PYTHONDONTWRITEBYTECODE

BIN = $(VENV)/bin
# The stamp carries the version: another PYTHON with the same VENV makes the environment anew.
READY := $(VENV)/.ready-$(shell $(PYTHON) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)
# One test at a time to whichever process is free, in the order of tests/turns.py.
PYTEST = pytest -n $(PROCESSES) --dist load --maxschedchunk 1
PIP = $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup warm demo test check format lint types layers coverage bench goals zoo stress chaos chaos-planted clean

help:
	@sed -nE 's/^([a-z-]+):.* ## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F '|' '{ printf "%-22s%s\n", $$1, $$2 }'

setup: $(READY) ## set up the virtual environment (all others do it themselves)
	@:

# Compiles all once; else each of pytest's processes does.
warm: $(READY)
	@$(BIN)/python -m pytest --collect-only -qq >/dev/null

demo: $(READY) ## 1,000 pages of which 10 hang, fetched with a timeout of 3 s
	@$(BIN)/python examples/demo.py

test: $(READY) ## all tests; those that need Redis where there is a redis-server, on servers of their own
	@$(BIN)/python -m $(PYTEST) $(ARGS)

check: $(READY) ## the gate: format, lint, types, layers, tests, coverage
	@$(MAKE) --no-print-directory --output-sync=target -j2 lint types layers warm
	@$(MAKE) --no-print-directory coverage

format: $(READY) ## put the code into shape
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format .

lint: $(READY)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types: $(READY)
	@$(BIN)/mypy

layers: $(READY)
	@$(BIN)/lint-imports --no-logo

coverage: $(READY)
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m $(PYTEST) $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

bench: $(READY) ## measure all that there are goals for, beside other queues, and draw the pictures
	@$(BIN)/python -m benchmarks $(ARGS)

goals: $(READY) ## the goals, and what was measured beside each, from the newest results
	@$(BIN)/python -m benchmarks.goals

zoo: $(READY) ## whatever a job does: 65 kinds of misbehaving jobs among 1,000 ordinary ones, and what became of each
	@$(BIN)/python -m tests.timeouts $(ARGS)

stress: $(READY) ## block the event loop at random moments for a minute, and look for an interrupt out of place
	@$(BIN)/python -m tests.timeouts.stress $(ARGS)

chaos: $(READY) ## kill, stop and cut off workers and Redis for two minutes, and look for lost jobs
	@$(BIN)/python -m tests.chaos $(ARGS)

chaos-planted: $(READY) ## plant bugs in copies of the source tree, and see that chaos finds each
	@CHAOS_PLANTED=1 $(BIN)/python -m pytest tests/chaos/test_planted.py $(ARGS)

clean: ## remove the virtual environment, caches and what a build leaves
	@rm -rf $(VENV) .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* dist build
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

# An environment that is ready for this Python is brought up to date; any other (none, half made, of another Python) is
# made anew. The build backend is installed first and the build not isolated: so the pins hold for it with every pip.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "straggler needs Python 3.11 or newer; '$(PYTHON) --version' says: $$($(PYTHON) --version 2>&1)." \
	        "Name another one: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	@echo "setting up $(VENV) with $$($(PYTHON) --version)"
	@[ -e $@ ] || $(PYTHON) -m venv --clear $(VENV)
	@rm -f $@
	@$(PIP) hatchling editables
	@$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@
