# What a person types: `make demo`, `make test`. Both set themselves up; a second set-up costs nothing.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready

.PHONY: setup demo test check bench screenshots pins clean
.DEFAULT_GOAL := help

help: ## Say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(READY) ## Make .venv with the command `fieldtally` in it

$(READY): pyproject.toml requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Fieldtally needs Python 3.11 or newer; say which with: make PYTHON=python3.11 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	PYTHONWARNINGS=ignore $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## Report a real operation, tally it live, replay and audit it
	@$(VENV)/bin/fieldtally demo || [ $$? -eq 130 ] # Ctrl-C is how one leaves it

test: setup ## Run the tests, with real Valkey servers
	$(VENV)/bin/python -m pytest -n auto --maxprocesses 4 --dist worksteal

check: setup ## Lint, types, layering
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: setup ## Measure; prints ratios within one run (takes some minutes)
	$(VENV)/bin/python tests/bench

screenshots: setup ## Take the pictures of the screen in docs/screenshots anew; needs Chromium
	$(VENV)/bin/python tests/screenshots.py

pins: ## Pin the dependencies anew, with hashes and without an index address
	$(VENV)/bin/python -m piptools compile --quiet --generate-hashes --no-emit-index-url --no-emit-trusted-host \
		--no-emit-find-links --allow-unsafe --strip-extras --extra dev --no-header --output-file requirements.txt pyproject.toml

clean: ## Remove the set-up
	rm -rf $(VENV)
