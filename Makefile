# Every target is one line over `lpu` or pytest; the rest of this file makes the environment they run in.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Processes that run tests at once.
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

# Set and string order must not move from run to run: generated Verilog would, and be built again.
export PYTHONHASHSEED := 0
# The variables of this makefile are passed on as options, below, and not to the makes that Verilator starts.
MAKEOVERRIDES :=

# `--name "value"` for each of the make variables that is set: $(call options,PROMPT TOKENS)
lower = $(shell echo $(1) | tr A-Z a-z)
options = $(foreach v,$(1),$(if $($(v)),--$(call lower,$(v)) "$$$(v)"))
# Likewise `--name` for a variable that is neither empty nor 0.
switches = $(foreach v,$(1),$(if $(filter-out 0,$($(v))),--$(call lower,$(v))))

PYTEST := $(BIN)/python -m pytest --junitxml=build/test/junit.xml
TEST_OPTIONS = $(call options,BENCH SIM CONFIG SEED PROGRAM) $(call switches,WAVES)
# A single bench runs in this process and shows what it prints; otherwise tests run in parallel.
PARALLEL = $(if $(BENCH),-s,$(if $(filter-out 1,$(JOBS)),-n $(JOBS) --maxschedchunk=1))
# A dollar sign in a prompt is text, not a variable of make's.
override PROMPT := $(value PROMPT)
override SECOND := $(value SECOND)
export RAW BENCH SIM SEED PROGRAM MINUTES PART SEEDS PROMPT SECOND TOKENS TEMPERATURE TOPK CONFIG MODEL WEIGHTS BOARD

.PHONY: help setup sim bitstream test regress bench mixtral-layer lint clean icarus

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1 \t/' | expand -t 22

setup: $(STAMP) ## make .venv with the pinned packages (the other targets do it by themselves)

sim: $(STAMP) ## write text on the LPU's RTL: PROMPT="..." SECOND="..." TOKENS=64 TEMPERATURE=0.8 TOPK=4 SEED=1 CONFIG= MODEL= WEIGHTS=int4 WAVES=1 RAW=1
	@$(BIN)/lpu sim $(call options,PROMPT SECOND TOKENS TEMPERATURE TOPK SEED CONFIG MODEL WEIGHTS) $(call switches,WAVES RAW)

bitstream: $(STAMP) ## build the bitstream of a board: BOARD=ulx3s-85f MODEL= SEED= SEEDS=8
	@$(BIN)/lpu bitstream $(call options,BOARD MODEL SEED SEEDS)

test: $(STAMP) icarus ## run the tests and benches, or one bench: BENCH=vxm SIM=icarus CONFIG=tiny SEED=7 PROGRAM= WAVES=1
	@$(PYTEST) $(PARALLEL) $(if $(BENCH),tests/test_benches.py,-m "not slow") $(TEST_OPTIONS) 2>&1 | tee build/test/log.txt

regress: $(STAMP) icarus ## run everything that takes long, on new seeds: MINUTES=30 SEED=1 PART=soak
	@$(BIN)/python -m verification.regress $(call options,MINUTES SEED PART)

bench: $(STAMP) $(VENV)/.bench $(if $(filter-out 0,$(LLAMA)),$(VENV)/.llama) ## measure cycles, utilisation and speed, beside what else runs the model here: LLAMA=1 SIMULATORS=1
	@$(BIN)/lpu bench $(call switches,SIMULATORS)

mixtral-layer: $(STAMP) $(VENV)/.bench ## run a full-size Mixtral-8x7B decoder layer on the RTL, against transformers: TOKENS=4 SEED=1 WEIGHTS=int8
	@$(BIN)/python -m verification.mixtral_layer $(call options,TOKENS SEED WEIGHTS)

# What the benchmark compares with and draws with; without it those rows and pictures are left out.
$(VENV)/.bench: $(STAMP)
	@echo "Installing what the benchmark compares with (transformers, torch, matplotlib; once) ..."
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[bench]' && touch $@ || echo "not installed: no transformers baseline, no pictures"

# llama.cpp comes as source alone: for this processor, without what reads images.
$(VENV)/.llama: $(STAMP)
	@echo "Compiling llama.cpp, a baseline (once; about seven minutes of one core) ..."
	@CMAKE_ARGS="-DLLAVA_BUILD=OFF -DGGML_NATIVE=ON" $(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[llama]' && touch $@ || echo "not installed: no llama.cpp baseline"

lint: $(STAMP) ## check style and types
	@$(BIN)/ruff check . && $(BIN)/mypy

clean: ## remove what was built, but not .venv
	@rm -rf build *.egg-info

# Benches run in Icarus Verilog, too, unless Verilator alone is asked for.
icarus:
	@mkdir -p build/test
	@$(if $(filter verilator,$(SIM)),true,$(PYTHON) -I sim/tools.py --icarus)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1): make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -I sim/tools.py
	@echo "Setting up $(VENV) with the pinned packages (once) ..."
	@$(PYTHON) -m venv $(VENV) || { echo "error: $(PYTHON) cannot make virtual environments. On Debian or Ubuntu: sudo apt-get install python3-venv" >&2; exit 2; }
	@$(BIN)/python -m pip install --disable-pip-version-check --editable .
	@touch $@
