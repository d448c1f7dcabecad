# Reproduction of Durrani, Sajjad & Dalvi (2021). `make` lists what there is; `make reproduce` is the whole study.
# Needs GNU Make 4 (macOS: brew install make, then gmake) and Python 3.11 or later with venv and pip.
ifneq ($(filter 3.%,$(MAKE_VERSION)),)
$(error GNU Make 4.0 or later is needed, this is $(MAKE_VERSION); on macOS: brew install make, then gmake)
endif
ifneq ($(findstring :,$(CURDIR)),)
$(error the path of this folder has a colon, at which Python and its environments cut paths; move or rename: $(CURDIR))
endif
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:
.SECONDARY:
.SUFFIXES:
.DEFAULT_GOAL := help

# Selectors ------------------------------------------------------------------------------------------------------
SCALE ?= mini
STUDIES ?=
TASKS ?=
PROPERTIES ?=
SEEDS ?=
DEVICE ?=
ISA ?= avx2
EXACT ?=
THREADS ?=
KEEP ?=
LAUNCH ?=
MIRROR ?=
SIZE ?= full
SETTINGS ?= {}
BENCH ?=
LAB ?=
# One process at a time computes on a GPU: many of them wait for each other.
ON_GPU = $(if $(filter cpu,$(DEVICE)),,$(shell nvidia-smi -L > /dev/null 2>&1 && echo 2))
JOBS ?= $(or $(ON_GPU),$(shell getconf _NPROCESSORS_ONLN))

# What comes from the shell --------------------------------------------------------------------------------------
VENV := .venv
from_shell = $(filter environment%,$(origin $1))
ifneq ($(call from_shell,PYTHON),)
ifneq ($(PYTHON),$(VENV)/bin/python)
$(info PYTHON=$(PYTHON) of the shell is not used here; if it is meant: make ... PYTHON=$(PYTHON))
endif
override PYTHON := $(VENV)/bin/python
endif
PYTHON ?= $(VENV)/bin/python
OF_STEPS := $(patsubst notebooks/%.ipynb,LAUNCH_%,$(wildcard notebooks/0[1-9]_*.ipynb))
SELECTORS := SCALE STUDIES TASKS PROPERTIES SEEDS DEVICE ISA EXACT THREADS KEEP LAUNCH MIRROR SIZE SETTINGS BENCH LAB JOBS
GIVEN := $(strip $(foreach v,$(SELECTORS),\
  $(if $(call from_shell,$v),$(if $($v),$v="$($v)"))) $(foreach v,$(OF_STEPS),$(if $(call from_shell,$v),$v="$($v)")))
# What is meant for no step is refused, but for what the shell has: that may be another program's.
STRAY := $(filter-out $(OF_STEPS),$(filter LAUNCH_%,$(.VARIABLES)))
MISSPELT := $(foreach v,$(STRAY),$(if $(call from_shell,$v),,$v))
ifneq ($(MISSPELT),)
$(error $(MISSPELT): there is no such step; write LAUNCH for all steps, or for one of them $(OF_STEPS))
endif
# What other programs read has an underscore (HF_HUB_OFFLINE).
UNKNOWN := $(foreach v,$(filter-out $(SELECTORS) PYTHON SHELL MAKEFLAGS,$(.VARIABLES)),\
  $(if $(findstring _,$v),,$(if $(filter command,$(origin $v)),$v)))
ifneq ($(strip $(UNKNOWN)),)
$(error $(strip $(UNKNOWN)): there is no such selector; there are $(SELECTORS))
endif
$(foreach v,EXACT KEEP,$(if $(filter-out 1,$($v)),$(error $v=$($v): write $v=1, or leave it out)))

