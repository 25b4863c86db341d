# Everything starts from a plain Python 3.10 to 3.14:
#   make demo    deploy two models, with a table of what was made
#   make test    style, types and tests; what CI runs
# Variables:
#   PYTHON=python3.13        the interpreter that makes the environment
#   PIP_ARGS='...'           more arguments for pip, for example an index that has CPU builds of
#                            torch (the default index gives the CUDA build on Linux, which works
#                            too and is about 2 GB larger)
#   TORCH='torch==2.13.0'    a build of torch whose hash requirements/torch.lock does not have
#   PYTEST_ARGS='-k digits'  more arguments for pytest
#   WORKERS=2                processes that run tests; 0 runs them in one, in order
#   FUZZ_ARGS='onnx --seed 1'  which inputs of which readers are fuzzed, and how many
#   FUZZ_SECONDS=60          for each target of the C++ library

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
TORCH ?= --require-hashes -r requirements/torch.lock
PYTEST_ARGS ?=
WORKERS ?= 2
FUZZ_ARGS ?=
FUZZ_SECONDS ?= 60

BIN := $(VENV)/bin
# Of the environment: what the tool itself runs with, and all of it.
TOOL := $(VENV)/.tool
STAMP := $(VENV)/.installed
# Files in their order: the long ones do not come last.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder
# Python compiles a module when it is first imported, which most of a package's never are, and keeps
# what it has compiled unless it is told not to.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
	$(PIP_ARGS)
LOCKED := $(INSTALL) --require-hashes
# What is built into this environment is built by the setuptools of the lock, and by no other.
BUILD := --no-build-isolation
NATIVE_OPS = @$(BIN)/vim-deploy plugin build --target onnxruntime > /dev/null || echo \
	"going on without native ops: everything works, four times as slowly in ONNX Runtime" >&2
ASKS_FOR_CUDA := import importlib.metadata as m, sys; \
	sys.exit(not any("nvidia" in item for item in m.requires("torch")))
EXTRAS := torch ort rtx openvino coco demo deit dev
COMPILE := uv pip compile --quiet --universal --python-version 3.10 --generate-hashes \
	--no-annotate --custom-compile-command 'make pins'

DEV_LOCK = $(COMPILE) $(EXTRAS:%=--extra %) pyproject.toml requirements/build.in \
	--excludes requirements/cuda-names.txt --no-emit-package torch \
	--no-emit-package tensorrt-rtx-cu13 $(PINS_ARGS)
DOCS_LOCK = $(subst 3.10,3.11,$(COMPILE)) requirements/docs.in --constraint requirements/dev.lock \
	$$(sed -n 's/^\([a-z0-9-]*\)==[^;]*$$/--no-emit-package \1/p' requirements/dev.lock)
CUDA_LOCK = $(COMPILE) requirements/torch.in --no-emit-package torch
WHEELS_LOCK = $(COMPILE) requirements/wheels.in --excludes requirements/wheels-left-out.txt

# make wheels: an environment of its own, since nothing else needs what is in it.
WHEEL_VENV := build/wheel-tools
WHEEL_PYTHON := $(abspath $(WHEEL_VENV))/bin/python

# make docs: the site's generator, in a folder of its own over the environment of make venv, whose
# packages it shares.
DOCS_TOOLS := build/docs-tools
SITE := PYTHONPATH=$(DOCS_TOOLS) $(BIN)/python -m docs.site

.PHONY: help venv install-tool install-torch demo check test test-fast test-all bench bench-deit \
	fuzz pins wheels release-check docs docs-serve clean native-ops

help:
	@echo "make venv       environment in $(VENV) from pinned versions"
	@echo "make demo       deploy a trained toy and Vim-Ti, and show what was made"
	@echo "make test       style, types, all tests (what CI runs)"
	@echo "make test-fast  style, types, tests without engine builds and slow ones"
	@echo "make test-all   make test, then the demo"
	@echo "make fuzz       damaged and hostile files for every reader of Python and C++"
	@echo "make wheels     sdist and wheels into dist/, two of them with the native ops compiled"
	@echo "make release-check  everything of a release that needs no key"
	@echo "make docs       the documentation's site in build/site; make docs-serve shows it"
	@echo "make pins       renew requirements/*.lock: versions and hashes of what make venv installs"
	@echo "make bench-deit time and memory from 224 to 1248 px, DeiT beside (20 minutes, quiet)"
	@echo "make bench      time the stages for Vim-Ti at 224 and print ratios"

venv: $(STAMP) native-ops

# Only files whose hash is in a lock are installed, and nothing runs code to be installed but the one
# package that is published as source alone. The CUDA libraries are for builds of torch that ask for
# them.
$(TOOL): pyproject.toml setup.py $(wildcard requirements/*.lock requirements/names/*)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 14) \
		else "vim-deploy is made for Python 3.10 to 3.14, this is %d.%d; set PYTHON=..." % v)'
	$(PYTHON) -m venv $(VENV)
	$(MAKE) --no-print-directory --jobs=2 install-tool install-torch
	@touch $@

# pip does one thing at a time; these two go on at once, with different packages.
install-tool:
	sh requirements/names/select.sh tool rtx demo > $(VENV)/tool.lock
	$(LOCKED) --only-binary :all: -r $(VENV)/tool.lock
	$(LOCKED) $(BUILD) -r requirements/source.lock
	$(INSTALL) $(BUILD) --editable .
	$(NATIVE_OPS)

# A file that pip's settings name (find-links) comes first: with hashes pip would rather fetch the
# index's, which for Linux is the CUDA build.
install-torch:
	$(INSTALL) --only-binary :all: --no-index $(TORCH) 2> /dev/null \
		|| $(INSTALL) --only-binary :all: $(TORCH)
	if $(BIN)/python -c '$(ASKS_FOR_CUDA)'; then \
		$(LOCKED) --only-binary :all: -r requirements/cuda.lock; fi

# And what tests, style and the other runtimes need.
$(STAMP): $(TOOL)
	$(LOCKED) --only-binary :all: -r requirements/dev.lock
	@touch $@

# Kept in the user's cache under the hash of its sources; a minute with CMake and a C++ compiler.
native-ops: $(TOOL)
	$(NATIVE_OPS)

# Every version with the hashes of its files, for all supported Pythons; in dev.lock, cuda.lock,
# docs.lock and wheels.lock of the files for Linux, which are a sixth of them. Needs uv (pip install
# uv) and make venv. torch.lock is kept by hand; its header says why.
pins:
	mkdir -p build/cuda build/docs build/wheels
	$(DEV_LOCK) --output-file requirements/dev.lock
	$(DEV_LOCK) --constraint requirements/dev.lock --format pylock.toml --output-file build/pylock.toml
	$(BIN)/python requirements/linux_hashes.py requirements/dev.lock build/pylock.toml
	$(CUDA_LOCK) --constraint requirements/dev.lock $(PINS_ARGS) \
		--output-file requirements/cuda.lock
	$(CUDA_LOCK) --constraint requirements/cuda.lock --format pylock.toml \
		--output-file build/cuda/pylock.toml
	$(BIN)/python requirements/linux_hashes.py requirements/cuda.lock build/cuda/pylock.toml
	$(COMPILE) --no-deps requirements/source.in --output-file requirements/source.lock
	$(WHEELS_LOCK) --constraint requirements/dev.lock $(PINS_ARGS) \
		--output-file requirements/wheels.lock
	$(WHEELS_LOCK) --constraint requirements/wheels.lock --format pylock.toml \
		--output-file build/wheels/pylock.toml
	$(BIN)/python requirements/linux_hashes.py requirements/wheels.lock build/wheels/pylock.toml
	$(DOCS_LOCK) $(PINS_ARGS) --output-file requirements/docs.lock
	$(DOCS_LOCK) --constraint requirements/docs.lock --format pylock.toml \
		--output-file build/docs/pylock.toml
	$(BIN)/python requirements/linux_hashes.py requirements/docs.lock build/docs/pylock.toml
	$(COMPILE) --no-deps requirements/lint.in --output-file requirements/lint.lock
	mkdir -p build/consumers
	set -e; for input in requirements/consumers/*.in; do \
		$(COMPILE) --no-deps $$input --output-file $${input%.in}.lock; \
		$(COMPILE) --no-deps $$input --constraint $${input%.in}.lock --format pylock.toml \
			--output-file build/consumers/pylock.toml; \
		$(BIN)/python requirements/linux_hashes.py $${input%.in}.lock \
			build/consumers/pylock.toml; done
	set -e; for name in model server; do \
		lock=vim_deploy/packaging/served/requirements-$$name.txt; \
		sed -n '/^#/p' $$lock > $$lock.new; \
		$(COMPILE) --no-deps --no-header requirements/$$name.in >> $$lock.new; \
		sed -n '/^-r /p' $$lock >> $$lock.new; mv $$lock.new $$lock; done

demo: $(TOOL) native-ops
	$(BIN)/python examples/demo.py

check: venv
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

test: check
	$(PYTEST) $(PYTEST_ARGS)

test-fast: check
	$(PYTEST) -m 'not slow and not rtx' $(PYTEST_ARGS)

# The long kernel sweep, all eight GPU architectures, cross-compiled wheels, the commands of every
# page: about half an hour more.
test-all: export VIM_TEST_ALL = 1
test-all: test demo

fuzz: venv
	$(BIN)/python -m tests.fuzz $(FUZZ_ARGS)
	tests/fuzz/cpp/run.sh $(FUZZ_SECONDS)

bench: venv
	$(BIN)/python benchmarks/spine.py

bench-deit: venv
	$(BIN)/python benchmarks/scaling.py

wheels: $(WHEEL_VENV)/.installed
	$(WHEEL_PYTHON) plugins/cpu/wheel/build_wheels.py --output dist --work build/wheels

# What of a release can be checked without keys (docs/releasing.md); the checkout first, which takes
# no time.
release-check:
	$(PYTHON) .ci/release_check.py --before
	$(MAKE) --no-print-directory wheels
	$(PYTHON) .ci/release_check.py --before --dist dist

$(WHEEL_VENV)/.installed: requirements/wheels.lock
	$(PYTHON) -m venv $(WHEEL_VENV)
	$(WHEEL_PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps $(PIP_ARGS) \
		--require-hashes --only-binary :all: -r requirements/wheels.lock
	@touch $@

docs: $(DOCS_TOOLS)/.installed
	$(SITE) build

docs-serve: $(DOCS_TOOLS)/.installed
	$(SITE) serve

$(DOCS_TOOLS)/.installed: requirements/docs.lock $(STAMP)
	@$(BIN)/python -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
		"the site is built with Python 3.11 or later; set PYTHON=... and VENV=...")'
	rm -rf $(DOCS_TOOLS)
	$(LOCKED) --only-binary :all: --target $(DOCS_TOOLS) -r requirements/docs.lock
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
