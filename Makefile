# Everything lives in a virtual environment in the checkout; nothing is asked of the system but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# The lowest versions that pyproject.toml allows, in an environment of their own.
LOWEST := .venv-lowest
# What users meet first: train, resume, compare, record, doctor, report, messages, and a step of every method.
LOWEST_TESTS := tests/api tests/test_saved_runs.py tests/cli/test_commands_errors.py \
	tests/cli/test_commands_record.py tests/experiments/doctor tests/experiments/test_choice.py \
	tests/experiments/test_comparison.py tests/methods/test_number_types.py tests/system/test_devices.py \
	tests/tasks/test_end_to_end.py tests/training/test_decisions.py

.PHONY: demo test test-lowest lint types docs overhead bench throughput switches cost profile clean

demo: $(INSTALLED)
	$(BIN)/tutelage demo

test: lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# Newer packages than the lowest ones need deprecate what these call, which their users do not see.
test-lowest: $(LOWEST)/.installed
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -W ignore::DeprecationWarning $(LOWEST_TESTS)

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

# uv takes the lower bound of what pyproject.toml names, and the newest of what that needs in turn.
$(LOWEST)/.installed: $(INSTALLED)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable .
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --constraint constraints.txt hypothesis pytest pytest-timeout
	@touch $(LOWEST)/.installed

clean:
	rm -rf $(VENV) $(LOWEST) .mypy_cache .pytest_cache .ruff_cache
