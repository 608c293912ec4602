# make chat    talk to the bundled model in a browser; MODEL=mini: to another
# make test    run the tests
# make test-clients    let stock clients of the API talk to the service; CLIENTS="pipecat livekit": some of them
# Each sets up .venv by itself; the second time that takes no time. No Debian package is needed.

PYTHON ?= python3
# More arguments for pip. On Linux without a GPU, --extra-index-url with the address of PyTorch's CPU builds saves
# gigabytes of CUDA libraries.
PIP_ARGS ?=
# The model that `make chat` talks to: a bundled name, a folder or a hub id.
MODEL ?=
# More arguments for `duologue chat` (ARGS="--port 8000") and for pytest (ARGS="-k store"; "-n 0": in one process).
ARGS ?=
# The clients that `make test-clients` runs.
CLIENTS ?= all
# Tests run in a process for each core, at most four: each takes about 1 GB of memory.
PYTEST = $(BIN)/python -m pytest tests -m "not slow and not gpu and not guides" -n logical --maxprocesses 4 --dist worksteal

VENV := .venv
BIN := $(VENV)/bin
PIP = PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet --no-compile $(PIP_ARGS) -c constraints.txt

.PHONY: chat test test-clients lint mypy pyright clean moved
.DELETE_ON_ERROR:

chat: $(VENV)/.ready-demo
	$(BIN)/duologue chat $(if $(MODEL),--model $(MODEL)) $(ARGS)

test: $(VENV)/.ready-test
	$(PYTEST) $(ARGS)

# Each has an environment of its own in .venv/clients. In one process: they speak in real time.
test-clients: $(VENV)/.ready-test
	CLIENTS="$(CLIENTS)" $(BIN)/python -m pytest tests/inference/serving/clients -n 0 $(ARGS)

lint: $(VENV)/.ready-test
	$(BIN)/python -m ruff check .
	@$(MAKE) --no-print-directory -j 2 mypy pyright # side by side: each keeps one core busy for a minute

mypy:
	$(BIN)/python -m mypy

pyright:
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/python -m pyright

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis tests/.pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment is ready when its stamp is newer than what says what belongs in it, and when it belongs to this folder:
# a checkout that was moved is installed again.
HERE := $(VENV)/checkout/duologue
MOVED := $(shell [ ! -d $(VENV) ] || { [ $(HERE) -ef . ] && grep -qsF "$(CURDIR)/$(BIN)/" $(BIN)/duologue; } || echo moved)

# Python meets the repository root under its name through a link called duologue, instead of pip's editable finder: that
# is code, which pyright and editors do not follow. The link lies beside site-packages, where pip would write through it.
$(VENV)/.ready-%: pyproject.toml constraints.txt $(MOVED) | $(BIN)/python
	@echo "Installing duologue[$*] into $(VENV) ..."
	$(PIP) -e ".[$*]"
	@[ "$*" != test ] || for extra in quality compare; do $(PIP) -e ".[$$extra]" || \
	echo "$$extra needs a C++ compiler to install: what it measures, or compares with, is left out." >&2; done
	@mkdir -p $(dir $(HERE)) && ln -sfn ../.. $(HERE)
	@cd $(VENV)/lib/python3*/site-packages && rm -f __editable__*duologue* && echo ../../../checkout > duologue.pth
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	{ echo "Python 3.11 to 3.13 is needed; this is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
