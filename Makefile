# make demo and make test are the two commands of the README; each sets up what it needs.
VENV ?= .venv
SHELL := /bin/bash
BIN := $(VENV)/bin
export VENV
# where this is set, as in some containers, every process would compile all of PyTorch's Python anew, for 15 s
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install lock demo test test-slow lint docs check epfl wheels

install:
	@tools/install.sh

# requirements.lock from requirements.txt; LOCK_ARGS=--upgrade takes the newest of what requirements.txt does not pin
lock: install
	@{ sed 's/^mmcv-full==/mmcv==/' requirements.txt; sed -n 's/^opencv-python==/opencv-python-headless==/p' requirements.txt; } | \
	MMCV_WITH_OPS=0 $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
		--build-constraints requirements.txt --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
		$(LOCK_ARGS) --output-file requirements.lock - >/dev/null

demo: install
	@$(BIN)/python tools/demo.py

# two tests at a time: the suite waits for processes more than it computes
PYTEST_ARGS ?= -n 2 --dist worksteal --durations 20 --durations-min 5

test: install
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

# what takes minutes: killed runs, whole trainings, several nodes, every network counted
test-slow: install
	@$(BIN)/python -m pytest -m slow -n 2 --dist worksteal --durations 20

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# the documents as a site in build/site; a broken link or reference is an error
docs: install
	@$(BIN)/mkdocs build --quiet --strict

check: lint docs test test-slow

# all eight methods on the EPFL road images: make epfl SOURCE=folder-with-images-and-groundtruth [ARGS="--seeds 0 1"]
epfl: install
	@test -n "$(SOURCE)" || { echo "error: say where the data is: make epfl SOURCE=folder with images/ and groundtruth/" >&2; exit 2; }
	@test -d data/EPFL || $(BIN)/python tools/convert_dataset.py epfl "$(SOURCE)" data/EPFL --val 20
	@$(BIN)/python tools/accuracy_table.py $(ARGS)

# everything an offline machine needs, in the folder wheels/; with MMCV_OPS=1 mmcv-full compiled too
wheels: install
	@MMCV_WITH_OPS=0 $(BIN)/python -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir wheels -r requirements.lock
	@test "$(MMCV_OPS)" != 1 || MMCV_WITH_OPS=1 $(BIN)/python -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir wheels \
		$$(grep ^mmcv-full== requirements.txt)
