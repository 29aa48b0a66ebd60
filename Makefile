# make demo   the main job, end to end      make test       the tests that end in minutes
# make lint   what must hold before a push  make test-all   also the slow ones
# make bench  figures beside our peers      make format     rewrite the sources in our style
# make sql    Spark, with a Java of its own if there is none
#
# Each sets up what it needs in .venv the first time. PYTHON names another Python (3.11 or later).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
DONE := $(VENV)/done
PACKAGES := enclave frameworks ground microkernel srds timemachine
OUR_PYTHON := $(PACKAGES) benchmarks examples integration_tests tools setup.py
CYTHON_SOURCES := $(shell find $(PACKAGES) -name '*.pyx' -o -name '*.pxd' -o -name '*.h')

EXTRAS_demo := demo
EXTRAS_test := demo,onnx,torch,test
EXTRAS_all := demo,onnx,torch,sql,test,bench
EXTRAS_lint := lint
EXTRAS_bench := bench
EXTRAS_sql := sql

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: build demo test test-all lint bench sql format clean distclean

build: $(DONE)/build

demo: $(DONE)/demo $(DONE)/build
	$(BIN)/srds demo mortgage

test: $(DONE)/test $(DONE)/build
	$(BIN)/python -m pytest -q -m "not slow" $(TESTS)

test-all: $(DONE)/all $(DONE)/build
	$(BIN)/python -m pytest -q $(TESTS)

lint: $(DONE)/lint $(DONE)/build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint $(PACKAGES)

bench: $(DONE)/bench $(DONE)/build
	$(BIN)/python -m benchmarks --setup
	$(BIN)/python -m benchmarks $(BENCH)

sql: $(DONE)/sql $(DONE)/build
	@command -v java >/dev/null || ln -sf ../../tools/java/bin/java $(BIN)/java

format: $(DONE)/lint
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean:
	rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache $(DONE)/build
	find $(PACKAGES) \( -name '*.so' -o -name '*.c' \) -delete
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) .peers

$(DONE)/venv: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo 'SRDS needs Python 3.11 or later: make PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	    || { echo 'no venv module: on Debian or Ubuntu, apt-get install python3-venv'; exit 1; }
	@test -e "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" \
	    || { echo 'no Python headers: on Debian or Ubuntu, apt-get install python3-dev'; exit 1; }
	@command -v cc >/dev/null || command -v gcc >/dev/null \
	    || { echo 'no C compiler: on Debian or Ubuntu, apt-get install gcc'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt setuptools wheel Cython
	@mkdir -p $(DONE) && touch $@

# Editable: what is changed in the tree is what runs. The pinned Cython of .venv does the build.
$(DONE)/demo $(DONE)/test $(DONE)/all $(DONE)/lint $(DONE)/bench $(DONE)/sql: \
    $(DONE)/venv pyproject.toml
	$(PIP) install -c constraints.txt --no-build-isolation $(call torch_index,$(EXTRAS_$(@F))) \
	    -e '.[$(EXTRAS_$(@F))]'
	@touch $@

$(DONE)/build: $(DONE)/venv setup.py $(CYTHON_SOURCES)
	$(BIN)/python setup.py -q build_ext --inplace
	@touch $@

torch_index = $(if $(findstring torch,$(1)),$$($(BIN)/python tools/cpu_torch_index.py))
