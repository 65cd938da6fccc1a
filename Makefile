# Everything runs in .venv, which each target makes and fills by itself; no target needs it to be activated.
#   another Python:   make demo PYTHON=python3.13
#   no GPU:           PyTorch's own package index has CPU builds, which saves a download of several GB; name it in
#                     PIP_EXTRA_INDEX_URL

PYTHON ?= python3
VENV := .venv
LABEL_VENV := .venv-monailabel
PYTHONS = 3.11 3.12 3.13 3.14

PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
# Configs name the bundle's own code as scripts.<module>, so the commands run from bundle/.
BUNDLE_RUN = cd bundle && ../$(VENV)/bin/python -m monai.bundle run
# A process a core, each with one thread: most of the time goes to starting commands. The tests of a file share what its fixtures make.
TESTS = -m pytest tests --numprocesses auto --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)
TEST_PYTHON = OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(VENV)/bin/python
PINNED = setup.cfg pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast coverage check pytype resolve docs speed memory benchmark weights bundle monailabel clean

help: ## list the targets
	@echo "usage: make TARGET"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do printf '  %-10s %s\n' "$$name" "$$text"; done

demo: $(VENV)/installed ## make a sample volume, reconstruct it x8 with the shipped weights, score it (in demo/)
	$(BUNDLE_RUN) --config_file configs/sample.yaml --output_dir ../demo
	$(BUNDLE_RUN) --config_file configs/inference.yaml --volume ../demo/sample_lowres.tif --factor 8 \
		--output ../demo/sample_x8.tif --overwrite true
	$(BUNDLE_RUN) --config_file configs/evaluate.yaml --reconstruction ../demo/sample_x8.tif \
		--truth ../demo/sample_truth.tif --factor 8 --output_dir ../demo

test: $(VENV)/installed-test ## run the test suite; PYTEST_ARGS="-k lattice" runs a part of it
	$(TEST_PYTHON) $(TESTS)

test-fast: $(VENV)/installed-test ## run the tests that are not slow: all but those that train, restore or start many commands
	$(TEST_PYTHON) $(TESTS) -m "not slow"

# Commands that the tests start are measured as well; setup.cfg has the floor under which it fails.
coverage: $(VENV)/installed-test ## run the test suite and see which share of the bundle's lines it runs
	$(VENV)/bin/python -m coverage erase
	$(TEST_PYTHON) -m coverage run $(TESTS)
	$(VENV)/bin/python -m coverage combine --quiet
	$(VENV)/bin/python -m coverage report

# Of the files that git knows; what can be put right is put right, and the check fails.
check: $(VENV)/installed-dev ## run black, isort, flake8, mypy and the other hooks of .pre-commit-config.yaml
	$(VENV)/bin/python -m pre_commit run --all-files --show-diff-on-failure

pytype: $(VENV)/installed-dev ## run pytype with the settings of the model zoo (takes many minutes; it ends with Python 3.12)
	$(VENV)/bin/pytype --config setup.cfg --jobs auto bundle/scripts

# uv resolves for a Python that is not there; nothing is installed, and --no-build refuses what has no wheel.
resolve: $(VENV)/installed-resolve ## see that the pinned packages can be installed on every supported Python (needs a network)
	@for version in $(PYTHONS); do \
		$(VENV)/bin/python -m uv pip compile --quiet --no-build --python-version $$version --python-platform x86_64-manylinux_2_28 \
			--constraints constraints.txt --all-extras setup.cfg --no-header --output-file $(VENV)/resolved-$$version.txt --upgrade || exit 1; \
		echo "Python $$version: $$(grep -c == $(VENV)/resolved-$$version.txt) packages"; \
	done

docs: $(VENV)/installed-test ## build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

speed: $(VENV)/installed-benchmark ## measure how fast each stage is on this machine (runs/speed.json): make speed [VOLUME=volume coarse in Z, for all of D2R]
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} $(VENV)/bin/python -m benchmarks.machine.speed $(if $(VOLUME),--volume "$(VOLUME)")

