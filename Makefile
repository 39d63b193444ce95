# Every habit of this project. `make demo` and `make test` do all their set-up.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test check fuzz fuzz-briefly bench clean help
help:            ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/: .*## /\t/' | expand -t 16

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "diachunk needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.demo: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo  ## the whole story on seeded random weights (300 MB; FULL=1: 6.7 GB)
	$(BIN)/python examples/demo.py

# What fails with all cores busy is run once more, alone: some tests ask for answers in time. It fails if it fails again.
test: $(VENV)/.dev  ## all tests
	./tests/needs.sh
	$(BIN)/python -m pytest -n auto || { [ $$? -eq 1 ] && echo "AGAIN, ALONE:" && \
	    $(BIN)/python -m pytest -n0 --last-failed --last-failed-no-failures none; }

fuzz: $(VENV)/.dev  ## coverage-guided fuzzing, FUZZ_SECONDS (600) for each target, then random trees and a store's long life
	PYTHONPATH=tests $(BIN)/python -m fuzz.run --seconds $(or $(FUZZ_SECONDS),600) --corpus .fuzz/corpus --crashes .fuzz/crashes
	FUZZ_EXAMPLES=500 $(BIN)/python -m pytest -n0 tests/property

fuzz-briefly: $(VENV)/.dev  ## the same for a few seconds, and the same inputs each time: part of CI
	PYTHONPATH=tests $(BIN)/python -m fuzz.run --seed 1

check: $(VENV)/.dev  ## lint, format, types, floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev  ## compares with other tools side by side; writes docs/benchmarks.md
	./tests/needs.sh
	$(BIN)/python -m benchmarks.run

clean:           ## removes what the above made
	rm -rf $(VENV) .programs demo-data .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .fuzz
