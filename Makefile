# One command for each job; each makes the environment first. `make help` lists them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
DOCS_VENV := .venv-docs
EXECUTORCH_VENV := .venv-executorch
BIN := $(VENV)/bin
READY := $(VENV)/.ready
INSTALL := -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
# Not in constraints.txt: installed alone, without its dependencies, for the model definitions that tests use.
TORCHVISION := torchvision==0.28.0
# Code in these has lines that fit beside the site's contents.
PAGES := $(wildcard docs/*.md docs/*/*.md)
# With what of ExecuTorch's many dependencies our files need; installed alone too. Nothing here is in the usual set-up.
EXECUTORCH := tests/executorch.txt
# The tests that ask whether it is there.
EXECUTORCH_TESTS = $(shell grep -rl --include='test_*.py' 'pte_file.is_installed' tests)
# Test processes; each runs on one thread, so that they do not fight over the cores.
JOBS ?= 2
TESTS ?= tests
# What is measured and tested here is compiled here, and leaves nothing in the user's cache.
export ALTPROP_CACHE ?= off
WORKERS = -m pytest -q -n $(JOBS) --dist worksteal
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python $(WORKERS)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-full test-executorch docs links pages matrix bench tables rule-tables coverage reliability lint format types directions unit clean distclean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

# The usual set-up, into an environment.
define set_up
$(1)/bin/python $(INSTALL) setuptools wheel
$(1)/bin/python $(INSTALL) torch
$(1)/bin/python $(INSTALL) --no-build-isolation --editable '.[dev,examples,onnx]'
$(1)/bin/python $(INSTALL) --no-deps $(TORCHVISION)
endef

$(BIN)/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(READY): pyproject.toml constraints.txt Makefile | $(BIN)/python
	$(call set_up,$(VENV))
	@touch $@

demo: $(READY)  ## train a small model by local learning and write its pictures to results/demo
	$(BIN)/python examples/demo.py --out results/demo

# Who may import whom is among the tests.
test: lint types unit  ## every check, and every test but those marked full

test-full: lint types  ## every check, and every test: an hour or more
	ALTPROP_VERIFY=1 $(PYTEST) $(TESTS)

# Of the tests it runs those marked full too: nearly all of them are. One that is skipped is shown.
test-executorch: $(EXECUTORCH_VENV)/.ready  ## the tests of .pte files, with ExecuTorch in an environment of its own
	$(EXECUTORCH_VENV)/bin/python -c 'import executorch.runtime'
	OMP_NUM_THREADS=1 $(EXECUTORCH_VENV)/bin/python $(WORKERS) -rs $(EXECUTORCH_TESTS)

$(EXECUTORCH_VENV)/.ready: pyproject.toml constraints.txt $(EXECUTORCH) | $(BIN)/python
	$(BIN)/python -m venv $(EXECUTORCH_VENV)
	$(call set_up,$(EXECUTORCH_VENV))
	$(EXECUTORCH_VENV)/bin/python $(INSTALL) --no-deps --requirement $(EXECUTORCH)
	@touch $@

docs: $(DOCS_VENV)/.ready  ## build the site into site/; what it needs has an environment of its own
	$(DOCS_VENV)/bin/zensical build --strict --clean
	$(BIN)/python docs/write_llms.py
	$(BIN)/python docs/check_links.py --site site

links:  ## ask other servers whether the pages that we link to are there; needs a network
	$(PYTHON) docs/check_links.py --external

$(DOCS_VENV)/.ready: docs/constraints.txt | $(BIN)/python
	$(BIN)/python -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --constraint docs/constraints.txt \
		zensical 'mkdocstrings[python]'
	@touch $@

matrix: $(READY)  ## run the fast tests under several Pythons and torches, and write docs/matrix.md; hours
	$(BIN)/python tests/run_matrix.py

bench: $(READY)  ## time a training step beside plain autograd
	$(BIN)/python -m benchmarks run steps optimizers peaks step memory

# Each script without --dry-run trains what is left; `docs/write_evidence.py` names those of docs/evidence.md.
tables: $(READY)  ## say what the tables that trainings make would take, and train nothing
	for script in published survey default_rule starts audits kept_audits tables small_task; do \
		echo "benchmarks/$$script.py"; $(BIN)/python benchmarks/$$script.py --resume --dry-run || exit 1; \
	done
	$(BIN)/python benchmarks/dkp_table.py --data fashion-mnist --data cifar10 --data cifar100 --dry-run
	$(BIN)/python benchmarks/wirings.py --dry-run
	$(BIN)/python benchmarks/alignment.py --dry-run

rule-tables: $(READY)  ## train what is left of the tables in docs/rules.md: an hour or more
	$(BIN)/python benchmarks/tables.py --resume
	$(BIN)/python benchmarks/small_task.py --resume
	$(BIN)/python docs/write_rules.py

pages: $(READY)  ## draw each rule's pathway, and write its page in docs/rules
	$(BIN)/python docs/draw_rules.py
	$(BIN)/python docs/write_rules.py

coverage: $(READY)  ## run every rule on every model and write docs/coverage.md; an hour or more, and it can be resumed
	$(BIN)/python tests/run_grid.py --jobs $(JOBS)
	$(BIN)/python docs/write_coverage.py

reliability: $(READY)  ## damage files and kill runs by the thousand, and write docs/reliability.md; it can be resumed
	OMP_NUM_THREADS=1 $(BIN)/python tests/run_fuzz.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/run_kills.py
	$(BIN)/python docs/write_reliability.py

lint: $(READY)  ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ruff format --check --line-length 88 $(PAGES)

format: $(READY)  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/ruff format --line-length 88 $(PAGES)

types: $(READY)  ## mypy on the modules that pyproject.toml lists
	$(BIN)/mypy

directions: $(READY)  ## who may import whom
	$(BIN)/python -m pytest -q tests/unit/test_import_directions.py

unit: $(READY)  ## pytest, but tests marked full; TESTS=... chooses some, JOBS=... sets the number of processes
	$(PYTEST) -m "not full" $(TESTS)

clean:  ## remove what builds and runs left, but not the environment
	rm -rf build dist site results/demo *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## remove the environments too
	rm -rf $(VENV) $(DOCS_VENV) $(EXECUTORCH_VENV)
