# `make demo` and `make test` each do all the set-up they need in .venv; nothing outside this folder changes.
#
#   make demo                       prepare, train, evaluate, complete and report on real code (DEMO_ARGS="--minutes 2");
#                                   a second one goes on where the first was stopped; DEMO_ARGS=--new begins another
#   make install                    the set-up alone; the command is then .venv/bin/inlay
#   make test, test-all, lint       the quick tests, all tests, the linters
#   make test-precision             the rooms that compute, as on a processor that multiplies bf16, and with 4 threads
#   make test-matrix                the quick tests on Python 3.11 to 3.13 and the oldest torch, in .venv-matrix (uv)
#
# Variables: PYTHON=python3.12 chooses the interpreter. TORCH="torch==2.13.0 ..." chooses the torch build: anything that
# `pip install` accepts, such as a wheel file, or a version with the --index-url of its CPU or CUDA builds.

TORCH ?= torch==2.13.0
DEMO_ARGS ?=
PYTEST_ARGS ?=
UV ?= uv

BIN := .venv/bin
# Not quiet: behind a slow registry pip says which file it fetches, how large it is and, in a terminal, how far it is.
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install $(if $(CI),--progress-bar off)
STAMP_VENV := .venv/.stamp-venv
STAMP_TORCH := .venv/.stamp-torch
STAMP_CORE := .venv/.stamp-core
STAMP_DEV := .venv/.stamp-dev
CONSTRAINTS := .venv/constraints.txt
FITS := import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

.PHONY: help install install-dev demo test test-all test-precision test-matrix lint format lock clean
.DELETE_ON_ERROR:
.NOTPARALLEL:

help:
	@sed -n '/^$$/q;s/^# \{0,1\}//p' Makefile

install: $(STAMP_CORE)
	@echo "ready: .venv/bin/inlay --help"

install-dev: $(STAMP_DEV)
	@echo "ready: .venv/bin/pytest, .venv/bin/inlay --help"

demo: $(STAMP_CORE)
	@$(BIN)/inlay demo $(DEMO_ARGS)

test: $(STAMP_DEV)
	@$(BIN)/pytest -n 2 -q $(PYTEST_ARGS)

test-all: $(STAMP_DEV)
	@$(BIN)/pytest -n 2 -q -m "slow or not slow" $(PYTEST_ARGS)

# The rooms whose numbers depend on the processor: what `make test` does with fp32 and one thread, once more.
COMPUTING := tests/train tests/model tests/infer tests/export tests/evaluate/subjects
THREADED := tests/model/test_attention.py tests/model/test_decode_step.py tests/infer/test_engine.py

test-precision: $(STAMP_DEV)
	@INLAY_BFLOAT16_UNITS=1 $(BIN)/pytest -n 2 -q $(COMPUTING) $(PYTEST_ARGS)
	@OMP_NUM_THREADS=4 $(BIN)/pytest -q $(THREADED) $(PYTEST_ARGS)

# Each is "Python torch". torch comes first and alone, as above; a registry without a CPU build gives a CUDA build of 5 GB.
MATRIX ?= 3.11=2.11.0 3.12=2.13.0 3.13=2.13.0

test-matrix:
	@command -v $(UV) >/dev/null 2>&1 || { echo "make test-matrix needs uv, which brings the Pythons: pip install uv" >&2; exit 1; }
	@for pair in $(MATRIX); do \
		place=.venv-matrix/$$pair; python=$${pair%=*}; torch=$${pair#*=}; \
		echo "== Python $$python, torch $$torch"; \
		$(UV) venv --quiet --allow-existing --python $$python $$place && \
		$(UV) pip install --quiet --python $$place torch==$$torch && echo torch==$$torch > $$place/constraints.txt && \
		$(UV) pip install --quiet --python $$place --require-hashes -c $$place/constraints.txt \
			-r requirements.lock -r requirements-dev.lock && \
		PYTHONPATH=src $$place/bin/python -m pytest -n 2 -q $(PYTEST_ARGS) || exit 1; \
	done

lint: $(STAMP_DEV)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/pyrefly check
	@$(BIN)/lint-imports

format: $(STAMP_DEV)
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

$(STAMP_VENV):
	@found="$(PYTHON)"; \
	for name in $(if $(PYTHON),,python3.11 python3.12 python3.13 python3); do \
		if command -v $$name >/dev/null 2>&1 && $$name -c "$(FITS)" >/dev/null 2>&1; then found=$$name; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "inlay needs Python 3.11, 3.12 or 3.13 with its venv module; none is on the PATH: install one, or make PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	if ! $$found -c "$(FITS)" >/dev/null 2>&1; then \
		echo "inlay needs Python 3.11, 3.12 or 3.13 with its venv module, and '$$found' is not one: make PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	echo "making .venv with $$found ..."; $$found -m venv .venv
	@touch $@

# torch comes first and alone, because the build that fits depends on the machine; the lock leaves it out.
$(STAMP_TORCH): $(STAMP_VENV)
	@if ! $(BIN)/python -c "import torch" 2>/dev/null; then \
		echo 'installing $(TORCH) ...'; \
		$(PIP) $(TORCH) || { echo "torch could not be installed: see the lines above; make TORCH=... chooses another build" >&2; exit 1; }; \
	fi
	@$(BIN)/python -W ignore -c "import torch; print('torch==' + torch.__version__.split('+')[0])" > $(CONSTRAINTS)
	@$(BIN)/python -W ignore -c "import torch; torch.version.cuda and not torch.cuda.is_available() and print( \
	'note: this torch is a CUDA build, and no GPU is in sight; it works, and a CPU build is smaller (make TORCH=...)')"
	@touch $@

$(STAMP_CORE): $(STAMP_TORCH) requirements.lock pyproject.toml
	@echo "installing the pinned dependencies ..."
	@$(PIP) --require-hashes -c $(CONSTRAINTS) -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(STAMP_DEV): $(STAMP_CORE) requirements-dev.lock
	@echo "installing the pinned test and lint tools ..."
	@$(PIP) --require-hashes -c $(CONSTRAINTS) -r requirements-dev.lock
	@touch $@

# Needs uv. Universal: one lock for Linux and macOS, Python 3.11 to 3.13. No torch, and no address of a registry.
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --excludes .venv/excludes.txt \
	--no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

lock: $(STAMP_VENV)
	@echo torch > .venv/excludes.txt
	@$(COMPILE) requirements.in -o requirements.lock
	@$(COMPILE) requirements-dev.in -c requirements.lock -o requirements-dev.lock

clean:
	@rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find src tests benchmarks experiments -name __pycache__ -type d -prune -exec rm -rf {} +
