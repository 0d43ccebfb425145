# On a fresh machine with python3 (3.11 or later), its venv module and make:
#
#   make run         install into .venv and run the demonstration; its data stays in ./var
#   make test        install with what the tests need, lint, check types, run every test that is quick
#   make test-slow   soaks and crash runs that take minutes
#   make test-node   examples/node, with packages from npm
#   make lint        ruff, ruff format, mypy
#   make bench       measure zeod and ZEO side by side
#   make docs        build the documentation as a book, into docs/_build
#   make clean       remove what was made here, but not ./var

# Tests wait for disks and other processes more than they compute, so there are more at once than processors; their
# order is that of a single process if WORKERS is 0.

PYTHON ?= python3
WORKERS ?= 4
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: run test test-node test-slow lint bench docs clean

run: $(VENV)/.installed
	@$(BIN)/python examples/demo.py

test: lint
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

# Not part of `make test`, which needs nothing but Python.
test-node: $(VENV)/.installed-test
	@command -v npm >/dev/null || { echo "make test-node needs Node 18 or later, with npm" >&2; exit 1; }
	cd examples/node && npm ci --no-audit --no-fund
	$(BIN)/python -m pytest -q -m node

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -q -m "slow and not node"

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy examples/*.py

bench: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks

docs: $(VENV)/.installed-test
	$(BIN)/sphinx-build -n -W --keep-going -q docs docs/_build
	@echo "the book begins at docs/_build/index.html"

# A stamp stands for each state of the environment, so that a second run starts at once; pyproject.toml renews it.
$(VENV)/.installed: pyproject.toml | $(VENV)/.made
	@echo "installing zeod into $(VENV)"
	@$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/.made
	@echo "installing zeod and what its tests need into $(VENV)"
	@$(PIP_INSTALL) --editable '.[test]'
	@touch $(VENV)/.installed $@

# --clear, because an interrupted attempt leaves half an environment behind
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"zeod needs Python 3.11 or later and $(PYTHON) is " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments: its venv and ensurepip modules are missing." >&2; \
		echo "On Debian and Ubuntu they come with: apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