include lib/surroundings.mk
ifneq ($(EXACT),)
ifeq ($(filter compatible,$(ISA))$(filter file,$(origin ISA)),)
$(error EXACT=1 and ISA=$(ISA): digits cannot be both, leave one of them out)
endif
override ISA := compatible
endif
ISAS := avx2 compatible native
ifneq ($(words $(filter $(ISAS),$(ISA))),1)
$(error ISA=$(ISA): write one of $(ISAS))
endif
SET += ISA=$(ISA) $(if $(shell [ -r /proc/cpuinfo ] && ! grep -qw avx2 /proc/cpuinfo && echo old),,$(SET_$(ISA)_$(shell uname -m)))
UNUSED := $(sort $(filter-out $(KEPT) $(foreach s,$(SET),$(firstword $(subst =, ,$s))),\
  $(filter $(REMOVED) $(REMOVED_AT_START),$(.VARIABLES))) $(STRAY))
unexport $(UNUSED)
tell_surroundings = $(if $(UNUSED),$(info not used here, although set: $(UNUSED)))$(if $(GIVEN),$(info taken from the shell: $(GIVEN)))
$(foreach s,$(SET),$(eval export $s))
export PYTHON LAUNCH
export PYTHONPATH := $(CURDIR)
export IPYTHONDIR := $(CURDIR)/runs/.ipython

.PHONY: begin $(VENV)/installed help doctor data plan reproduce figures verify digits record report pretrain test test-quick test-faults test-exact test-hub test-slurm bench bench-large bench-precision lint notebooks lab clean clean-runs clean-all env

help: ## this list
	@echo 'make TARGET [SELECTOR=value ...]'
	@echo
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' Makefile | expand -t 16
	@echo
	@echo 'Selectors (in brackets: now)'
	@printf '  %-12s%s\n' SCALE 'which studies and figures: the `scale` of params/*.yaml [$(SCALE)]' \
	  STUDIES 'parameter files by name; default: all of the scale [$(STUDIES)]' \
	  TASKS 'tasks to fine-tune on; default: those of each study [$(TASKS)]' \
	  PROPERTIES 'word-level properties to probe; default: those of each study [$(PROPERTIES)]' \
	  SEEDS 'fine-tuning seeds, e.g. SEEDS="1 2 3"; none: those of each study (mini: 1) [$(SEEDS)]' \
	  DEVICE 'auto, cpu, cuda, cuda:1, mps; default: that of each study [$(DEVICE)]' \
	  ISA 'how numbers are computed: avx2 (the same digits on all processors of a maker), native [$(ISA)]' \
	  EXACT 'EXACT=1: the same digits on all x86-64 with AVX2, at twice the time [$(EXACT)]' \
	  THREADS 'per run; default: that of each study [$(THREADS)]' \
	  KEEP 'KEEP=1 keeps the activation stores after probing [$(KEEP)]' \
	  LAUNCH 'put before every step, e.g. LAUNCH="srun --time=4:00:00" [$(LAUNCH)]' \
	  LAUNCH_STEP 'in its place before one step, e.g. LAUNCH_01_finetune="srun --gpus=1"; nothing: LAUNCH_05_figures=' \
	  JOBS 'runs at a time [$(JOBS)]' \
	  MIRROR 'of make data: a folder with copies of what no package registry has (glue/, corpora/) [$(MIRROR)]' \
	  SIZE 'full, or lesson: few words to probe, as a trial (make pretrain: little text) [$(SIZE)]' \
	  SETTINGS 'of make pretrain, laid over lib/pretraining/training.py [$(SETTINGS)]'

# By content: the dates of files depend on how they came here, and on clocks.
BUILT := $(shell [ -x $(VENV)/bin/python ] && [ "$$(cat requirements.lock pyproject.toml)" = "$$(cat $(VENV)/installed)" ] \
  2> /dev/null && echo yes)

env: $(if $(BUILT),,$(if $(filter $(VENV)/%,$(PYTHON)),$(VENV)/installed)) ## build .venv from requirements.lock (the other targets do it when needed)

of_the_lock = "$1" -c 'from lib import doctor; doctor.demand()'
pip = $(VENV)/bin/python -m pip
elsewhere = (python|target|prefix|root|dry-run)

