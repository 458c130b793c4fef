# `make` lists the targets. Each makes .venv if it is missing, with the versions of constraints.txt; a second call starts at once.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo test test-slow test-tpu lint format clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $$($(PYTHON) --version) is too old, 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.installed

install: $(VENV)/.installed ## .venv with what training and generation need

install-dev: $(VENV)/.installed-dev ## .venv with what the tests need as well

demo: $(VENV)/.installed ## train the smallest model on the bundled sample and print its first story
	@$(BIN)/python run.py name=demo trainer=auto
	@echo; echo "A story that begins with 双十一, by the model of runs/demo:"; echo
	@$(BIN)/python run.py task=generate ckpt=runs/demo 'prompt="双十一"' generation.max_new_tokens=120
	@echo; echo "Word salad: 2 million parameters have read 190 thousand characters. More text and a larger model make sense of it:"
	@echo "  $(BIN)/python run.py model=mini data=files data.root=<folder of .txt or .jsonl>     train on your own texts"
	@echo "  $(BIN)/python run.py task=generate ckpt=runs/demo                                   type beginnings of your own"
	@echo "  $(BIN)/python run.py --help                                                         tasks, groups, five examples"

test: $(VENV)/.installed-dev ## the tests that every change must pass, under six minutes on two cores
	$(BIN)/python -m pytest -m "not slow and not gpu" -n 2 --dist worksteal

test-slow: $(VENV)/.installed-dev test-tpu ## what takes minutes: several processes, whole runs, the TPU code
	$(BIN)/python -m pytest -m slow --ignore=tests/tpu -n 2 --dist worksteal

# torch_xla has its own torch, hence .venv-tpu (7 GB); without libtpu, as the tests make the CPU four devices
$(VENV)-tpu/.installed: pyproject.toml constraints-tpu.txt | $(VENV)/bin/python
	$(BIN)/python -m venv $(VENV)-tpu
	$(VENV)-tpu/bin/python -m pip install --disable-pip-version-check -c constraints-tpu.txt -e . torch_xla==2.9.0 pytest pytest-timeout
	@touch $@

test-tpu: $(VENV)-tpu/.installed ## the TPU code on a CPU that torch_xla sees as four devices
	$(VENV)-tpu/bin/python -m pytest tests/tpu

lint: $(VENV)/.installed-dev ## ruff, check and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv, caches and builds; runs/ and data/ stay
	rm -rf $(VENV) $(VENV)-tpu build dist .pytest_cache .ruff_cache .hypothesis *.egg-info
