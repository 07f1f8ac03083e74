# Each verb sets up what it needs: Python 3.11 or newer, node with npm, make and a C compiler are enough.
# Ape's environment needs Python 3.11 or 3.12.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
UV := .uv/bin/uv
RUN := .venv/bin/python
FORGE_BIN := $(CURDIR)/node_modules/@foundry-rs/forge-linux-amd64/bin

export SOLCX_BINARY_PATH := $(CURDIR)/.solcx
export APE_DATA_FOLDER := $(CURDIR)/.cache/ape
export UV_SYSTEM_CERTS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export NO_MKDOCS_2_WARNING := 1

DEV := .venv/.ready
WEB3_7 := .venv-web3-7/.ready
APE := .venv-ape/.ready
PROVE := .venv-prove/.packages
BENCH := .venv-bench/.packages
DOCS := .venv-docs/.ready
NODE := node_modules/.ready
WHEELS := .wheels/.ready
SOLC := .solcx/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test test-long test-web3-7 test-ape check contracts gas bench settle-many hub-many chaos forge fuzz halmos slither mutants coverage docs lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(DEV) ## a paid site, a payer and a chain on this machine, from open to close
	$(RUN) scripts/demo.py

# Minutes of real processes: what is killed or lost, whole purchases of each kind, every command of the documentation.
LONG_TESTS := tests/chaos tests/docs/test_commands.py tests/payee/test_daemon_processes.py tests/scripts/test_hub_many.py \
	$(addprefix tests/e2e/test_,$(addsuffix .py,contract_wallet discounts gasless network node_faults passes payer_killed post_pay recovery))

