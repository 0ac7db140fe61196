# Two commands for a fresh machine: `make study` and `make test`. Both make the environment first, once.
PYTHON ?= python3
DATA ?= synthetic
PROFILE ?= $(if $(filter real,$(DATA)),cpu,quick)
REQUIREMENTS ?= requirements.txt
BIN = .venv/bin
INSTALLED = .venv/installed-$(notdir $(REQUIREMENTS))

.PHONY: install study test faults bench report docs notebooks tensorboard requirements clean

install: $(INSTALLED)

study: $(INSTALLED)
	$(BIN)/tfproject study --data $(DATA) --profile $(PROFILE)

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

# Processes killed, disks filled, files damaged; the small disks need root.
faults: $(INSTALLED)
	$(BIN)/python -m pytest tests/faults -m ""

# One after the other, as they would disturb each other, on the real image sets. The last ones train for long, and go
# on where they were when they are started again. One that fails, as without its images, does not keep the others from
# running.
BENCHMARKS ?= start_up study training_step input_pipeline inference growth training_memory cost_against_profiler \
	interpret frozen_prefix precision whole_runs
bench: $(INSTALLED)
	failed=; \
	for script in $(BENCHMARKS) readme; do $(BIN)/python benchmarks/$$script.py || failed="$$failed $$script"; done; \
	test -z "$$failed" || { echo "These benchmarks failed:$$failed" >&2; exit 1; }

# The notebooks with their outputs, made anew from their scripts; with DATA=real finished runs come from results/.
notebooks: $(INSTALLED)
	PROFILE=$(PROFILE) $(BIN)/python notebooks/execute.py

# From the files in results/ alone; changes nothing where nothing changed.
report: $(INSTALLED)
	$(BIN)/tfproject report

# The pages of docs/ and the packages' docstrings, into build/site.
docs: $(INSTALLED)
	$(BIN)/mkdocs build --strict --quiet

tensorboard: $(INSTALLED)
	$(BIN)/tensorboard --logdir runs

$(BIN)/python:
	$(PYTHON) -m venv .venv || { echo "No virtual environment could be made; on Debian and Ubuntu: apt install python3-venv" >&2; rm -rf .venv; exit 1; }

# Installed anew only when what is to be installed has changed.
$(INSTALLED): $(REQUIREMENTS) pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(REQUIREMENTS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# The exact versions, worked out anew from pyproject.toml's ranges.
requirements: | $(BIN)/python
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --extra test --no-header pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --extra test --extra gpu --no-header pyproject.toml -o requirements-gpu.txt

clean:
	rm -rf .venv build *.egg-info
