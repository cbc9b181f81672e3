# Every habit of this project. `make` or `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
SPACE := build/space
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
export PYTHONWARNINGS ?= ignore

.DEFAULT_GOAL := help
.PHONY: help install hooks train compare data bench app space lint test test-package \
        test-notebooks test-full export notebook stories docs readme constraints clean

help:  ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# For Linux, PyPI has PyTorch with 2.8 GB of CUDA. PyTorch's own index has the same versions without, 200 MB, which are
# taken where there is no GPU. If it does not answer, PyPI's are.
CPU_INDEX ?= https://download.pytorch.org/whl/cpu
WANTS_CPU = import os, sys, urllib.request as u; \
    sys.exit(sys.platform != "linux" or any(map(os.path.exists, ("/dev/nvidiactl", "/dev/dxg"))) \
             or not u.urlopen("$(CPU_INDEX)/torch/", timeout=5))

# The stamp is written last, so an interrupted installation is taken up again.
.venv/installed: setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "mnist_fastai needs Python 3.10 or newer; name one with: make PYTHON=python3.12")'
	@echo "Installing into .venv. The first time this downloads PyTorch and takes some minutes."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@if $(BIN)/python -c '$(WANTS_CPU)' 2>/dev/null; then echo 'No GPU: PyTorch without CUDA'; \
	    $(PIP) --no-deps --index-url $(CPU_INDEX) torch torchvision || true; fi
	$(PIP) -e '.[dev]'
	@touch $@

# What else an extra of setup.cfg brings
.venv/docs .venv/notebook: .venv/installed
	$(PIP) -e '.[dev,$(@F)]'
	@touch $@

install: .venv/installed  ## create .venv with everything that the other targets need

hooks: .venv/installed  ## let git check, export and clean notebooks at each commit, and merge them cell by cell
	@$(BIN)/nbdev-install-hooks
	@git config --file .gitconfig merge.jupyternotebook.driver '$(BIN)/nbdev-merge %O %A %B %P'
	@git config --file .gitconfig diff.jupyternotebook.command $(BIN)/nbdev-diff-driver
	@printf '#!/bin/sh\n$(BIN)/nbdev-trust\n' > .git/hooks/post-merge
	@$(BIN)/pre-commit install

train: .venv/installed  ## get the data, train, evaluate and export; options: make train ARGS="--epochs 2"
	@$(BIN)/mnist-train $(ARGS)

compare: .venv/installed  ## compare recipes; options: make compare ARGS="--recipes all --seeds 5"
	@$(BIN)/mnist-compare $(ARGS)

data: .venv/installed  ## get and describe the data; options: make data ARGS="--source digits"
	@$(BIN)/mnist-data $(ARGS)

bench: .venv/installed  ## compare the speed with plain fastai and bare PyTorch
	@$(BIN)/mnist-bench $(ARGS)

app: .venv/installed  ## open a page to draw a digit on; options: make app ARGS="best tiny"
	@$(BIN)/mnist-app $(ARGS)

space:  ## put together what hosts the page as a Hugging Face Space, in build/space
	rm -rf $(SPACE) && mkdir -p $(SPACE)
	cp -r .dockerignore Dockerfile constraints.txt pyproject.toml setup.cfg setup.py mnist_fastai space/README.md $(SPACE)
	find $(SPACE) -name __pycache__ -exec rm -rf {} +

lint: .venv/installed  ## check the style
	$(BIN)/ruff check .

test: export MNIST_FASTAI_OFFLINE ?= 1
test: lint test-package test-notebooks  ## run every test and every quick notebook; downloads no data

test-package: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

# Without FULL: neither stories nor the notebooks of what trains for longer; their modules have tests of their own
QUICK := --skip-folder-re '^(stories|[_.])' --skip-file-re '^(14h|1[6-9]|2[01]|[_.])'

test-notebooks: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/nbdev-test --n-workers 2 $(if $(FULL),,$(QUICK))

test-full: export FULL = 1
test-full: test  ## the same, the slow variants, and every notebook

export: .venv/installed  ## notebooks to modules, notebooks clean
	$(BIN)/nbdev-export
	$(BIN)/nbdev-clean

notebook: .venv/notebook  ## open JupyterLab at the first story
	$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" $(ARGS) nbs/stories/01_first_learner.ipynb

stories: .venv/notebook  ## run the stories on MNIST and keep what they show; takes twenty minutes
	$(BIN)/mnist-data --source mnist
	for o in nbs/stories/*.ipynb; do $(BIN)/jupyter-execute --inplace $$o || exit 1; done
	$(BIN)/nbdev-clean

docs: .venv/docs  ## build the site into build/site, and look at each page in a browser
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build  # --quiet would hide what strict counts
	SITE=build/site $(BIN)/pytest tests/test_site.py

readme: .venv/installed  ## write the tables of README.md, docs/ and results/ from results/
	@$(BIN)/python tools/readme.py

constraints: .venv/installed  ## choose the newest versions again, for all supported Pythons
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.10 --upgrade --no-header --no-annotate --all-extras \
		pyproject.toml --output-file constraints.txt

clean:  ## remove .venv and what was built; runs/ stays
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
