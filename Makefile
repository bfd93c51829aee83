# Everything that a person or the CI runs. A bare machine needs Python 3.11 with pip; the rest is installed into .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test check format clean
.DEFAULT_GOAL := demo

demo: $(INSTALLED)          ## search the embedded default and print its front
	$(BIN)/paredown search

test: $(INSTALLED)          ## every test that takes seconds; two processes of one thread
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow" -n 2 --dist worksteal

check: $(INSTALLED)         ## lint, format, types, and that no package was forgotten
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	for folder in examples/*/; do $(BIN)/mypy "$$folder" || exit 1; done
	$(BIN)/python -m pytest -q tests/packaging/test_package_list.py

format: $(INSTALLED)        ## let ruff write what `check` asks for
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:                      ## what was built or installed here, but no run
	rm -rf $(VENV) build dist src/paredown.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "paredown needs Python 3.11 or newer, got $$($(PYTHON) --version); try make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "installing into $(VENV); the first time takes a few minutes" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
