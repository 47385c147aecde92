# Every target sets up what it needs: in .venv, with uv where it is on PATH, else with venv and pip.
# Everything is installed from the hash-pinned lock files; `make lock` writes them anew.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help

# The Python that .venv is made from; the first suitable of these unless PYTHON names one.
PYTHONS := python3 python3.13 python3.12 python3.11
PYTHON ?=
# The folders that `make test` and `make test-slow` run.
TESTS ?= event_archive_tests/unit event_archive_tests/integration event_archive_tests/e2e
# What pytest is told besides the folders. Four workers on two cores, too: half of the time a test waits for a server.
PYTEST_ARGS ?= -n 4

VENV := .venv
BIN := $(VENV)/bin
DEMO := $(VENV)/installed-demo
DEV := $(VENV)/installed-dev
BENCH := $(VENV)/installed-bench
UV := $(shell command -v uv 2>/dev/null)

# $(1) is the environment's folder.
ifdef UV
make_venv = "$(UV)" venv --quiet --seed --clear --no-project --no-python-downloads --python "$$python" $(1)
pip_install = "$(UV)" pip install --quiet --python $(1)/bin/python
else
make_venv = "$$python" -m venv --clear $(1)
pip_install = $(BIN)/python -m pip --python $(1)/bin/python install --quiet --no-compile --disable-pip-version-check
endif
# At once and on all cores, since the first start would else take the time. Some packages bring files that are no
# Python, or that newer versions warn of.
compile_all = $(1)/bin/python -W ignore -m compileall -qq --workers 0 $(1)/lib || true

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | while IFS=$$'\t' read -r target text; do \
		printf '  make %-11s %s\n' "$$target" "$$text"; done

.PHONY: demo
demo: $(DEMO) ## Archive and purge sample events on an embedded PostgreSQL, with a folder as the lake
	@$(BIN)/event-archive demo

.PHONY: ui
ui: $(DEMO) ## The same, then Dagster's UI on it; UI_PORT=3001 in place of 3000
	@$(BIN)/event-archive demo --ui $(if $(UI_PORT),--port "$(UI_PORT)")

.PHONY: test
test: $(DEV) azurite ## Unit, integration and end-to-end tests: some minutes
	$(BIN)/python -m pytest $(TESTS) -m "not slow" $(PYTEST_ARGS)

.PHONY: test-slow
test-slow: $(DEV) azurite ## The same of what takes longer: many partitions, several datasets, whole nights
	$(BIN)/python -m pytest $(TESTS) -m slow $(PYTEST_ARGS)

.PHONY: test-faults
test-faults: $(DEV) azurite ## Kills, network faults and races: twenty minutes; FAULTS_SHARE=0.3 tries fewer at random
	$(BIN)/python -m pytest event_archive_tests/faults $(PYTEST_ARGS) --dist loadgroup

# In one process, each phase after the other, telling what it does.
ALIVE = $(BIN)/python -m pytest event_archive_tests/alive --exitfirst --capture=no --verbose

.PHONY: test-e2e
test-e2e: $(DEV) azurite ## The whole thing alive: services, schedule, outages, a backfill, a browser, a month of records
	$(ALIVE)

.PHONY: screenshots
screenshots: $(DEV) azurite ## The same, with pictures of Dagster's pages into docs/images
	$(ALIVE) --screenshots docs/images

.PHONY: test-all
test-all: test test-slow test-faults test-e2e ## Every test there is

.PHONY: bench
bench: $(BENCH) azurite ## Measure time, CPU and memory beside other ways: some twenty minutes; BENCH_ARGS="--help"
	$(BIN)/python -m event_archive_tests.benchmarks $(BENCH_ARGS)

.PHONY: bench-container
bench-container: $(BENCH) ## A night of 1,000,000 rows within 300m of CPU and 512Mi
	$(BIN)/python -m event_archive_tests.benchmarks.container

.PHONY: bench-partitions
bench-partitions: $(BENCH) ## Every question to a table of 10,000 partitions: some ten minutes
	$(BIN)/python -m event_archive_tests.benchmarks.partitions

.PHONY: bench-definitions
bench-definitions: $(DEV) ## How long 50 datasets take to load in Dagster: a minute
	$(BIN)/python -m event_archive_tests.benchmarks.definitions

.PHONY: lint
lint: $(DEV) ## Format, style, types, import rules, lock files
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/python -m pytest --quiet event_archive_tests/unit/test_packaging.py

.PHONY: format
format: $(DEV) ## Format, and mend what can be mended
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

