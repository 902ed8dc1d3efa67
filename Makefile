# Setup, demo, tests and checks. Every target installs what it needs into .venv first.

PYTHON ?= python3
SYSTEM_TORCH ?= 0
# Most tests wait for processes that they started; two at a time keep two cores busy.
TEST_WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PINS := $(VENV)/constraints.txt
# Read from the environment itself, so that later calls need not repeat SYSTEM_TORCH=1.
KEEPS_SYSTEM_TORCH := grep -qs 'include-system-site-packages = true' $(VENV)/pyvenv.cfg

# Prints the pin that keeps pip from replacing the torch that is already there.
define SYSTEM_TORCH_PIN
import sys
from importlib.metadata import version
from pip._vendor.packaging.version import Version

clean = "; or run make clean, then make setup without SYSTEM_TORCH=1"
try:
    import torch
except Exception as error:
    sys.exit(f"SYSTEM_TORCH=1 needs a torch that {sys.base_prefix} can import ({error}): "
             f"install the vendor's torch 2.6 or newer" + clean)
if Version(torch.__version__) < Version("2.6"):
    sys.exit(f"the system's torch is {torch.__version__}, prism needs 2.6 or newer: "
             f"install a newer one" + clean)
print("torch==" + version("torch"))
endef
export SYSTEM_TORCH_PIN

.PHONY: help setup demo test check matrix clean same-torch
.DEFAULT_GOAL := help

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  PYTHON=python3.12 picks the interpreter; SYSTEM_TORCH=1 keeps the system's torch"
	@echo "  TEST_WORKERS=0 runs the tests in one process"
	@echo "  MATRIX='--python 3.10 --transformers 5.0.0' picks cells of the matrix"

setup: $(STAMP)  ## Install prism and its tools into .venv

demo: $(STAMP)  ## Run the demo: several nodes on this machine
	$(BIN)/prism demo

test: $(STAMP)  ## Run the tests
	$(BIN)/pytest --numprocesses $(TEST_WORKERS) --dist loadgroup --no-loadscope-reorder

check: $(STAMP)  ## Check style, types and imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

matrix:  ## Run the tests under all supported Pythons and several transformers releases
	scripts/matrix $(MATRIX)

clean:  ## Remove .venv and everything that was built
	rm -rf $(VENV) build dist src/*.egg-info
	rm -rf .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find src tests -name __pycache__ -prune -exec rm -rf {} +

same-torch:
	@if [ "$(SYSTEM_TORCH)" = 1 ] && [ -e $(VENV)/pyvenv.cfg ] && ! $(KEEPS_SYSTEM_TORCH); then \
		echo "$(VENV) has its own torch: run make clean, then make setup SYSTEM_TORCH=1" >&2; \
		exit 1; \
	fi

$(STAMP): pyproject.toml constraints.txt | same-torch
	@command -v $(PYTHON) > /dev/null || \
		{ echo "$(PYTHON) was not found: install Python 3.10 or newer, or name one with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("$(PYTHON) is " + \
		sys.version.split()[0] + ", prism needs 3.10 or newer: name one with make PYTHON=...")'
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || \
		{ echo "$(PYTHON) lacks the venv module: install it (Debian, Ubuntu: the package python3-venv)" >&2; exit 1; }
	@test -x $(BIN)/pip || \
		$(PYTHON) -m venv $(if $(filter 1,$(SYSTEM_TORCH)),--system-site-packages) $(VENV)
	@cp constraints.txt $(PINS)
	@if $(KEEPS_SYSTEM_TORCH); then \
		pin=$$($(BIN)/python -c "$$SYSTEM_TORCH_PIN") && \
		sed "s/^torch==.*/$$pin/" constraints.txt > $(PINS); \
	fi
	$(BIN)/pip install --quiet --constraint $(PINS) --editable ".[dev,plots,openvino,onnxruntime,serve]"
	@touch $@
