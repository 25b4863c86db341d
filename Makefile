# Everything starts from a plain Python 3.10 to 3.12:
#   make demo    deploy two models, with a table of what was made
#   make test    style, types and tests; what CI runs
# Variables:
#   PYTHON=python3.12        the interpreter that makes the environment
#   PIP_ARGS='...'           more arguments for pip, for example an index that has CPU builds of
#                            torch (the default index gives the CUDA build on Linux, which works
#                            too and is about 2 GB larger)
#   PYTEST_ARGS='-k digits'  more arguments for pytest
#   WORKERS=2                processes that run tests; 0 runs them in one, in order

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
PYTEST_ARGS ?=
WORKERS ?= 2

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Files in their order: the long ones do not come last.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	--constraint constraints.txt $(PIP_ARGS)

.PHONY: help venv demo check test test-fast test-all bench bench-deit clean

help:
	@echo "make venv       environment in $(VENV) from pinned versions"
	@echo "make demo       deploy a trained toy and Vim-Ti, and show what was made"
	@echo "make test       style, types, all tests (what CI runs)"
	@echo "make test-fast  style, types, tests without engine builds and slow ones"
	@echo "make test-all   make test, then the demo"
	@echo "make bench-deit cost of every stage from 224 to 1248 px, DeiT beside (20 minutes, quiet)"
	@echo "make bench      time the stages for Vim-Ti at 224 and print ratios"

venv: $(STAMP)

# torch comes first and alone: where several builds of it are offered, the pin decides, not the
# resolution of what depends on it.
$(STAMP): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 12) \
		else "vim-deploy is made for Python 3.10 to 3.12, this is %d.%d; set PYTHON=..." % v)'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch==2.13.0
	$(INSTALL) --editable '.[torch,ort,rtx,demo,deit,dev]'
	@touch $@

demo: venv
	$(BIN)/python examples/demo.py

check: venv
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

test: check
	$(PYTEST) $(PYTEST_ARGS)

test-fast: check
	$(PYTEST) -m 'not slow and not rtx' $(PYTEST_ARGS)

# The long kernel sweep and all eight GPU architectures: about half an hour more.
test-all: export VIM_TEST_ALL = 1
test-all: test demo

bench: venv
	$(BIN)/python benchmarks/spine.py

bench-deit: venv
	$(BIN)/python benchmarks/scaling.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
