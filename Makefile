# What one does with a clone: see `make help`. Everything runs in a virtual environment that this file makes.

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python -m
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The tests start hundreds of processes: each would compile the whole package again where no bytecode is kept.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-beamlines test-edges test-parts test-long faults check lint layout types layers bench bench-ingest bench-catalog bench-cluster bench-jobs bench-portal bench-rights bench-transfer docs library-pictures openapi pictures sbom format system-deps clean FORCE

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(VENV)/.server ## Bring up a beamline on this machine with a simulated detector, and check every file
	$(VENV)/bin/dm demo $(DEMO)

test: system-deps $(VENV)/.dev ## Check the code and run all the tests (as root, installs the servers that they need)
	@$(MAKE) --no-print-directory check
	@$(MAKE) --no-print-directory --jobs=3 test-beamlines test-edges test-parts

# Side by side: whole beamlines wait for disks most of the time, and the rest computes.
BEAMLINES := tests/system tests/faults tests/engine tests/library
EDGES := tests/builtin tests/cli tests/following tests/portal
# What is broken everywhere is told by a few, before whoever waits for all of it gives up.
ENDING := --maxfail=20 --session-timeout=4000
PYTEST := pytest -m "not long" -rsR --reruns 2 $(ENDING) --durations=80 --durations-min=2

test-beamlines: $(VENV)/.dev
	$(RUN) $(PYTEST) -o cache_dir=.pytest_cache/beamlines $(BEAMLINES)

test-edges: $(VENV)/.dev
	$(RUN) $(PYTEST) -o cache_dir=.pytest_cache/edges $(EDGES)

test-parts: $(VENV)/.dev
	$(RUN) $(PYTEST) -o cache_dir=.pytest_cache/parts $(addprefix --ignore=,$(BEAMLINES) $(EDGES))

test-long: system-deps $(VENV)/.dev ## Run the long campaigns of faults
	$(RUN) pytest -m long -rs --timeout=3600 -o faulthandler_timeout=0

faults: system-deps $(VENV)/.dev ## Break everything some hundred times, and write docs/reference/fault-report.md
	PYTHONPATH=tests $(RUN) faults.campaign $(FAULTS)

check: $(VENV)/.check ## Run ruff, mypy and import-linter, side by side
	@$(MAKE) --no-print-directory --jobs=4 --output-sync lint layout types layers

lint: $(VENV)/.check
	$(RUN) ruff check

layout: $(VENV)/.check
	$(RUN) ruff format --check

types: $(VENV)/.check
	$(RUN) mypy

layers: $(VENV)/.check
	$(VENV)/bin/lint-imports

bench: $(VENV)/.dev ## Measure what the project promises in numbers
	$(VENV)/bin/python bench/run.py $(BENCH)

bench-ingest: $(VENV)/.dev ## Measure ingest against rsync, rclone and find
	$(VENV)/bin/python bench/ingest.py $(BENCH)

bench-catalog: $(VENV)/.dev ## Measure searching and registering in a catalogue of millions of files (BENCH='--files 1000000' is shorter)
	$(VENV)/bin/python bench/catalog.py $(BENCH)

bench-jobs: $(VENV)/.dev ## Measure jobs a second against a shell's loop, Prefect and Parsl (BENCH=--no-peers is shorter)
	$(VENV)/bin/python bench/jobs.py $(BENCH)

bench-rights: $(VENV)/.dev ## Measure what rights cost a list, a sync of a whole facility, and a check of a password
	$(VENV)/bin/python bench/rights.py $(BENCH)

bench-cluster: system-deps $(VENV)/.dev ## Measure stages on Parsl over a real Slurm, and XPCS there (BENCH=stages, overhead or scale is one part)
	$(VENV)/bin/python bench/cluster.py $(BENCH)

bench-transfer: system-deps $(VENV)/.dev ## Measure the transfers against the bare programs, on loopback
	$(VENV)/bin/python bench/transfer.py $(BENCH)

bench-portal: system-deps $(VENV)/.dev ## Measure what looking at a beamline costs (BENCH='--files 20000' is shorter)
	$(VENV)/bin/python bench/portal_pages.py $(BENCH)

docs: $(VENV)/.dev ## Write the generated reference pages, and build the documentation into site/
	$(VENV)/bin/python scripts/gen_docs.py
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict

library-pictures: $(VENV)/.dev ## Make the pictures of the library's pages anew, by its tests
	LIBRARY_PICTURES=docs/library $(RUN) pytest tests/library

openapi: $(VENV)/.dev ## Write docs/reference/openapi.json anew
	$(VENV)/bin/python scripts/gen_openapi.py

pictures: system-deps $(VENV)/.dev ## Write the pictures of the portal in the documentation anew
	PORTAL_PICTURES='$(CURDIR)/docs/pictures' $(RUN) pytest tests/portal/test_tour.py

# In environments of their own: the list has what a site installs, not what wrote it, what a clone is checked with, or the pip
# that brought it. The version of what it is the list of is written in, since pyproject.toml says only where to look for it.
sbom: ## Write what is installed with the server as CycloneDX (SBOM): dist/beamkeeper.cdx.json
	rm -rf build/sbom
	$(PYTHON) -m venv build/sbom/writer
	$(PYTHON) -m venv --without-pip build/sbom/server
	build/sbom/writer/bin/python -m pip install --quiet 'cyclonedx-bom>=7'
	build/sbom/writer/bin/python -m pip --python build/sbom/server/bin/python install --quiet '.[server]'
	sed "s/^dynamic = .*/version = \"$$(build/sbom/server/bin/dm --version | sed 's/.* //')\"/" pyproject.toml > build/sbom/pyproject.toml
	mkdir -p dist
	build/sbom/writer/bin/cyclonedx-py environment --pyproject build/sbom/pyproject.toml --output-reproducible -o dist/beamkeeper.cdx.json build/sbom/server/bin/python

format: $(VENV)/.dev ## Format the code, and mend what ruff can mend
	$(RUN) ruff check --fix
	$(RUN) ruff format

system-deps: ## As root, install Debian's packages that the tests use; otherwise do nothing
	@sh scripts/system_deps.sh

clean: ## Remove the virtual environment and everything else that was made here
	rm -rf $(VENV) site build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# pip runs only where pyproject.toml has changed since, or where the environment was made anew.
$(VENV)/.server: pyproject.toml $(VENV)/.made-for
	$(RUN) pip install --quiet --editable '.[server]'
	@touch $@

$(VENV)/.check: pyproject.toml $(VENV)/.made-for
	BEAMKEEPER_WITHOUT_PORTAL=1 $(RUN) pip install --quiet --no-compile --editable '.[check]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.made-for
	$(RUN) pip install --quiet --editable '.[dev]'
# Compiled against the headers of OpenLDAP: whoever has none does without, and without the tests that need it.
	$(RUN) pip install --quiet --editable '.[ldap]' || echo "python-ldap cannot be compiled here (make system-deps)"
	@touch $@ $(VENV)/.server $(VENV)/.check

# An environment works only where it was made and with the interpreter that made it: where either differs, it is made
# anew, so that `make test PYTHON=python3.13` and a moved clone do what they say.
MADE_FOR := $(CURDIR) $(PYTHON)
ifneq ($(shell cat '$(VENV)/.made-for' 2>/dev/null),$(MADE_FOR))
$(VENV)/.made-for: FORCE
endif
$(VENV)/.made-for:
	@sh scripts/make_venv.sh '$(PYTHON)' '$(VENV)'
	@echo '$(MADE_FOR)' > $@

FORCE:
