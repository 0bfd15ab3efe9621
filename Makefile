# Works with GNU Make 3.81 (macOS) and later. `make` alone lists the targets.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed

# A folder of packages that takes the place of the network: make lab WHEELS=wheelhouse
WHEELS ?=
FROM_WHEELS = $(if $(WHEELS),--no-index --find-links '$(abspath $(WHEELS))')
PROJECT := -c constraints.txt -e '.[lab,sources,ship,test]'

# In most containers the user is root, which Jupyter serves only when asked to.
AS_ROOT = $(if $(filter 0,$(shell id -u)),--allow-root)

.DEFAULT_GOAL := help
.PHONY: help run lab cover uncover demo test rehearse colab-check compat-check endure docs address bench notebooks lint format wheelhouse minutes clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

run: $(STAMP) ## run the whole series into runs/ and print the before/after table
	$(PY) tools/run_notebooks.py notebooks --out runs

lab: $(STAMP) ## open the series in JupyterLab
	$(PY) -m jupyterlab $(AS_ROOT) $(ARGS) notebooks/00_start_here.ipynb

cover: $(STAMP) ## cover what each "Predict" asks for, until you click on it or run the cell
	$(PY) tools/cover.py

uncover: $(STAMP) ## show all results again
	$(PY) tools/cover.py --uncover

test: lint ## lint, run every test and every notebook
	$(PY) -m pytest

demo: $(STAMP) ## build the page that runs the model in a browser, and serve it on this machine
	$(PY) tools/demo.py $(ARGS)

rehearse: $(STAMP) ## run every cell with the architecture of MobileCLIP2-S0, random weights
	$(PY) tools/rehearse.py $(ARGS)

colab-check: $(STAMP) ## run the series with Colab's versions, and show that none of them moves
	$(PY) tools/colab_check.py $(ARGS)

compat-check: $(STAMP) ## run tests and notebooks with the oldest and the newest versions allowed
	$(PY) -m nox $(ARGS)

# One thread: the processes that it kills are forks, which have no other.
endure: $(STAMP) ## kill 200 training runs and saves, and record 1,000 times: nothing may be lost
	OMP_NUM_THREADS=1 PYTHONPATH=.:tests $(PY) tests/endure/endure.py $(ARGS)

docs: $(STAMP) ## (authors) make docs/api.md from the docstrings
	$(PY) tools/api_page.py

address: $(STAMP) ## (authors) write the repository's address everywhere: make address URL=https://…
	$(PY) tools/address.py $(URL)

bench: $(STAMP) ## measure what the README's tables say
	@for script in benchmarks/[!_]*.py; do \
		if [ -e "$$script" ]; then \
			echo "== $$script"; $(PY) "$$script" || exit 1; \
		else \
			echo "benchmarks/ is empty"; \
		fi; \
	done

notebooks: $(STAMP) ## (authors) run the series in place and store its outputs
	$(PY) tools/run_notebooks.py notebooks --in-place

lint: $(STAMP) ## check the style, the directions of imports and the types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/lint-imports --no-logo
	$(PY) -m mypy

minutes: $(STAMP) ## (authors) count what each notebook takes to read, into docs/teaching.md
	$(PY) tools/minutes.py

format: $(STAMP) ## put the style right
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# hatchling and editables build the editable install; they stay in no venv, so they are named here.
wheelhouse: ## download all packages into wheelhouse/ (or WHEELS=folder), for machines without a network
	$(MAKE_VENV)
	$(PY) -m pip download -d '$(or $(WHEELS),wheelhouse)' \
		$(filter-out -e,$(PROJECT)) hatchling editables

clean: ## remove .venv and caches (runs/ stays: your adapters are in it)
	rm -rf $(VENV) .colab-check .compat-check build dist .hypothesis .*_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -prune -exec rm -rf {} +

# A command of the shell that makes .venv where there is none, or one without pip.
define MAKE_VENV
@if ! $(PY) -m pip --version >/dev/null 2>&1; then \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "This needs Python 3.11 or newer; '$(PYTHON)' is missing or older:" >&2; \
		$(PYTHON) --version >&2; \
		echo "Name another one:  make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
		exit 1; \
	}; \
	$(PYTHON) -m venv $(VENV) || exit 1; \
fi
endef

# The stamp is newer than both files for as long as the installed versions are the right ones.
$(STAMP): pyproject.toml constraints.txt
	$(MAKE_VENV)
	$(PY) -m pip install $(FROM_WHEELS) $(PROJECT)
	@touch $@
