# make bench · make check · make test · make lint: each sets up .venv by itself, and again when its inputs change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Kernels are compiled for this machine's GPU; without one, for sm_90, to prove that they compile.
CUDA_ARCHITECTURES ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo native || echo 90)
# Two at a time: a test of a full-size network takes 3 GB, so that more is not always faster.
PYTEST := $(BIN)/python -m pytest -n 2 --durations=15
# Linted and formatted.
PYTHON_FOLDERS := python benchmarks tests examples scripts
NATIVE_SOURCES := CMakeLists.txt $(shell find csrc cmake tests/native -type f 2>/dev/null)

.PHONY: bench check test test-machines lint format clean setup

bench: $(VENV)/.native
	$(BIN)/python benchmarks/latency.py --model hinet --fp16

# For every edit: lint, types, and the tests that are not slow.
check: lint $(VENV)/.native
	$(PYTEST) -m "not slow"

test: $(VENV)/.native
	$(PYTEST)

# The tests that compare numbers, on other CPUs that this one stands in for: before every release.
test-machines: $(VENV)/.native
	$(BIN)/python tests/machines/simulate.py

lint: $(VENV)/.packages
	$(BIN)/ruff check $(PYTHON_FOLDERS)
	$(BIN)/ruff format --check $(PYTHON_FOLDERS)
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.h' '*.cpp' '*.cu')
	$(BIN)/mypy

format: $(VENV)/.packages
	$(BIN)/ruff check --fix $(PYTHON_FOLDERS)
	$(BIN)/ruff format $(PYTHON_FOLDERS)
	$(BIN)/clang-format -i $$(git ls-files '*.h' '*.cpp' '*.cu')

setup: $(VENV)/.native

# The exact torch release: a range may bring gigabytes of CUDA to a machine that has no GPU.
$(VENV)/.packages: pyproject.toml scripts/requirements.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "python's venv module is missing: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet "torch==2.13.0"
	$(BIN)/python scripts/requirements.py build dev tensorrt-rtx > $(VENV)/requirements.txt
	$(BIN)/python -m pip install --quiet -r $(VENV)/requirements.txt
	# TensorRT's C++ headers, which its own wheels lack; only the plugin library needs them.
	$(BIN)/python -m pip install --quiet --no-deps "kernel-lens==2.0.1" || \
	  echo "no TensorRT headers: the plugin library will not be built"
	touch $@

$(VENV)/.native: $(VENV)/.packages $(NATIVE_SOURCES)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation \
	  -C cmake.define.CMAKE_CUDA_ARCHITECTURES="$(CUDA_ARCHITECTURES)" -e .
	touch $@

clean:
	rm -rf $(VENV) build dist python/restorert/*.so
