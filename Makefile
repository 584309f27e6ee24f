# Two commands do all the set-up: `make demo` and `make test`. Each makes .venv when there is none.
#
#   make demo [OUT=demo] [SEED=0]   learn to find and read digits, then write OUT/report.html
#   make test                       lint, types, import rules, the README's commands, quick tests (what .ci/run runs)
#   make test-all                   the same with the slow tests
#   make fuzz                       2,000 broken inputs to every reader of a folder and to the options
#   make docs                       the documentation, in docs/_build/html
#   make clean                      remove .venv and caches
#
# PYTHON=python3.12 chooses the interpreter; OUT and SEED are passed on to the demo.

PYTHON ?= $(firstword $(shell for p in python3 python3.13 python3.12 python3.11; do \
    $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p; done))
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.installed-docs
OUT ?= demo
SEED ?= 0

.PHONY: demo fuzz test test-all lint types imports readme tests-plain tests tests-plain-all tests-all docs format clean venv
.DELETE_ON_ERROR:
.NOTPARALLEL:
# The package and its tests are compiled once, not again by each process that the tests start.
unexport PYTHONDONTWRITEBYTECODE

demo: $(STAMP)
	$(BIN)/mist demo --out $(OUT) --seed $(SEED) --force

# Each check is a line of its own, cheapest first. The quick tests come last, so that their closing line is the last one.
test: $(STAMP)
	@$(MAKE) --no-print-directory lint types imports readme tests-plain tests

test-all: $(STAMP)
	@$(MAKE) --no-print-directory lint types imports tests-plain-all tests-all

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/pyright --warnings

imports: $(STAMP)
	$(BIN)/lint-imports

# The shape checks turn a bad argument into their own error first, and a compiler can't see through them: the tests of our
# own errors and of torch.compile carry the marker `plain` and run without the checks.
readme: $(STAMP)
	$(BIN)/pytest -q -m slow tests/test_readme.py

tests-plain: $(STAMP)
	MISTNN_PLAIN=1 $(BIN)/pytest -q -n 2 --dist worksteal -m "plain and not slow"

tests: $(STAMP)
	$(BIN)/pytest -q -n 2 --dist loadfile -m "not plain and not slow"

tests-plain-all: $(STAMP)
	MISTNN_PLAIN=1 $(BIN)/pytest -q -m plain

tests-all: $(STAMP)
	$(BIN)/pytest -q -n 2 --dist loadfile -m "not plain"

fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz 2000

docs: $(DOCS_STAMP)
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "mistnn needs Python 3.11 or newer, and none was found (python3 is: \
	$$(python3 --version 2>&1)). Install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "mistnn needs Python 3.11 or newer; \
	$(PYTHON) is $$($(PYTHON) --version 2>&1). Name a newer one: make PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) can't make a virtual environment (on \
	Debian and Ubuntu: apt install python3-venv)" >&2; rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true # on all cores; some packages hold files that no Python reads
	@touch $@

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) docs/_build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
