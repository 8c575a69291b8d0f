# Everything lives in .venv. Needed: make and Python 3.11 or newer (another one: make PYTHON=python3.12 ...).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

FUZZ_S ?= 1800
CASES ?= 100000
SEED ?= 1
TRAFFIC_S ?= 1800
TESTS ?= tests/http tests/jwt tests/policy tests/proxy tests/gateway tests/app
PROOF ?= fuzz --seconds 900

.PHONY: install run test test-on test-compiled proof-compiled wheel check docs bench cost mutation explore properties fuzz fuzz-config fuzz-core traffic soak transfer rotation bystander adversarial sizing watched rollout release-check image-test \
	screenshots
.DELETE_ON_ERROR:

install: $(VENV)/installed-dev

run: $(VENV)/installed
	$(BIN)/jwt-sidecar dev -c config.minimal.yaml

# One process for each core, at most four.
test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -rs -n auto --maxprocesses 4 --dist worksteal

check: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# The same on another Python, in an environment of its own: make test-on PYTHON=python3.13
test-on:
	$(MAKE) test VENV=build/$(notdir $(PYTHON)) PYTHON=$(PYTHON)

# The site, into build/site. A link that leads nowhere ends the build.
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -f docs/site/mkdocs.yml

# Of the compiled wheel, which is what the image runs.
bench: wheel
	rm -rf build/bench && $(BIN)/python -m venv build/bench
	build/bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.txt
	build/bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps dist/*.whl
	build/bench/bin/python -m benchmarks --record

# What a request costs in calls, and the budget that a test holds it to: make cost WRITE=--write
cost: $(VENV)/installed-dev
	$(BIN)/python -m tests.cost $(WRITE)

# make mutation MODULES="jwt/claims policy/access_policy"
mutation: $(VENV)/installed-dev
	$(BIN)/python -m tests.proofs.mutation $(MODULES)

# The properties of the suite with random inputs, 1,000 for each: make explore SEED=7
explore: $(VENV)/installed-dev
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 -m hypothesis --hypothesis-profile explore --hypothesis-seed $(SEED) tests

properties: $(VENV)/installed-dev
	$(BIN)/python -m tests.proofs.properties

# make fuzz FUZZ_S=60
fuzz: $(VENV)/installed-dev
	$(BIN)/python -m tests.proofs.fuzz --seconds $(FUZZ_S)

# make fuzz-config CASES=1000
fuzz-config: $(VENV)/installed-dev
	$(BIN)/python -m tests.proofs.config_fuzz --cases $(CASES)

fuzz-core: $(VENV)/installed-dev
	$(BIN)/python -m tests.proofs.core --seconds $(FUZZ_S)

# make traffic TRAFFIC_S=60 TRAFFIC=--forgiving
traffic: $(VENV)/installed-dev
	$(BIN)/python -m tests.proofs.traffic --seconds $(TRAFFIC_S) $(TRAFFIC)

# A wheel whose modules on a request's way are compiled (docs/understand/performance.md), for the interpreter that makes it.
wheel: $(VENV)/installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r deploy/requirements-build.txt
	rm -rf dist/*.whl && $(BIN)/python deploy/compiled.py --quiet bdist_wheel

# The data plane's tests on compiled modules: make test-compiled TESTS=tests/proxy
test-compiled: $(VENV)/installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r deploy/requirements-build.txt
	rm -rf build/compiled && mkdir -p build/compiled
	git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents --target-directory build/compiled
	cd build/compiled && $(CURDIR)/$(BIN)/python deploy/compiled.py --quiet build_ext --inplace
	cd build/compiled && $(CURDIR)/$(BIN)/python -m pytest -rs -n auto --maxprocesses 4 --dist worksteal $(TESTS)

# A proof of the compiled wheel, which is what the image runs: make proof-compiled PROOF="fuzz --seconds 900"
proof-compiled: wheel
	rm -rf build/proofs && $(BIN)/python -m venv build/proofs
	build/proofs/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.txt
	build/proofs/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r tests/requirements.txt
	build/proofs/bin/python -m pip install --quiet --disable-pip-version-check --no-deps dist/*.whl
	mkdir build/proofs/work && cp -R tests docs deploy config.yaml build/proofs/work
	cd build/proofs/work && ../bin/python -m tests.proofs.$(PROOF)

screenshots: $(VENV)/installed-dev
	$(BIN)/python -m tests.real.screenshots

soak transfer rotation bystander adversarial sizing watched: $(VENV)/installed-dev
	$(BIN)/python -m tests.proofs.$@

# Needs root, and kubectl from `python -m tests.deploy.tools`. make rollout ROLLOUT="--without pre-stop" shows what a part is there for.
rollout: $(VENV)/installed-dev
	$(BIN)/python -m tests.proofs.rollout $(ROLLOUT)

# What would be published, tried on every Python that is here: the source distribution, the pure wheel and the compiled wheel.
release-check: wheel
	$(BIN)/python -m tests.deploy.release

# Needs root, and the Debian packages that it names.
image-test: $(VENV)/installed-dev
	$(BIN)/python -m tests.deploy.image

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("jwt-sidecar needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

# --no-deps, because the lock leaves out what python-jose names and nothing imports (docs/project/python-jose.md).
# compileall, because without .pyc files the start takes three times as long, and PYTHONDONTWRITEBYTECODE would keep it so.
$(VENV)/installed: requirements.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	$(BIN)/python -m compileall -q sidecar
	touch $@

$(VENV)/installed-docs: docs/requirements.txt $(VENV)/installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r docs/requirements.txt
	touch $@

$(VENV)/installed-dev: tests/requirements.txt $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r tests/requirements.txt
	touch $@