$(VENV)/installed:
	@echo "building $(VENV) from requirements.lock (one to five minutes, once) ..."
	@rm -f $@
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Python 3.11 or later is needed: python3 is' "$$(python3 -V)"; exit 1; }
	@python3 -m venv $(VENV)
	@if led=$$($(pip) config list | grep -E '\.$(elsewhere)='); then \
	  echo "pip is told to install elsewhere, by $$led: take it out ('pip config debug' names the file)"; exit 1; fi
	@$(pip) install --quiet --disable-pip-version-check --requirement requirements.lock 2>&1 | { grep -v '^WARNING: Location' || true; }
	@$(pip) install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . 2>&1 | { grep -v '^WARNING: Location' || true; }
	@$(call of_the_lock,$(VENV)/bin/python)
	@cat requirements.lock pyproject.toml > $@

doctor: ## check Python, make, packages, device, disk, memory, data, hub; OK or FAIL with the fix
	@"$(or $(shell command -v "$(PYTHON)"),python3)" lib/doctor.py

ASK = "$(PYTHON)" -m lib --scale '$(SCALE)' --studies '$(STUDIES)' --tasks '$(TASKS)' --seeds '$(SEEDS)' \
  --properties '$(PROPERTIES)' --device '$(DEVICE)' --threads '$(THREADS)' --size '$(SIZE)'
dry = $(findstring n,$(firstword -$(MAKEFLAGS)))
ready = $(or $(BUILT),$(filter-out $(VENV)/%,$(PYTHON)))

data: env ## fetch and verify the data of the studies (16 MB; the encoders are in models/); says where the rest is
	@$(ASK) data --mirror '$(MIRROR)'

# What every command on results begins with.
begin: env
	$(tell_surroundings)
	@$(if $(filter $(VENV)/%,$(PYTHON)),,$(call of_the_lock,$(PYTHON)))

plan: begin ## show what `make reproduce` would run now, and what it takes of disk and time
	@$(ASK) plan --jobs '$(JOBS)' $(if $(KEEP),--keep)

engine = $(if $(dry),$(if $(ready),,@exit 0;))@mkdir -p runs && rules=$$(mktemp runs/.grid-XXXXXX) && trap 'rm -f "$$rules"' EXIT \
  && $(ASK) grid $(if $(KEEP),--keep) $(if $(dry),--dry) $1 > "$$rules" \
  && $(MAKE) --no-print-directory -f "$$rules" $(if $(filter -j%,$(MAKEFLAGS)),,-j$(JOBS)) all

# Under `make -n` too, where there is an environment: what is to do stands in rules that Python writes.
reproduce: begin ## the whole study: fine-tune, extract, probe, rank, draw; resumes where it stopped
	+$(call engine)
	@$(ASK) summary

verify: begin ## compare the results of make reproduce with what is recorded in expected/; fails on a miss
	@$(ASK) verify

digits: begin ## after make reproduce: keep its digits as those that make verify expects of this maker's processors
	@$(ASK) digits

record: begin ## what make reproduce runs, each run kept in results/ as it finishes (skipped if it is there); then expected/ and figures/
	+$(call engine,--record)
	@$(ASK) record && $(ASK) figures

figures: begin ## draw every figure, table and verdict from the recorded runs in results/, into figures/
	@$(ASK) figures

report: reproduce ## the figures notebook as one self-contained page
	@$(ASK) report

pretrain: env ## make the encoders of models/ from nothing, in runs/pretrain (some four core-hours; resumes)
	$(tell_surroundings)
	@$(ASK) pretrain --preset '$(SIZE)' --settings '$(SETTINGS)'

SLOWEST := $(addprefix --ignore tests/,faults exact hub slurm)

