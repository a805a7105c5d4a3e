# Every target makes .venv and installs into it what it needs, once; a stamp file remembers. `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml Cargo.toml Cargo.lock $(shell find rust -name '*.rs' -not -path 'rust/fuzz/*')
export PATH := $(PATH):$(HOME)/.cargo/bin
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint docs bench fuzz
FUZZ_SECONDS ?= 600

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 20

demo: $(VENV)/installed ## train on the source files of this machine's Python, a few minutes; writes demo/
	$(BIN)/python benches/demo.py

test: lint ## everything that a change has to pass
	cargo test --quiet
	$(BIN)/python -m pytest -m "not slow" --doctest-modules tests python/tinygpt

test-slow: $(VENV)/installed-dev ## the tests that take longer than the suite may
	$(BIN)/python -m pytest -m slow tests

lint: $(VENV)/installed-dev ## formats, types and lints of both languages
	@cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || \
		{ echo "make: cargo has no rustfmt or clippy here; run: rustup component add rustfmt clippy" >&2; exit 1; }
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	cargo clippy --quiet --all-targets --features python -- -D warnings
	$(BIN)/python -m ruff format --check --quiet README.md python tests benches docs rust
	$(BIN)/python -m ruff check --quiet python tests benches docs rust
	$(BIN)/python -m mypy
	$(BIN)/python -m mypy.stubtest tinygpt._core

docs: $(VENV)/installed-dev target/tutorial/tutorial.ipynb ## the documentation as a site that is read without network or server; writes site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "written: site/index.html"

target/tutorial/tutorial.ipynb: docs/tutorial.ipynb $(VENV)/installed-dev
	@mkdir -p $(@D)
	@echo "the tutorial is run once for its figures and samples, two minutes"
	cp docs/tutorial.ipynb $(@D)/part.ipynb
	$(BIN)/python -m jupyter execute --inplace $(@D)/part.ipynb
	@mv $(@D)/part.ipynb $@

bench: $(VENV)/installed-dev ## speed and memory beside others, which get .venv-bench, an hour and a half
	$(BIN)/python -m benches

fuzz: ## the fuzz targets, ten minutes each (FUZZ_SECONDS); needs `cargo install cargo-fuzz`
	for target in pieces expression train encode vocab shards jsonl json csv warc transformer; do \
		cargo fuzz run --fuzz-dir rust/fuzz -s none $$target -- -max_total_time=$(FUZZ_SECONDS) -max_len=4096 || exit 1; done

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { echo "make: Python 3.10 or newer is \
	needed, $(PYTHON) is $$($(PYTHON) --version 2>&1 | tail -n 1); install one and name it: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) >/dev/null || { rm -rf $(VENV); echo "make: $(PYTHON) cannot make a virtual environment; \
	install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }

$(VENV)/installed: $(SOURCES) | $(BIN)/python
	@command -v cargo >/dev/null || { echo "make: cargo is missing; install Rust as https://rustup.rs says" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

$(VENV)/installed-dev: $(SOURCES) | $(BIN)/python
	@command -v cargo >/dev/null || { echo "make: cargo is missing; install Rust as https://rustup.rs says" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $(VENV)/installed $@
