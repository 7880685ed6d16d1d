# Everything lives in a virtual environment in the checkout; nothing is asked of the system but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint types docs overhead bench throughput switches cost profile clean

demo: $(INSTALLED)
	$(BIN)/tutelage demo

test: lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

docs: $(INSTALLED)
	$(BIN)/python docs/generate.py

overhead: $(INSTALLED)
	$(BIN)/python benchmarks/overhead.py

bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'

# What these measure is printed; given --out, the scripts write it as JSON, too.
throughput: bench
	$(BIN)/python benchmarks/throughput.py

switches: $(INSTALLED)
	$(BIN)/python benchmarks/switches.py

cost: $(INSTALLED)
	$(BIN)/python benchmarks/cost.py

profile: $(INSTALLED)
	$(BIN)/python benchmarks/profile_step.py

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Tutelage needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(INSTALLED)

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