memory: $(VENV)/installed-benchmark ## measure the memory of a reconstruction and of one 16 times larger (runs/memory.json)
	$(VENV)/bin/python -m benchmarks.machine.memory

benchmark: data-given $(VENV)/installed-benchmark ## train and score the paper's tables (docs/benchmarks.md): make benchmark DATA=folder of train, test and test_neurons.ome.tif [LIGHT=volume]
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} $(VENV)/bin/python -m benchmarks.paper.tables --data "$(DATA)" $(if $(LIGHT),--light "$(LIGHT)")

weights: data-given $(VENV)/installed ## repeat the training of the shipped weights: make weights DATA=volume or folder of slices
	volume=$$(realpath "$(DATA)") && $(BUNDLE_RUN) --config_file configs/decimate.yaml --volume "$$volume" \
		--factor 8 --output ../runs/weights/lowres.tif --overwrite true
	$(BUNDLE_RUN) --config_file configs/d2r.yaml --volume ../runs/weights/lowres.tif --factor 8 \
		--output ../runs/weights/reconstruction.tif --overwrite true --workdir ../runs/weights --preset standard --amp true
	@echo "the weights are runs/weights/prior/model_diffusion.pt and runs/weights/aenet/model.pt"

.PHONY: data-given
data-given:
	@test -n "$(DATA)" || { echo "error: no data: run make weights DATA=path, an isotropic volume or a folder of its slices" >&2; exit 2; }
	@test -e "$(DATA)" || { echo "error: $(DATA): no such file or folder (option DATA)" >&2; exit 2; }

bundle: ## write the zip that would be published, in dist/, and bring the hashes in bundle/large_files.yml up to date
	$(PYTHON) release/make_bundle.py

monailabel: $(LABEL_VENV)/installed ## try the bundle in a MONAI Label server on this machine, which is stopped again
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} $(LABEL_VENV)/bin/python monailabel/check_server.py

clean: ## delete demo/, runs/, caches and the environment
	rm -rf demo runs site build dist d2r_bundle.egg-info .pytest_cache .mypy_cache .pytype .coverage "$(VENV)" "$(LABEL_VENV)"
	find bundle tests monailabel release -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp a set of packages: pip runs again only when what it reads has changed.
$(VENV)/installed: $(PINNED) | $(VENV)/bin/pip
	@$(VENV)/bin/python -c "$$SUPPORTED" $(VENV)/bin/python
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/installed-%: $(PINNED) | $(VENV)/bin/pip
	$(PIP) install -c constraints.txt -e '.[$*]'
	@touch $@

# MONAI Label cannot share the environment: it needs numpy 1.26.
$(LABEL_VENV)/installed: monailabel/requirements.txt | $(LABEL_VENV)/bin/pip
	$(LABEL_VENV)/bin/python -m pip --disable-pip-version-check install -r monailabel/requirements.txt
	@touch $@

$(VENV)/bin/pip $(LABEL_VENV)/bin/pip:
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found: install Python 3.11 to 3.14, or name one: make $(or $(MAKECMDGOALS),demo) PYTHON=python3.13" >&2; exit 1; }
	@$(PYTHON) -c "$$SUPPORTED" $(PYTHON) $(if $(filter $(LABEL_VENV)/%,$@),label)
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) has no venv: install it (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(patsubst %/bin/,%,$(dir $@))

# What a Python is told before pip would tell it in fifty lines; numpy 1.26, which MONAI Label needs, has no files for 3.13.
define SUPPORTED
import sys
version = sys.version_info[:2]
name = "%s is Python %d.%d" % ((sys.argv[1],) + version)
if version < (3, 11):
    sys.exit("error: " + name + " and 3.11 to 3.14 is needed: name one, e.g. make demo PYTHON=python3.13")
if version > (3, 12) and sys.argv[2:]:
    sys.exit("error: " + name + " and MONAI Label needs 3.11 or 3.12: name one, e.g. make monailabel PYTHON=python3.12")
if version > (3, 14):
    sys.stderr.write("warning: " + name + ", newer than what was tried (3.11 to 3.14)\n")
endef
export SUPPORTED
