# Everything a newcomer needs: `make demo`, `make test`. Both set up .venv on first use.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

# Of `make fuzz`: it ends after so many inputs or minutes, whichever comes first.
INPUTS ?= 10000000
MINUTES ?= 30
SEED ?= 1
JOBS ?= 2
TARGET ?=
FUZZ = $(BIN)/python -m tests.fuzz --minutes $(MINUTES) --seed $(SEED) $(if $(TARGET),--target '$(TARGET)')

.PHONY: demo test second check sanitize soak fmt fuzz fuzz-atheris clean
.DEFAULT_GOAL := demo

$(READY): pyproject.toml setup.py constraints.txt $(wildcard mfd/packet/*.c)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "MFD needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[learn,lan,dev]'
	@touch $(READY)

demo: $(READY)
	$(BIN)/mfd demo

test: check second
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The second decoder's tests need two npm packages; where node is not, pytest says that it skips them.
second: spec/node_modules/.ready
spec/node_modules/.ready: spec/package-lock.json
	@if command -v npm >/dev/null && npm ci --prefix spec --silent; then touch $@; \
		else echo "no npm, or it reached no registry: the second decoder's tests will be skipped"; fi

# A long campaign of the simulator: make soak SEEDS=1000 JOBS=2 SEED=1
SEEDS ?= 1000
soak: $(READY)
	$(BIN)/mfd sim --swarm --peers 30 --seed $(SEED) --seeds $(SEEDS) --jobs $(JOBS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# The C kernels' tests with kernels that watch every access to memory and every undefined step.
sanitize: $(READY)
	CFLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all -g" \
	LDFLAGS="-fsanitize=address,undefined" ASAN_OPTIONS=detect_leaks=0 \
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	$(BIN)/python -m pytest tests/packet/test_huffman.py tests/packet/test_planes.py \
		tests/packet/test_native.py

fmt: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

fuzz: $(READY)
	$(FUZZ) --inputs $(INPUTS) --jobs $(JOBS)

fuzz-atheris: $(READY)
	$(FUZZ) --inputs $(INPUTS) --guided

clean:
	rm -rf .venv spec/node_modules .mypy_cache .ruff_cache .pytest_cache *.egg-info
