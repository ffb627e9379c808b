# For a fresh machine: `make train`, `make finetune`, `make test`. Needs python3 (3.11 or newer).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: train finetune test test-all parity lint clean
.DELETE_ON_ERROR:

train: $(VENV)/.installed
	$(BIN)/python train.py --config configs/quick.py --workdir runs/quick

# Teaches the model that ships something new; see docs/finetune.md for pictures of your own.
finetune: $(VENV)/.installed
	$(BIN)/python train.py --config configs/finetune.py --workdir runs/finetune

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow and not parity and not gpu"

test-all: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not parity and not gpu"

# PyTorch is pinned, so that a CPU build of it can be installed beforehand.
parity: $(VENV)/.installed-parity
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m parity

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-%: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .[$*]
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
