# make chat    talk to the bundled model in a browser
# make test    run the tests
# Each sets up .venv by itself; the second time that takes no time. No Debian package is needed.

PYTHON ?= python3
# More arguments for pip. On Linux without a GPU, --extra-index-url with the address of PyTorch's CPU builds saves
# gigabytes of CUDA libraries.
PIP_ARGS ?=
# More arguments for `duologue chat` (ARGS="--port 8000") and for pytest (ARGS="-k store"; "-n 0": in one process).
ARGS ?=
# Tests run in a process for each core, at most four: each takes about 1 GB of memory.
PYTEST = $(BIN)/python -m pytest tests -m "not slow and not gpu" -n logical --maxprocesses 4 --dist worksteal

VENV := .venv
BIN := $(VENV)/bin
PIP = PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet --no-compile $(PIP_ARGS) -c constraints.txt

.PHONY: chat test lint clean
.DELETE_ON_ERROR:

chat: $(VENV)/.ready-demo
	$(BIN)/duologue chat $(ARGS)

test: $(VENV)/.ready-test
	$(PYTEST) $(ARGS)

# mypy must meet the root under its name, duologue: a scratch folder holds a link that is called so.
lint: $(VENV)/.ready-test
	$(BIN)/ruff check .
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && ln -s "$(CURDIR)" "$$scratch/duologue" && cd "$$scratch" && \
	MYPYPATH="$$scratch" "$(CURDIR)/$(BIN)/mypy" --config-file "$(CURDIR)/pyproject.toml" \
		--cache-dir "$(CURDIR)/.mypy_cache" -p duologue

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis tests/.pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment is ready when its stamp is newer than what says what belongs in it.
$(VENV)/.ready-%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing duologue[$*] into $(VENV) ..."
	$(PIP) -e ".[$*]"
	@[ "$*" != test ] || $(PIP) -e ".[quality]" || \
	echo "PESQ and Resemblyzer need a C compiler to install: what measures with them is left out." >&2
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	{ echo "Python 3.11 to 3.13 is needed; this is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
