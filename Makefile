# Everything a newcomer or CI types. Each target installs what it needs, once.
# the first that runs and is new enough; a name on PATH alone may be a stub
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
CONSTRAINTS ?= constraints/dev.txt
# tests side by side, see tests/spread.py; 0 = one after the other
WORKERS ?= 2
# pip's notices are noise in a first impression
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet

.PHONY: quickstart test check matrix chaos bench bench-preprocess bench-train oldest default-base docs golden bed clean

## The main job on this machine: real text -> tokenizer -> cache -> a small trained model.
quickstart: $(VENV)/.train
	@$(BIN)/clusterlm submit jobs/quickstart.yaml --name "quickstart-$$(date +%m%d-%H%M%S)" --watch
	@echo "to type clusterlm yourself:  . $(BIN)/activate"

## Everything: style, types, unit tests, and the scenarios on a real Slurm (started by the tests).
test: $(VENV)/.dev bed check
	@# hundreds of processes are started; where bytecode is not kept, each compiles everything anew
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS)

## Every mode under every strategy, killed and resumed, in fp32 and bf16; and on other numbers of ranks.
## And what a user does on four versions of Slurm, each with and without accounting.
matrix: $(VENV)/.dev bed
	CLUSTERLM_WHOLE_MATRIX=1 $(BIN)/python -m pytest -n $(WORKERS) tests/versions tests/train/test_resume_matrix.py \
	  tests/train/test_other_ranks.py

## 200 submits that are killed at random instants, on a real Slurm: each must be one training.
## And 200 from a laptop whose line to it is cut: submits, files and logs.
chaos: $(VENV)/.dev bed
	$(BIN)/python -m tests.chaos.kill_submit
	$(BIN)/python -m tests.chaos.cut_submit

## Style and types only.
check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## Debian's Slurm packages for the test bed, where root or sudo allows.
bed:
	@bash tests/bed/install.sh

## The benchmarks, as tables of ratios.
bench: $(VENV)/.dev bed
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.status
	$(BIN)/python -m benchmarks.submit
	$(BIN)/python -m benchmarks.fetch
	$(BIN)/python -m benchmarks.images
	$(BIN)/python -m benchmarks.first_step
	$(BIN)/python -m benchmarks.preprocess
	$(BIN)/python -m benchmarks.train_throughput

## The data engine against what people use today; makes its corpus and tokenizers once, in .bench.
bench-preprocess: $(VENV)/.dev
	$(BIN)/python -m benchmarks.preprocess

## Useful tokens a second against TRL and a plain Trainer; on a GPU with models of 8B and 1B.
bench-train: $(VENV)/.dev
	$(BIN)/python -m benchmarks.train_throughput

## The tests that need neither Slurm nor torch, with the oldest allowed version of every dependency.
oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --upgrade pip
	.venv-oldest/bin/python -m pip install --quiet -c constraints/oldest.txt -e . \
	  datasets numpy orjson pyarrow tokenizers zstandard pytest pytest-timeout hypothesis
	.venv-oldest/bin/python -m pytest tests/spec tests/cluster tests/supervise tests/data tests/test_render.py

## The training tests with what goes on the default base image (torch 2.5, numpy 1); gigabytes of CUDA.
default-base:
	$(PYTHON) -m venv .venv-default-base
	.venv-default-base/bin/python -m pip install --quiet --upgrade pip
	.venv-default-base/bin/python -m pip install --quiet -c constraints/ngc-24.08.txt torch setuptools wheel
	.venv-default-base/bin/python -m pip install --quiet -c constraints/ngc-24.08.txt -e '.[train,fast]' \
	  pytest pytest-timeout hypothesis
	.venv-default-base/bin/python -m pytest tests/train tests/data -o filterwarnings=default

## Pages that are made from the code.
docs: $(VENV)/.dev
	$(BIN)/python -m clusterlm.spec.reference > docs/job-yaml.md

## The rendered files that the tests compare with.
golden: $(VENV)/.dev
	$(BIN)/python -m pytest tests/test_render.py tests/images/test_dockerfile.py \
	  tests/images/test_import.py --update-golden

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || \
	  { echo "no Python 3.11 or newer found: install one, or: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || bash tests/bed/install.sh python3-venv
	@$(PYTHON) -m venv $(VENV)

# torch first and pinned: an open range would bring gigabytes of CUDA to a machine without a GPU
$(VENV)/.train: $(VENV)/bin/python pyproject.toml $(CONSTRAINTS)
	@echo "installing into $(VENV) (torch, transformers, deepspeed, ...): some minutes the first time"
	@$(PIP) --upgrade pip
	@$(PIP) -c $(CONSTRAINTS) torch setuptools wheel
	@$(PIP) -c $(CONSTRAINTS) -e '.[train,fast]'
	@touch $@

$(VENV)/.dev: $(VENV)/.train
	@$(PIP) -c $(CONSTRAINTS) --group dev
	@touch $@

clean:
	rm -rf .venv .venv-oldest .venv-default-base build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .bench
