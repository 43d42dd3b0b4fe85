# Every target makes its own environment first: .venv/ at the root, from the pinned and hashed lock in requirements/.
# Needed on the machine: make, and Python 3.11 or newer with its venv module (PYTHON=/path/to/python chooses one).

ifndef PYTHON
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { command -v $$p; break; }; done)
endif
BIN := .venv/bin
STAMP := .venv/.installed
PACKAGES := oracle_hub feeds tests benchmarks
BENCHMARKS = $(patsubst benchmarks/%.py,%,$(shell grep -l '__main__' benchmarks/*.py 2>/dev/null))
ARGS ?=

.DEFAULT_GOAL := setup
.PHONY: setup run test lint format bench lock clean

setup: $(STAMP)

# The stamp is newer than the lock and the project file, or everything is installed again (pip skips what is there).
$(STAMP): requirements/dev.txt pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
		echo "oracle-hub: no Python 3.11 or newer on PATH; install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 1; fi
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "oracle-hub: PYTHON=$(PYTHON) is not a Python 3.11 or newer" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "oracle-hub: $(PYTHON) lacks venv and ensurepip; install them (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@[ -x $(BIN)/python ] && $(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		echo "[setup] making .venv with $(PYTHON)"; rm -rf .venv; "$(PYTHON)" -m venv .venv; }
	@echo "[setup] installing the locked packages of requirements/dev.txt"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-input --compile \
		--require-hashes --requirement requirements/dev.txt
	@echo "[setup] installing oracle-hub itself, editable"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-input --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q oracle_hub feeds
	@: > $@
	@echo "[setup] done: $(BIN)/oracle-hub"

# exec: no shell stands between make and the hub, so that SIGTERM and Ctrl-C reach it and its exit status is make's.
run: $(STAMP)
	@exec $(BIN)/oracle-hub run $(ARGS)

# Many tests wait for whole seconds of real programs, so files run beside each other; with ARGS they run as asked.
test: $(STAMP)
	$(BIN)/python -m pytest $(if $(strip $(ARGS)),$(ARGS),--numprocesses auto --dist loadfile)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	@for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name $(ARGS) || exit 1; done

# Needs uv. One resolution for everything first (its versions bind the rest), then a file for each purpose.
LOCK := uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --fork-strategy fewest --no-config \
	--generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links
lock:
	@mkdir -p build
	$(LOCK) --all-extras --group dev $(ARGS) -o build/everything.txt
	$(LOCK) -c build/everything.txt -o requirements/runtime.txt
	$(LOCK) -c build/everything.txt --extra evm -o requirements/evm.txt
	$(LOCK) -c build/everything.txt --extra notify -o requirements/notify.txt
	$(LOCK) -c build/everything.txt --extra parquet -o requirements/parquet.txt
	$(LOCK) -c build/everything.txt --group dev -o requirements/dev.txt

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist tests/js/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
