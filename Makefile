# Everything lives in .venv; a target sets up what it needs of it when that is missing or the dependencies have changed.
PYTHON ?= python3
# What pip is asked for PyTorch: TORCH="torch --index-url ADDRESS" takes another build than the usual one.
TORCH ?= torch
# Processes that run tests at once.
TESTERS ?= 2
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
READY := .venv/ready
READY_DEV := .venv/ready-dev

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check format bench docs lessons clean

help:
	@echo "make demo    set up, run the demo study, write its report (minutes)"
	@echo "make test    set up for development, run the tests except the slow ones (make test-all runs them all)"
	@echo "make check   formatting, lint, strict types, import arrows"
	@echo "make bench   speed against peers, what depth and probes cost, measured side by side (benchmarks/ has more)"
	@echo "make docs    the documentation as HTML that needs no network; start at build/docs/index.html"
	@echo "make lessons the notebooks of docs/lessons executed (minutes), with their outputs, in build/lessons"
	@echo "make format  rewrite the code to the house style"
	@echo "make clean   remove .venv, caches and what was built (runs and reports stay)"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) $(TORCH)
	$(INSTALL) -e .
	@touch $@

$(READY_DEV): $(READY)
	$(INSTALL) -e ".[dev]"
	@touch $@

demo: $(READY)
	$(BIN)/leadline run demo
	$(BIN)/leadline report demo --output report/demo

test: $(READY_DEV)
	$(BIN)/python -m pytest -n $(TESTERS)

test-all: $(READY_DEV)
	$(BIN)/python -m pytest -n $(TESTERS) -m ''

check: $(READY_DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY_DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.depth
	$(BIN)/python -m benchmarks.probes

docs: $(READY_DEV)
	$(BIN)/python -m sphinx -q -E -W --keep-going -d build/doctrees docs build/docs
	@echo "written: build/docs; open build/docs/index.html"

lessons: $(READY_DEV)
	$(BIN)/python -m docs.execute

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist src/leadline.egg-info
