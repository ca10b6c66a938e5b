# make fit    train and evaluate the CPU example, scenes included
# make test   everything that is checked before a change is taken
# make setup  the virtual environment, the packages, a Vulkan driver; the other targets do it by themselves
# make lint format clean

CONFIG ?= configs/ppoflow_cpu.yaml
SCENES ?= scenes/cpu
SCENE_ARGS ?= --config configs/scenes/cpu.yaml
TORCH ?= 2.13.0
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CPU_INDEX := https://download.pytorch.org/whl/cpu
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)

CHECKS = $(BIN)/ruff check . || status=1; \
	$(BIN)/ruff format --check . || status=1; \
	$(BIN)/mypy || status=1; \
	$(BIN)/lint-imports || status=1;

.PHONY: fit test setup lint format clean
.DELETE_ON_ERROR:

fit: $(READY) $(SCENES)/scene_set.jsonl
	$(BIN)/genvla fit --config $(CONFIG)

$(SCENES)/scene_set.jsonl: | $(READY)
	$(BIN)/scenegen build $(SCENE_ARGS) --output $(SCENES)

# All checks run to their end, the tests last; it fails when one of them does.
test: $(READY)
	@status=0; $(CHECKS) \
	$(BIN)/pytest -q -n $(JOBS) || status=1; \
	[ $$status = 0 ] || echo "make test: failed, see above"; exit $$status

lint: $(READY)
	@status=0; $(CHECKS) exit $$status

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(READY)

# Without an NVIDIA GPU the CPU build of PyTorch saves gigabytes; where its index cannot be reached, pip decides. From Python 3.13 on,
# ManiSkill is installed without the dependencies it names (see pyproject.toml).
$(READY): pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 or later is needed: apt-get install python3 python3-venv"; exit 1; }
	@[ -x $(BIN)/pip ] || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "The venv module of Python is needed: sudo apt-get install -y python3-venv"; exit 1; }
	@if nvidia-smi -L >/dev/null 2>&1; then echo "NVIDIA GPU found: PyTorch comes with CUDA"; \
	elif $(BIN)/python -c "import urllib.request as u; u.urlopen('$(CPU_INDEX)/torch/', timeout=5)" 2>/dev/null; then \
		$(BIN)/pip install -q --no-deps --index-url $(CPU_INDEX) "torch==$(TORCH)+cpu"; \
	else $(BIN)/pip install -q "torch==$(TORCH)"; fi
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 13))'; then \
		$(BIN)/pip install -q --no-deps "mani_skill>=3.0.1"; fi
	$(BIN)/pip install -q -e ".[dev]"
	@# openpi-client asks for NumPy 1 and runs with 2; without it the tests of the policy server against it are skipped.
	@$(BIN)/pip install -q --no-deps "openpi-client>=0.1.2" || echo "openpi-client not installed: its tests will be skipped"
	$(BIN)/python -m genvla.doctor --fix
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
