# Two commands do everything on a fresh machine: `make demo` and `make test`. `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
export PIP_DISABLE_PIP_VERSION_CHECK := 1
NOISES := 0 0.25 0.5 0.75
SETUP := $(VENV)/.setup-done
# vqvae_robust with one ingredient less, each in its name; see `make ablations`
ABLATE := $(RUN) src.train -m model=vqvae_robust seed=0,1,2 trainer.max_epochs=1 model.module.warp=0 model.name
JUDGE := $(RUN) src.sweep -m split=val threat=adaptive attack=apgd_ce eps=0,0.3 limit=500 seed=0,1,2 noise=0 defense=vqvae_robust
# Test processes take whole files, in the order of tests/conftest.py
TEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(RUN) pytest --numprocesses auto --maxprocesses 4 --dist loadfile \
  --no-loadscope-reorder

.PHONY: help setup demo reproduce robust certified board ablations weights results results-run test test-slow test-very-slow coverage bench bench-gpu docs lint format clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(SETUP) ## Make .venv and install into it; every target below does this first

$(SETUP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed; name it with: make setup PYTHON=python3.12" >&2; exit 1; }
	@echo "setting up $(VENV) (PyTorch is large: some minutes)"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(RUN) pip install --quiet --editable '.[dev]' --constraint constraints.txt
	@touch $@

demo: setup ## Train small, sweep 3 attacks x 4 eps x 7 columns on all of MNIST, report: some minutes
	@$(RUN) src.train model=classifier +experiment=demo
	@for noise in $(NOISES); do $(RUN) src.train model=vqvae noise=$$noise +experiment=demo || exit; done
	@$(RUN) src.sweep -m attack=fgsm,ifgsm,mifgsm eps=0,0.1,0.2,0.3

reproduce: setup ## The report's budget and protocol: its Tables 10-12 and Figures 2-9, ours beside its: an hour
	@$(RUN) src.train model=classifier
	@for noise in $(NOISES); do $(RUN) src.train model=vqvae noise=$$noise || exit; done
	@$(RUN) src.sweep -m +experiment=report

robust: setup ## Train the purifier that is made for an attacker who knows it; measure it with the whole suite: under two hours
	@$(RUN) src.train model=classifier
	@$(RUN) src.train model=classifier seed=1 +experiment=demo
	@$(RUN) src.train model=vqvae_robust
	@$(RUN) src.sweep -m +experiment=robust attack=worst_gradient threat=gray_box
	@$(RUN) src.sweep -m +experiment=robust attack=worst threat=adaptive limit=1000 checks.images=20

certified: setup ## Train the purifier that is proved, prove all test images, attack 1,000 with the whole suite: two hours
	@$(RUN) src.train model=classifier +experiment=demo
	@$(RUN) src.train model=classifier seed=1 +experiment=demo
	@$(RUN) src.train model=vqvae_certified
	@$(RUN) src.sweep -m +experiment=certified attack=certified
	@$(RUN) src.sweep -m +experiment=certified limit=1000 checks.images=20

board: setup ## Rank all purifiers by what an attacker who knows them leaves, 1,000 test images: hours
	@$(RUN) src.train model=classifier
	@$(RUN) src.train model=classifier seed=1 +experiment=demo
	@for noise in $(NOISES); do $(RUN) src.train model=vqvae noise=$$noise || exit; done
	@$(RUN) src.sweep -m +experiment=board limit=1000 checks.images=20

ablations: setup ## Train that purifier without each of its ingredients, an epoch and 3 seeds each: two hours
	@$(RUN) src.train model=classifier
	@$(RUN) src.train -m model=classifier seed=1,2 +experiment=demo
	@$(ABLATE)=whole
	@$(ABLATE)=without_attack model.module.steps=0
	@$(ABLATE)=without_guidance model.module.guidance=0
	@$(ABLATE)=without_bottleneck model.module.bottleneck=0
	@$(ABLATE)=without_quantizer model.module.num_embeddings=0
	@$(ABLATE)=without_stem model.module.stem=0
	@$(ABLATE)=without_shift model.module.shift=0
	@$(ABLATE)=without_threshold model.module.threshold=null
	@$(JUDGE) defense.name=whole,without_attack,without_guidance,without_bottleneck,without_quantizer,without_stem,without_shift
	@$(JUDGE) defense.name=without_threshold defense.first._target_=torch.nn.Identity ~defense.first.threshold

weights: setup ## Pack the trained networks for others, who need not train then -> outputs/weights
	@$(RUN) src.pack

results: setup ## Write the tables of README and docs from docs/results: seconds
	@$(RUN) tests.results

results-run: setup ## Measure docs/results again, then write the tables: many hours (ARGS="demo verdicts" for some)
	@$(RUN) tests.results --run $(ARGS)

test: setup ## Run the tests but the slow ones, on up to four cores: minutes
	@$(TEST) -m "not slow and not very_slow"

test-slow: setup ## Run the slow tests: whole commands, launchers, kills, browsers, tutorials
	@$(TEST) -m "slow and not very_slow"

test-very-slow: setup ## Run the tests that take minutes each: twenty kills, heavier launchers, trained networks
	@$(TEST) -m very_slow --timeout 1800

coverage: setup ## Run all tests but the very slow ones, and fail if they run fewer lines of src than the floor in pyproject.toml says
	@$(TEST) -m "not very_slow" --cov

bench: setup ## Time our code beside its peers -> outputs/bench/bench.md: some forty minutes (ARGS="attacks kmeans")
	@$(RUN) tests.benchmarks $(ARGS)

bench-gpu: setup ## Time the whole report on one GPU, then attacks and certificates -> outputs/bench/gpu.md, gpu_limits.md
	@$(RUN) tests.benchmarks.gpu $(ARGS)
	@$(if $(ARGS),,$(RUN) tests.benchmarks.gpu_limits)

docs: setup ## Build the documentation site, offline -> outputs/site
	@$(RUN) mkdocs build --strict

lint: setup ## Check style, types, and that a room imports only from rooms below it
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy
	@$(VENV)/bin/lint-imports --no-cache --no-logo

format: setup ## Format the code
	@$(RUN) ruff check --fix .
	@$(RUN) ruff format .

clean: ## Remove caches; outputs and .venv stay
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
