# Everything runs in an environment of its own, made when there is none. `make help` lists the targets.
#   ENGINE=mm (mmengine + mmcv-lite) or ENGINE=onedl (onedl-mmengine + onedl-mmcv); VENV=folder; PYTHON=python3.11
ENGINE ?= mm
VENV ?= .venv
PYTHON ?= python3
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed-$(ENGINE)
WORK_DIR ?= work_dirs/quickstart
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-features test-triton lint clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

install: $(STAMP) ## make the environment and install the tested set

quickstart: $(STAMP) ## train LIIR on generated videos, evaluate, write work_dirs/quickstart/report.html
	$(PY) tools/quickstart.py --work-dir $(WORK_DIR) $(QUICKSTART_ARGS)

test: $(STAMP) ## run the test suite
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(shell nproc 2>/dev/null || echo 2) --dist worksteal $(PYTEST_ARGS)

test-features: $(STAMP) ## test the features of timm and transformers, in this environment
	$(PY) -m pip install --disable-pip-version-check -q -c requirements/constraints-$(ENGINE).txt -e '.[$(ENGINE),test,hf]'
	$(PY) -m pip install --disable-pip-version-check -q --no-deps -c requirements/constraints-$(ENGINE).txt timm
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(shell nproc 2>/dev/null || echo 2) tests/test_features.py tests/test_models/test_adapters.py

test-triton: $(STAMP) ## test the CUDA kernel in Triton's interpreter, in this environment; needs no GPU
	$(PY) -m pip install --disable-pip-version-check -q --no-deps -c requirements/constraints-$(ENGINE).txt triton
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(shell nproc 2>/dev/null || echo 2) tests/test_ops/test_triton_attend.py $(PYTEST_ARGS)

lint: $(STAMP) ## check the style
	$(PY) -m ruff check .

clean: ## remove the environment
	rm -rf $(VENV)

$(STAMP): setup.cfg requirements/constraints-$(ENGINE).txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found: install Python 3.10 or newer, or set PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "make: $$($(PYTHON) --version) is too old: mmliir needs Python 3.10 or newer; set PYTHON=..." >&2; exit 1; }
	@test -x $(PY) || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV) || { echo "make: cannot make $(VENV): on Debian or Ubuntu, apt install python3-venv" >&2; exit 1; }; }
	@echo "installing mmliir with the '$(ENGINE)' engine into $(VENV) (PyTorch is large: minutes, once)"
	$(PY) -m pip install --disable-pip-version-check -c requirements/constraints-$(ENGINE).txt -e '.[$(ENGINE),video,test,dev]'
	@rm -f $(VENV)/.installed-*
	@touch $@
