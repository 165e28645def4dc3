# Every target makes or refreshes `.venv` first, which takes nothing when the lock is unchanged.
# PYTHON=/path/to/python3.11 chooses the Python that `.venv` is made from.

PYTHON ?= python3
BIN := .venv/bin
SETUP := $(PYTHON) scripts/setup.py

# Tests wait for brokers' time-outs more than they compute. Each process has a Kafka of its own, and
# one thread for torch: two teams of threads on two cores spin for each other.
PROCESSES ?= 2
PYTEST := $(if $(filter-out 0 1,$(PROCESSES)),OMP_NUM_THREADS=1) \
  $(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile

# `make check test` runs no test twice.
CHECKED := $(if $(filter check,$(MAKECMDGOALS)),--ignore=tests/unit --ignore=tests/property)

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench-stream bench-kernels bench-swaps chaos soak fuzz \
  lock clean

help: ## This list
	@sed -n 's/^\([a-z-]*\): ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## Make .venv from requirements.lock
	@$(SETUP)

demo: ## Products through Kafka: BROKER=embedded DATA=dir LIMIT=n PRODUCTS=n JSON=file
	@$(SETUP)
	@$(BIN)/python -m demo $(if $(BROKER),--broker "$(BROKER)") $(if $(DATA),--data "$(DATA)") \
	  $(if $(LIMIT),--limit "$(LIMIT)") $(if $(PRODUCTS),--products "$(PRODUCTS)") \
	  $(if $(JSON),--json "$(JSON)") $(ARGS)

test: ## Every test; needs Maven, Docker or KAFKA_BOOTSTRAP_SERVERS: TESTS=path PROCESSES=2 ARGS=...
	@$(SETUP) --needs-kafka
	$(PYTEST) $(TESTS) $(CHECKED) $(ARGS)

check: ## Format, lint, types, import arrows, unit and property tests
	@$(SETUP)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) tests/unit tests/property $(ARGS)

format: ## Format and repair what ruff can
	@$(SETUP)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench-stream: ## Worker against plain Faust: DATA=dir PRODUCTS=n RUNS=3 JSON=file
	@$(SETUP) --needs-kafka
	@$(BIN)/python -m benchmarks.stream $(if $(DATA),--data "$(DATA)") \
	  $(if $(PRODUCTS),--products "$(PRODUCTS)") $(if $(RUNS),--runs "$(RUNS)") \
	  $(if $(JSON),--json "$(JSON)") $(ARGS)

bench-kernels: ## Kernels against dense torch, on a GPU where there is one: MASKS=file JSON=file
	@$(SETUP)
	@$(BIN)/python -m benchmarks.kernels $(if $(MASKS),--masks "$(MASKS)") \
	  $(if $(JSON),--json "$(JSON)") $(ARGS)

bench-swaps: ## Releases swapped under full load: SWAPS=50 RELEASE=dir DATA=dir JSON=file
	@$(SETUP) --needs-kafka
	@$(BIN)/python -m benchmarks.swaps $(if $(SWAPS),--swaps "$(SWAPS)") \
	  $(if $(RELEASE),--release "$(RELEASE)") $(if $(DATA),--data "$(DATA)") \
	  $(if $(JSON),--json "$(JSON)") $(ARGS)

chaos: ## Faults on three workers and three brokers: SEED=1 PRODUCTS=100000 JSON=file
	@$(SETUP) --needs-kafka
	@$(BIN)/python -m tests.chaos --page $(if $(SEED),--seed "$(SEED)") \
	  $(if $(PRODUCTS),--products "$(PRODUCTS)") $(if $(JSON),--json "$(JSON)") $(ARGS)

soak: ## Two workers for an hour, with faults; nothing may grow: MINUTES=60 SEED=1 JSON=file
	@$(SETUP) --needs-kafka
	@$(BIN)/python -m tests.soak --page $(if $(MINUTES),--minutes "$(MINUTES)") \
	  $(if $(SEED),--seed "$(SEED)") $(if $(JSON),--json "$(JSON)") $(ARGS)

fuzz: ## Mutated events through a real worker: N=100000 DATA=dir
	@$(SETUP) --needs-kafka
	@$(BIN)/python -m tests.fuzz $(if $(N),--events "$(N)") $(if $(DATA),--data "$(DATA)") $(ARGS)

lock: ## Compile requirements.lock anew, keeping pins that still fit: ARGS=--upgrade
	@$(SETUP)
	$(BIN)/python scripts/lock.py $(ARGS)

clean: ## Remove caches and .run; .venv stays
	rm -rf .run .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
