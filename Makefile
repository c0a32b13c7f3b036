# paddle-inline: the commands of a newcomer and of CI. `make` lists them.
#
# Each target makes its own virtual environment, once. Yours to choose:
#   make test PYTHON=python3.12                    another Python, 3.9 to 3.13
#   make test PADDLE=paddlepaddle-gpu==3.3.1       another Paddle; one that is there already is kept
#   make test TORCH='torch==2.8.0 torchvision'     another torch, only ever the reference of the checks
#   make test-fast WORKERS=1                       that many tests at once; auto: one for each core and 4 GiB of memory

PYTHON ?= python3
VENV ?= .venv
VENV26 ?= .venv-paddle26
VENV_DENSE ?= .venv-dense
PADDLE ?= paddlepaddle==3.3.1
# pip brings the torchvision that fits; 2.8 is the last torch for Python 3.9
TORCH ?= "torch==2.13.0; python_version >= '3.10'" "torch==2.8.0; python_version < '3.10'" torchvision

WORKERS ?= auto

BIN = $(VENV)/bin
BIN26 = $(VENV26)/bin
BIN_DENSE = $(VENV_DENSE)/bin
# A file's tests stay together, and so share what their fixtures make; the recorded numbers have no fixtures.
DIST = loadscope
test-golden: DIST = worksteal
# One worker is no worker: plain pytest.
PYTEST = -m pytest -n $(patsubst 1,0,$(WORKERS)) --dist $(DIST) --no-loadscope-reorder
# Python compiles what it imports, once, if the environment does not forbid to keep it; pip would compile every file,
# a minute long.
export PYTHONDONTWRITEBYTECODE =
INSTALL = -m pip install --no-compile

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help test test-fast test-golden test-full test-paddle26 test-dense test-mutations lint format demo \
	demo-dense notebooks docs clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "make %-15s %s\n", $$1, $$2}' Makefile

test: lint test-fast test-golden  ## what CI runs: lint, the tests on small inputs, every recorded number

test-fast: $(VENV)/installed  ## the tests without the full-size models
	$(BIN)/python $(PYTEST)

test-golden: $(VENV)/installed  ## the recorded numbers and sizes of all full-size models, in both frameworks
	$(BIN)/python $(PYTEST) -m full tests/models tests/utils/test_flops.py

test-full: $(VENV)/installed  ## every test of full-size models, parity sweep and notebooks among them: an hour
	$(BIN)/python $(PYTEST) -m full

test-paddle26: $(VENV26)/installed  ## the Paddle half of the tests on Paddle 2.6.2 and numpy 1.26
	$(BIN26)/python $(PYTEST)

test-dense: $(VENV_DENSE)/installed  ## the backbones in PaddleDetection and PaddleSeg, of their wheels
	$(BIN_DENSE)/python $(PYTEST) tests/toolkits tests/dense

test-mutations: $(VENV)/installed  ## whether the tests notice faults that are planted in the product: an hour
	$(BIN)/python tests/mutation/run.py

lint: $(VENV)/installed  ## ruff: rules and format; mypy: types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(VENV)/installed  ## learn digits, carry the weights to PyTorch, prove the two equal: output/demo
	$(BIN)/python demo.py

demo-dense: $(VENV_DENSE)/installed  ## detect and segment drawn shapes, truth beside answers: output/demo-dense
	$(BIN_DENSE)/python demo_dense.py

notebooks: $(VENV)/installed  ## the notebooks, in JupyterLab
	$(BIN)/python -m jupyterlab notebooks/01_quickstart.ipynb

docs: $(VENV)/installed  ## the documentation as a site, without a warning: build/docs/index.html
	$(BIN)/python -m sphinx -W --keep-going -q docs build/docs

clean:  ## remove the virtual environments and caches; output/ stays
	rm -rf $(VENV) $(VENV26) $(VENV_DENSE) .pytest_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed: pyproject.toml
	$(call make_venv,$(VENV))
	$(BIN)/python -c 'import paddle' 2>/dev/null || $(BIN)/python $(INSTALL) $(PADDLE)
	$(BIN)/python $(INSTALL) $(TORCH) -e '.[all,docs,dev]'
	@touch $@

# Paddle 2.6 asks for setuptools at import, which Python 3.12 no longer brings.
$(VENV26)/installed: pyproject.toml
	$(call make_venv,$(VENV26))
	$(BIN26)/python $(INSTALL) paddlepaddle==2.6.2 'numpy<2' setuptools -e '.[demo,dev]'
	@touch $@

# The toolkits' own lists ask for what these tests do not use: builds of scikit-learn and OpenCV that Python 3.11 has no
# wheels for, VisualDL, trackers. What they import stands here instead; numpy 2 and setuptools 81 are too new for them.
$(VENV_DENSE)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] > (3, 12))' || \
		{ echo "error: numpy 1 has no wheels for $$($(PYTHON) --version); choose another: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(call make_venv,$(VENV_DENSE))
	$(BIN_DENSE)/python $(INSTALL) paddlepaddle==3.3.1 'numpy<2' 'setuptools<81' 'opencv-python-headless<4.12' \
		filelock matplotlib pandas prettytable pycocotools pyyaml requests scikit-learn scipy shapely six \
		terminaltables tqdm typeguard 'pytest>=8' 'pytest-xdist>=3.7' -e .
	$(BIN_DENSE)/python $(INSTALL) --no-deps paddledet==2.6.0 paddleseg==2.8.0
	@touch $@

define make_venv
@$(PYTHON) -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 13))' || \
	{ echo "error: $$($(PYTHON) --version) is not one that Paddle has wheels for (3.9 to 3.13);" \
	"choose another: make PYTHON=python3.12 ..." >&2; exit 1; }
@test -x $(1)/bin/python || $(PYTHON) -m venv $(1) || \
	{ echo "error: no virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
endef
