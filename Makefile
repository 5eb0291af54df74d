# `make help` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

UV_VERSION := 0.13.9
# The installed uv, or our own copy.
export UV := $(or $(shell command -v uv 2>/dev/null),$(CURDIR)/.uv/bin/uv)
export PATH := $(CURDIR)/.venv/bin:$(dir $(UV)):$(PATH)
export SAM_CLI_TELEMETRY := 0
PYTHON := $(CURDIR)/.venv/bin/python
# Hundreds of processes start here. Without bytecode each would compile all that it imports, which takes longer than its work.
unexport PYTHONDONTWRITEBYTECODE

##@ Start here

demo: install ## Install, start the local stack, run a 200-line batch end to end, show the result
	NIGHTSHIFT_ALLOW_LOCAL_WEBHOOKS=1 $(PYTHON) -m local.stack up
	$(PYTHON) -m local.demo

test: ## Install, lint, type-check and run every test
	$(MAKE) install
	$(MAKE) --jobs 2 integration check unit
	$(MAKE) e2e

##@ The local stack

up: install ## Start the local stack in the background and write .local/stack.json
	$(PYTHON) -m local.stack up

down: ## Stop the local stack
	if [ -x $(PYTHON) ]; then $(PYTHON) -m local.stack down; fi

logs: ## Follow every function's log
	$(PYTHON) -m local.stack logs

##@ Tests and checks

# Of the folder itself, so that it needs no git; what is installed and built is not ours.
SECRET_SCAN := --quiet --no-validate --no-update-check --git-history=none $(addprefix --exclude ,node_modules site dist build test-results __pycache__)

check: install console/tests/files.json ## Check formatting, lint, types, the template, secrets in files, and known holes of dependencies
	cd console && npx tsc
	ruff format --check .
	ruff check .
	mypy
	sam validate --lint
	kingfisher scan $(SECRET_SCAN) $(wildcard *)
	$(PYTHON) -m tools.audit

unit: install console/tests/files.json ## Run the unit tests: rules, architecture, template, console
	cd console && npx vitest run
	pytest tests/unit

integration: install ## Run stores and handlers on moto
	pytest tests/integration

# Three stacks side by side, because the tests mostly wait: what callers use; what operators do, with webhooks; the engine.
e2e: install console/chromium ## Test the real template on the emulator through the OpenAI SDKs, and the console in Chromium
	$(MAKE) --jobs 3 e2e-callers e2e-operators e2e-engine

CALLERS := $(patsubst %,tests/e2e/test_%.py,batch clients console endpoints gateway lifecycle node openapi sdk tenancy)
OPERATORS := $(patsubst %,tests/e2e/test_%.py,guide operator permissions routes webhooks)

e2e-callers:
	NIGHTSHIFT_E2E_DIR=.local/e2e-callers pytest $(CALLERS)

e2e-operators:
	NIGHTSHIFT_E2E_DIR=.local/e2e-operators pytest $(OPERATORS)

e2e-engine:
	pytest tests/e2e $(CALLERS:%=--ignore=%) $(OPERATORS:%=--ignore=%)

chaos: install ## Run the chaos tests with 20,000 lines each
	CHAOS_LINES=20000 pytest tests/e2e/test_chaos.py -s --timeout 3000

upgrade: install ## Deploy this code over the last release while batches run, and back; two stacks side by side; take them down
	$(MAKE) --jobs 2 upgrade-release upgrade-stacks upgrade-first

upgrade-release:
	pytest tests/upgrade/test_upgrade.py

upgrade-stacks:
	pytest tests/upgrade/test_two_stacks.py

upgrade-first:
	pytest tests/upgrade/test_first_deployment.py

format: install ## Format the code and apply automatic fixes
	ruff format .
	ruff check --fix .

bench: bench-run_chunk bench-validate bench-finalize bench-cold_start bench-tls bench-scale bench-batch_mode bench-simulated ## Run the benchmarks against named peers and limits

# Models with clocks of their own, so that they can run side by side.
bench-simulated: install
	python -m bench.tails & tails=$$!; python -m bench.fairness; wait $$tails
	python -m bench.report

bench-%: install
	python -m bench.$*
	python -m bench.report

##@ The rest

openapi: install ## Generate the OpenAPI document, and the console's rules, from the code
	python -m tools.openapi
	python -m tools.console_rules

build: install ## Build the artifacts for AWS (arm64)
	sam build

NODE_MODULES := tests/e2e/node/node_modules
SITE := functions/api/site/console.html

console: $(SITE) ## Build the console and the API's reference

install: .venv/installed .local/emulator/installed .local/clients/installed $(NODE_MODULES)/installed $(SITE) ## Install all dependencies

clean: down ## Stop the stack and delete everything installed or built
	rm -rf $(NODE_MODULES) console/node_modules functions/api/site .venv .uv .local .aws-sam .mypy_cache .ruff_cache .pytest_cache .hypothesis

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' \
		$(MAKEFILE_LIST)

$(CURDIR)/.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/pip install --quiet uv==$(UV_VERSION)

.venv/installed: pyproject.toml uv.lock | $(UV)
	$(UV) sync --quiet --frozen
	touch $@

# The emulator runs the functions with its own Python, which has only the packages of Lambda's runtime.
.local/emulator/installed: pyproject.toml uv.lock | $(UV)
	UV_PROJECT_ENVIRONMENT=.local/emulator $(UV) sync --quiet --frozen --only-group emulator --no-install-project
	touch $@

# The Python clients that the end-to-end tests drive: they need another openai than the project's own.
.local/clients/installed: tests/e2e/clients/pyproject.toml tests/e2e/clients/uv.lock | $(UV)
	UV_PROJECT_ENVIRONMENT=$(CURDIR)/.local/clients $(UV) sync --quiet --frozen --project tests/e2e/clients
	touch $@

# The OpenAI SDK for Node, for the end-to-end tests.
$(NODE_MODULES)/installed: tests/e2e/node/package.json tests/e2e/node/package-lock.json
	npm ci --silent --no-audit --no-fund --prefix tests/e2e/node
	touch $@

console/node_modules/installed: console/package.json console/package-lock.json
	npm ci --silent --no-audit --no-fund --prefix console
	touch $@

console/chromium: console/node_modules/installed
	console/chromium.sh

# Files for the console's tests, with the faults that the server finds in them: new each time.
console/tests/files.json: install
	$(PYTHON) -m tools.console_rules

# The pages that the API's function carries.
$(SITE): console/node_modules/installed $(wildcard console/*.html console/*.ts) $(shell find console/src -type f)
	npm run --silent build --prefix console
	touch $@

.PHONY: bench build chaos check clean console console/chromium console/tests/files.json demo down e2e e2e-callers e2e-engine e2e-operators format help install integration logs openapi test unit up upgrade upgrade-first upgrade-release upgrade-stacks