# nbval reads what a cell prints when the cell is done, from a queue of a thousand messages: bars must not fill it
test: export TQDM_MININTERVAL := 5
test: data lint runs/.ipython ## everything that must hold: lint, unit tests, the notebooks under nbval
	@"$(PYTHON)" -m pytest -n 2 --dist loadscope --nbval-lax --nbval-kernel-name python3 --no-loadscope-reorder $(SLOWEST) tests/test_reproduce.py notebooks tests

test-faults: data ## the slow tests of what is killed, full, damaged or made twice (some ten minutes)
	@"$(PYTHON)" -m pytest tests/faults

bench: data ## the same job on NeuroX and on this package, beside the arithmetic alone; BENCH="--device cuda" on a GPU, BENCH=--record to keep it
	$(tell_surroundings)
	@"$(PYTHON)" bench/bench.py $(BENCH)

bench-large: data ## a job of the paper's size, after make data SCALE=mpnet: store, times and memory; BENCH="--device cuda" on a GPU
	$(tell_surroundings)
	@"$(PYTHON)" -m bench.large $(BENCH)

bench-precision: data ## what bfloat16 changes, beside float32 (on a CPU: ISA=native); after make data SCALE=mpnet, BENCH="--study mpnet --task rte"
	$(tell_surroundings)
	@"$(PYTHON)" -m bench.precision $(BENCH)

test-exact: data ## the same digits on other processors, emulated by QEMU: of this maker, and of another (forty minutes)
	@"$(PYTHON)" -m pytest -n 2 -v tests/exact

test-hub: data ## the paper's studies, fetched from a double of the model hub on this machine and run at a reduction (half an hour); MIRROR=folder has the corpora
	@MIRROR="$(abspath $(MIRROR))" "$(PYTHON)" -m pytest -v -s tests/hub

slurm = $(foreach p,munged slurmctld slurmd srun,$(if $(shell PATH="$$PATH:/usr/sbin" command -v $p),,$p))
test-slurm: data ## a small grid on a Slurm of one node, its jobs killed, out of time, requeued (some ten minutes; installs Debian's slurm-wlm)
	@$(if $(slurm),[ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null || { echo 'not here: $(strip $(slurm)). Install Slurm and MUNGE (Debian: apt install slurm-wlm munge)'; exit 1; })
	@$(if $(slurm),apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends slurm-wlm munge > /dev/null)
	@"$(PYTHON)" -m pytest -v -s tests/slurm

test-quick: data lint ## the unit tests alone (under two minutes)
	@"$(PYTHON)" -m pytest -n 2 -m 'not slow' $(SLOWEST) tests

lint: env
	@"$(PYTHON)" -m ruff check lib tests bench notebooks
	@"$(PYTHON)" -m ruff format --check --quiet lib tests bench

notebooks: data runs/.ipython ## execute the lessons in place, as they are committed (after a change of their text or code)
	@"$(PYTHON)" notebooks/execute.py

lab: data runs/.ipython ## open the notebooks in JupyterLab; its own options: LAB="--no-browser --port 9999"
	@"$(PYTHON)" -m jupyter lab notebooks $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB)

runs/.ipython:
	@mkdir -p $@

clean: ## delete caches and unfinished parts; results and models stay
	@rm -rf runs/corpora runs/.ipython .pytest_cache .ruff_cache .hypothesis
	@find $(wildcard lib tests notebooks runs) -name __pycache__ -o -name .ipynb_checkpoints -o -name '.*.part' -o -name '*.part.ipynb' -o -name '.checkpoints-*' -o -name '.grid-*' -o -name '.*.ipython' 2>/dev/null | tr '\n' '\0' | xargs -0 rm -rf

confirm = read -r -p 'delete $1? [y/N] ' answer; [ "$$answer" = y ] || { echo 'nothing deleted'; exit 1; }

clean-runs: ## delete runs/ with its fine-tuned models and tables (asks)
	@$(call confirm,runs/); rm -rf runs

clean-all: ## delete runs/, data/ and .venv (asks)
	@$(call confirm,runs/$(comma) data/ and $(VENV)/); rm -rf runs data $(VENV)
