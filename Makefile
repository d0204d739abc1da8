# Every target makes .venv first, once; it is made again when pyproject.toml or constraints.txt change.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DIST_CHECK := build/dist-check

.PHONY: help install lint format types test numbers doctest docs tutorials demo bench dist
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## make .venv and install the package, editable, with everything needed to work on it

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

lint: $(STAMP) ## ruff: rules and layout
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## ruff: mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) ## mypy
	$(BIN)/mypy

test: $(STAMP) doctest ## the fast tests and the doctests, minutes (ARGS="-k latent" for a few)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not numbers" --numprocesses=2 --dist=worksteal --durations=10 $(ARGS)

numbers: $(STAMP) ## the slow tests: trains, runs real networks (PYRO_GAN_ZOO), writes numbers.json (PYRO_GAN_NUMBERS=full for all of the docs)
	$(BIN)/python -m pytest tests/numbers -m numbers --numprocesses=2 --dist=loadfile --durations=0 $(ARGS)

doctest: $(STAMP) ## the examples in the docstrings
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --doctest-modules pyro_gan --numprocesses=2

docs: $(STAMP) ## the pages, in docs/_build/html; a warning is an error
	rm -rf docs/_build docs/api/generated
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

tutorials: $(STAMP) ## the notebooks, small
	CI=true OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbmake --nbmake-timeout=600 --numprocesses=2 tutorials

demo: $(STAMP) ## the main job: a digits GAN, before and after (ARGS="--quick --seed 1")
	$(BIN)/python -m pyro_gan demo $(ARGS)

bench: $(STAMP) ## times, as ratios measured in one run; writes build/bench.json (BlackJAX if installed)
	mkdir -p build
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/benchmarks -o python_files='bench_*.py' --benchmark-only \
	  --benchmark-columns=median,iqr,rounds --benchmark-json=build/bench.json $(ARGS)

dist: $(STAMP) ## wheel and sdist, installed and imported in an environment that holds nothing else of ours
	rm -rf dist $(DIST_CHECK)
	$(BIN)/python -m build
	$(PYTHON) -m venv $(DIST_CHECK)
	set -e; for artifact in dist/*.whl dist/*.tar.gz; do \
	  $(DIST_CHECK)/bin/python -m pip install --quiet --constraint constraints.txt $$artifact; \
	  (cd $(DIST_CHECK) && bin/python -I -c "import pathlib, pyro_gan; \
	home = pathlib.Path(pyro_gan.__file__).parent; \
	assert 'site-packages' in home.parts and (home / 'py.typed').is_file(), home; \
	print('$$artifact', pyro_gan.__version__, 'installs and imports')"); \
	  $(DIST_CHECK)/bin/python -m pip uninstall --quiet --yes pyro-gan; \
	done
	rm -rf $(DIST_CHECK)
