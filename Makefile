# Everything from a fresh clone: `make demo`, `make test`. Needs Python 3.11+ and make, and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# On PyPI for Linux the newest torch brings CUDA along; the version here is the one that the tests ran with.
TORCH ?= torch==2.13.0
# The versions that the tests ran with. The newest that pyproject.toml allows: make LOCK=/dev/null
LOCK ?= requirements.lock

.PHONY: demo test test-elsewhere check view lock clean
.DEFAULT_GOAL := demo

$(STAMP): pyproject.toml Makefile requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "SpecScope wants Python 3.11 or newer, this is %d.%d: make PYTHON=python3.11 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(LOCK) $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(LOCK) -e '.[all,dev]'
	touch $@

demo: $(STAMP)  ## decode in both modes, trace, check, diff
	$(BIN)/specscope demo

# A process a core: the tests hold torch to one thread each.
WORKERS ?= 2

# Lines and branches of schemas and tracer that the tests about them do not reach. Measuring slows every call in Python,
# so that the others run without. Without it altogether: make test COVERAGE=
COVERAGE ?= --cov --cov-report=term
MEASURED := tests/schemas tests/tracer tests/adapters $(patsubst %,tests/engine/test_%.py,block ppsd_compare ring sizing)

test: $(STAMP)  ## the whole suite
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(COVERAGE) $(MEASURED)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(addprefix --ignore=,$(MEASURED))

test-elsewhere: $(STAMP)  ## the tests that hang on this CPU's bits, as if on two others
	SETTINGS="ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2" WORKERS=$(WORKERS) tests/elsewhere -m numbers

check: $(STAMP)  ## lint, language and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python docs/language.py
	$(BIN)/mypy
	$(BIN)/basedpyright

view: $(STAMP)  ## the viewer on the sample traces
	$(BIN)/specscope view sample_traces/eager.jsonl sample_traces/fused-F16.jsonl

# Torch and what it brings are left out: TORCH names the build.
lock: $(STAMP)  ## writes down the versions of .venv, once the tests passed with them
	$(BIN)/python -m pip freeze --exclude-editable --exclude torch | grep -Ev '^(nvidia-|triton)' > requirements.lock

clean:  ## all that the targets above made
	rm -rf $(VENV) .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis runs