.PHONY: package
package: $(DEV) ## Build the wheel, and try it in an environment with runtime dependencies alone
	rm -rf dist
	$(BIN)/python -m hatchling build --target wheel --directory dist
	@$(find_python); $(call make_venv,dist/venv)
	$(call pip_install,dist/venv) --require-hashes --requirement requirements.lock
	$(call pip_install,dist/venv) --no-deps dist/*.whl
	cd dist && venv/bin/event-archive --help
	rm -rf dist/venv

.PHONY: image-steps
image-steps: $(DEV) azurite ## Do the Dockerfile's steps in a folder, and run the container's commands: some minutes
	$(BIN)/python -m pytest event_archive_tests/image

.PHONY: lock
lock: ## Write the lock files anew from pyproject.toml, with uv; UPGRADE=1 takes newer versions
	@[ -n "$(UV)" ] || { echo "make lock needs uv on PATH (pip install uv)" >&2; exit 1; }
	@# uv keeps the versions that it finds in the output: what is tested is what the demo and production get.
	@whole=$$(mktemp -d); trap 'rm -rf "$$whole"' EXIT; \
	cat requirements*.lock | grep -v '^-r ' > "$$whole/bench"; \
	resolve() { $(compile) "$${@:2}" --output-file "$$whole/$$1"; }; \
	resolve bench $(if $(UPGRADE),--upgrade) pyproject.toml --extra demo --group dev --group bench; \
	for layer in dev demo build runtime; do cp "$$whole/bench" "$$whole/$$layer"; done; \
	resolve dev pyproject.toml --extra demo --group dev; \
	resolve demo pyproject.toml --extra demo --group build; \
	resolve build --group build; \
	resolve runtime pyproject.toml; \
	cp "$$whole/runtime" requirements.lock; \
	cp "$$whole/build" requirements-build.lock; \
	$(call layer,demo,runtime,requirements.lock); \
	$(call layer,dev,demo,requirements-demo.lock); \
	$(call layer,bench,dev,requirements-dev.lock)

# What resolution $(1) adds to $(2) goes into its own file, after the file $(3) that holds what is in $(2).
layer = { echo "-r $(3)"; awk 'NR == FNR { below[$$0]; next } /^[^ ]/ { added = !($$0 in below) } added' \
	"$$whole/$(2)" "$$whole/$(1)"; } > requirements-$(1).lock

.PHONY: clean
clean: ## Remove what these targets made: .venv, caches, builds
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* \
		htmlcov .demo .tmp_dagster_home_* event_archive_tests/azurite/node_modules \
		event_archive_tests/benchmarks/contenders/node/node_modules benchmarks.json
	find event_archive event_archive_tests -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: azurite
azurite: $(DEV)
	@$(BIN)/python -c 'from event_archive_tests.azurite import install; install()'

compile = "$(UV)" pip compile --quiet --no-header --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-strip-extras

define find_python
suitable() { "$$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; }; python=; \
for candidate in $(if $(PYTHON),"$(PYTHON)",$(PYTHONS)); do \
	if suitable "$$candidate"; then python=$$("$$candidate" -c 'import sys; print(sys.executable)'); break; fi; \
done; \
if [ -z "$$python" ]; then \
	echo "Python 3.11, 3.12 or 3.13 is needed; $(if $(PYTHON),$(PYTHON) is not,none of $(PYTHONS) is). Name one: make PYTHON=/path/to/python3.12" >&2; \
	exit 1; \
fi
endef

# A marker instead of $(BIN)/python: an environment whose making was interrupted has that, too.
$(VENV)/made:
	@$(find_python); echo "Making $(VENV) with $$python"; $(call make_venv,$(VENV))
	@$(call pip_install,$(VENV)) --require-hashes --requirement requirements-build.lock
	@touch $@

$(DEMO): requirements.lock requirements-demo.lock pyproject.toml | $(VENV)/made
	@echo "Installing what the demo needs"
	@# The lock file is complete: without --no-deps, pip spends a quarter of its time on resolving it.
	@$(call pip_install,$(VENV)) --no-deps --require-hashes --requirement requirements-demo.lock
	@$(call pip_install,$(VENV)) --no-deps --no-build-isolation --editable .
	@$(call compile_all,$(VENV))
	@touch $@

$(DEV): requirements.lock requirements-demo.lock requirements-dev.lock pyproject.toml | $(VENV)/made
	@echo "Installing what the tests and checks need"
	@$(call pip_install,$(VENV)) --require-hashes --requirement requirements-dev.lock
	@$(call pip_install,$(VENV)) --no-deps --no-build-isolation --editable .
	@$(call compile_all,$(VENV))
	@touch $(DEMO) $@

$(BENCH): requirements-bench.lock $(DEV)
	@echo "Installing what the benchmarks compare with"
	@$(call pip_install,$(VENV)) --require-hashes --requirement requirements-bench.lock
	@$(call compile_all,$(VENV))
	@touch $@