test: $(DEV) $(NODE) $(SOLC) $(WHEELS) ## all tests but Ape's and the long ones
	$(RUN) -m pytest -n 2 --dist worksteal $(addprefix --ignore=,$(LONG_TESTS))
	node --test tests/js/*.test.mjs

test-long: $(DEV) $(NODE) $(SOLC) ## what is killed or lost, whole purchases of each kind, every command of the documentation
	$(RUN) -m pytest -n 2 --dist worksteal $(LONG_TESTS)

test-web3-7: $(WEB3_7) $(NODE) ## chain tests and the main job on the oldest web3 that is supported
	.venv-web3-7/bin/python -m pytest -n 2 --dist worksteal -k "not embedded or main_job or hardware" \
		tests/chain tests/e2e/test_main_job.py tests/payer/test_hardware_wallet.py

test-ape: $(APE) $(SOLC) ## the contract through Ape: compile, test, deploy
	.venv-ape/bin/ape compile
	.venv-ape/bin/ape test tests/ape
	.venv-ape/bin/ape run deploy --network ethereum:local:test

check: $(DEV) $(NODE) ## lint, format, types, import directions, the types that users see
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy --strict src scripts examples tests
	.venv/bin/lint-imports
	PATH="$(CURDIR)/.venv/bin:$$PATH" node_modules/.bin/pyright --verifytypes channelpay --ignoreexternal

contracts: $(DEV) $(SOLC) ## compile contracts/ into the artifacts that the package ships
	$(RUN) scripts/build_contracts.py

gas: $(DEV) ## what each transaction costs, from receipts
	$(RUN) -m scripts.gas

bench: $(DEV) $(BENCH) $(NODE) ## what a voucher and a paid request cost, as ratios, beside peers; writes docs/benchmarks.md
	$(RUN) -m scripts.bench --write

settle-many: $(DEV) $(NODE) ## a thousand channels settled in batches: transactions, gas, time
	$(RUN) -m scripts.settle_many

hub-many: $(DEV) $(NODE) ## twenty thousand sales on three sites of a network, with kills: payouts, statements, gas per sale
	$(RUN) -m scripts.hub_many

chaos: $(DEV) $(NODE) ## kill a site two hundred times while it is paid, on both stores; then ten minutes of chain faults and kills together
	$(RUN) -m scripts.chaos

forge: $(DEV) $(NODE) $(SOLC) ## fuzz and invariant tests of the contract in Solidity
	$(RUN) scripts/build_contracts.py --check
	$(FORGE_BIN)/forge test

fuzz: $(DEV) $(NODE) $(SOLC) ## the property tests with many more examples, and a million calls of the contract
	$(RUN) -m pytest -n 2 --dist worksteal -m hypothesis --hypothesis-profile=fuzz
	$(RUN) scripts/build_contracts.py --check
	FOUNDRY_PROFILE=fuzz $(FORGE_BIN)/forge test

halmos: $(PROVE) $(NODE) $(SOLC) ## proofs of the contract for all values
	PATH="$(FORGE_BIN):$$PATH" FOUNDRY_PROFILE=halmos .venv-prove/bin/halmos --forge-build-out .build/halmos/out \
		--storage-layout generic --solver-timeout-branching 100ms --function check_

slither: $(DEV) $(PROVE) $(NODE) $(SOLC) ## static analysis of the contract, against docs/slither.md
	PATH="$(FORGE_BIN):$$PATH" $(RUN) scripts/check_slither.py .venv-prove/bin/slither

mutants: $(DEV) $(NODE) $(SOLC) ## break one rule of the contract after the other; the tests have to notice
	$(RUN) -m scripts.mutate --write

coverage: $(DEV) $(NODE) $(SOLC) $(WHEELS) ## all tests but Ape's, with branch coverage
	.venv/bin/coverage erase
	.venv/bin/coverage run -m pytest
	.venv/bin/coverage combine --quiet
	.venv/bin/coverage report

docs: $(DEV) $(DOCS) ## the documentation site in .build/site; every link and verb exists
	$(RUN) scripts/check_docs.py
	.venv-docs/bin/python -m mkdocs build --strict --quiet
	$(RUN) -m scripts.docs.check_site .build/site

# Versions stay as they are unless pyproject.toml asks for others; delete a lock file to take the newest.
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url
lock: .uv/.ready ## write requirements/*.txt and package-lock.json anew
	$(COMPILE) --group lock --output-file requirements/uv.txt
	$(COMPILE) --group build --output-file requirements/build.txt
	$(COMPILE) pyproject.toml --extra all --group test --group check --output-file requirements/dev.txt
	$(COMPILE) pyproject.toml --extra all --group build --constraint requirements/dev.txt --output-file requirements/wheels.txt
	$(COMPILE) pyproject.toml --extra all --extra ledger --group web3-7 --output-file requirements/web3-7.txt
	$(COMPILE) pyproject.toml --extra dev --group ape --output-file requirements/ape.txt
	$(COMPILE) --group prove --output-file requirements/prove.txt
	$(COMPILE) --group bench --output-file requirements/bench.txt
	$(COMPILE) pyproject.toml --extra all --group docs --output-file requirements/docs.txt
	npm install --package-lock-only

clean: ## remove the environments and all that was built
	rm -rf .uv .wheels .venv .venv-web3-7 .venv-ape .venv-prove .venv-bench .venv-docs .solcx node_modules .build .cache .hypothesis .import_linter_cache
	rm -rf .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.* htmlcov dist

# Set-up. A `.ready` file says that its folder holds what the lock file beside it in the rule asks for.

.uv/.ready: requirements/uv.txt
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet --require-hashes -r $<
	@touch $@

.venv/.packages: requirements/dev.txt
.venv-web3-7/.packages: requirements/web3-7.txt
.venv-ape/.packages: requirements/ape.txt
.venv-prove/.packages: requirements/prove.txt
.venv-bench/.packages: requirements/bench.txt
.venv-docs/.packages: requirements/docs.txt

.venv/.packages .venv-web3-7/.packages .venv-ape/.packages .venv-prove/.packages .venv-bench/.packages .venv-docs/.packages: .uv/.ready
	test -x $(@D)/bin/python || $(PYTHON) -m venv --without-pip $(@D)
	$(UV) pip sync --quiet --python $(@D) --require-hashes $(filter requirements/%,$^)
	@touch $@

.venv/.ready .venv-web3-7/.ready .venv-ape/.ready .venv-docs/.ready: %/.ready: %/.packages pyproject.toml requirements/build.txt
	$(UV) pip install --quiet --python $(@D) --no-deps --build-constraints requirements/build.txt --editable .
	@touch $@

# What a test installs the package from, in an empty environment.
$(WHEELS): requirements/wheels.txt .uv/.ready
	rm -rf $(@D)
	.uv/bin/pip wheel --quiet --require-hashes --wheel-dir $(@D) --requirement $<
	@touch $@

$(NODE): package-lock.json package.json
	npm ci --loglevel=error
	@touch $@

$(SOLC): scripts/solc/install.py scripts/solc/solc.cjs $(NODE) | $(DEV)
	$(RUN) $<
	@touch $@
