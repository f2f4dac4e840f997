# Everything a fresh machine needs: `make demo` runs the main job on a real model, `make test` passes the tests.
PYTHON ?= python3
VENV ?= .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check -q
PINS := -c constraints/ci.txt
DEMO := build/demo

.PHONY: help demo test test-lowest lint bench clean
.DEFAULT_GOAL := help

help: ## tell what the targets are
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/demo.stamp ## optimise a real trained model with labelled data, and print what was found
	$(VENV)/bin/onnxopt zoo get magika --out $(DEMO)/magika
	$(VENV)/bin/onnxopt optimize $(DEMO)/magika/model.onnx --data $(DEMO)/magika \
		--metric onnxopt_zoo.tasks.scores:top1_accuracy --max-drop 1% --out $(DEMO)/fast

test: $(VENV)/test.stamp ## install everything the tests need, and run them
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/test.stamp ## ruff, mypy strict, and the direction of imports
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy onnxopt models/onnxopt_zoo benchmarks
	$(VENV)/bin/lint-imports

bench: $(VENV)/bench.stamp ## measure `optimize` on the whole zoo beside its peers (hours)
	$(VENV)/bin/python benchmarks/startup.py
	$(VENV)/bin/python benchmarks/optimize_zoo.py

test-lowest: ## run the tests on the lowest versions pyproject.toml allows
	$(MAKE) test VENV=.venv-lowest PINS='-c constraints/lowest.txt'

clean: ## remove what these targets made
	rm -rf $(VENV) .venv-lowest build

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml constraints/ci.txt | $(VENV)/bin/python
	$(PIP) install $(PINS) -e '.[openvino]'
	touch $@

# torch first and by its exact version: other packages would bring a build with gigabytes of CUDA.
$(VENV)/test.stamp: pyproject.toml constraints/ci.txt constraints/lowest.txt | $(VENV)/bin/python
	$(PIP) install $(PINS) torch==2.13.0
	$(PIP) install $(PINS) -e '.[dev,images,onnxsim,onnxslim,openvino,text,torch,zoo]'
	touch $@

$(VENV)/bench.stamp: $(VENV)/test.stamp
	$(PIP) install $(PINS) nncf
	touch $@
