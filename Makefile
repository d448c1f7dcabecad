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
STUDIES ?= $(sort $(patsubst study:$(SCALE):%,%,$(filter study:$(SCALE):%,$(PARAMS))))
TASKS ?=
PROPERTIES ?=
SEEDS ?= 1
DEVICE ?= auto
KEEP ?=
LAUNCH ?=
SIZE ?= full
SETTINGS ?= {}
BENCH ?=
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)

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
GIVEN := $(strip $(foreach v,SCALE STUDIES TASKS PROPERTIES SEEDS DEVICE KEEP LAUNCH SIZE SETTINGS BENCH JOBS,\
  $(if $(call from_shell,$v),$v="$($v)")))

include lib/surroundings.mk
UNUSED := $(sort $(filter-out $(KEPT) $(foreach s,$(SET),$(firstword $(subst =, ,$s))),\
  $(filter $(REMOVED) $(REMOVED_AT_START),$(.VARIABLES))))
unexport $(UNUSED)
tell_surroundings = $(if $(UNUSED),$(info not used here, although set: $(UNUSED)))$(if $(GIVEN),$(info taken from the shell: $(GIVEN)))
$(foreach s,$(SET),$(eval export $s))
export PYTHON LAUNCH
export TARGETS = $(NOTEBOOKS) $(FIGURES)
export PYTHONPATH := $(CURDIR)
export IPYTHONDIR := $(CURDIR)/runs/.ipython

# Words like study:SCALE:STUDY and task:STUDY:TASK; none as long as no environment is there to read them.
PARAMS := $(shell "$(PYTHON)" -I lib/grid.py 2> /dev/null)

comma := ,
empty :=
space := $(empty) $(empty)
quoted = [$(subst $(space),$(comma),$(foreach x,$1,"$x"))]
OVERRIDES = {"device": "$(DEVICE)"$(if $(PROPERTIES),$(comma) "properties": $(call quoted,$(PROPERTIES)))}

# The grid: studies × variants × steps ---------------------------------------------------------------------------
tasks_of = $(or $(TASKS),$(patsubst task:$1:%,%,$(filter task:$1:%,$(PARAMS))))
finetuned_of = $(foreach task,$(call tasks_of,$1),$(foreach seed,$(SEEDS),$(task)-s$(seed)))
variants_of = pretrained random $(call finetuned_of,$1)

FINETUNED := $(foreach S,$(STUDIES),$(foreach V,$(call finetuned_of,$S),runs/$S/$V))
EACH := $(foreach S,$(STUDIES),$(foreach V,$(call variants_of,$S),runs/$S/$V))
OTHERS := $(filter-out %/random,$(EACH))
NOTEBOOKS := $(FINETUNED:%=%/01_finetune.ipynb) $(EACH:%=%/02_extract.ipynb) \
             $(EACH:%=%/03_probe_layers.ipynb) $(EACH:%=%/04_rank_neurons.ipynb)
FIGURES := runs/figures/$(SCALE)/05_figures.ipynb
VARIANTS = {$(subst $(space)|,$(comma),$(strip $(foreach S,$(STUDIES),|"$S": $(call quoted,$(call variants_of,$S)))))}
variants_json = $(subst |,,$(VARIANTS))

.PHONY: help doctor data plan reproduce grid keys verify record report pretrain test test-quick test-faults bench lint notebooks lab clean clean-runs clean-all env

help: ## this list
	@echo 'make TARGET [SELECTOR=value ...]'
	@echo
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' Makefile | expand -t 16
	@echo
	@echo 'Selectors (in brackets: now)'
	@printf '  %-12s%s\n' SCALE 'which studies and figures: the `scale` of params/*.yaml [$(SCALE)]' \
	  STUDIES 'parameter files by name [$(STUDIES)]' \
	  TASKS 'tasks to fine-tune on; default: those of each study [$(or $(TASKS),$(sort $(foreach S,$(STUDIES),$(call tasks_of,$S))))]' \
	  PROPERTIES 'word-level properties to probe; default: those of each study [$(PROPERTIES)]' \
	  SEEDS 'fine-tuning seeds, e.g. SEEDS="1 2 3" [$(SEEDS)]' \
	  DEVICE 'auto, cpu, cuda, cuda:1, mps [$(DEVICE)]' \
	  KEEP 'KEEP=1 keeps the activation stores after probing [$(KEEP)]' \
	  LAUNCH 'put before every run, e.g. LAUNCH="srun --gpus=1 --time=4:00:00" [$(LAUNCH)]' \
	  JOBS 'runs at a time [$(JOBS)]' \
	  SIZE 'of make pretrain: full, lesson [$(SIZE)]' \
	  SETTINGS 'of make pretrain, laid over lib/pretrain.py [$(SETTINGS)]'

# By content: the dates of files depend on how they came here, and on clocks.
BUILT := $(shell [ -x $(VENV)/bin/python ] && [ "$$(cat requirements.lock pyproject.toml)" = "$$(cat $(VENV)/installed)" ] \
  2> /dev/null && echo yes)
.PHONY: $(VENV)/installed

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

data: env ## fetch and verify the data of the studies (16 MB; the encoders are in models/)
	@"$(PYTHON)" -c 'import sys; sys.tracebacklimit = 0; from lib import sources; [print("OK", n, sources.fetch(n)) for n, s in sources.SOURCES.items() if not s.optional]'

dry = $(findstring n,$(firstword -$(MAKEFLAGS)))
again = $(MAKE) --no-print-directory $@
prepare = "$(PYTHON)" -c 'import sys, json; sys.tracebacklimit = 0; from lib import results; \
  results.prepare(*map(json.loads, sys.argv[1:3]), sys.argv[3], given=bool(sys.argv[4]), fetch=bool(sys.argv[5]))' \
  '$(variants_json)' '$(OVERRIDES)' '$(SCALE)' '$(TASKS)'

ifeq ($(PARAMS),)
# Make begins again once there is a Python that reads params/.
keys plan reproduce verify record report: env
	@$(call of_the_lock,$(PYTHON))
	@"$(PYTHON)" -I lib/grid.py > /dev/null
	$(if $(dry),,+)@$(again)
else

# Under `make -n` too: the keys say what has to be done. What has to be run is also fetched.
keys: env
	$(tell_surroundings)
	@$(if $(filter $(VENV)/%,$(PYTHON)),,$(call of_the_lock,$(PYTHON)))
	@$(if $(filter file,$(origin STUDIES)),"$(PYTHON)" -I lib/grid.py '$(SCALE)')
	+@$(prepare) '$(if $(filter reproduce report,$(MAKECMDGOALS)),$(if $(dry),,fetch))'

plan: keys ## show what `make reproduce` would run now
	@$(MAKE) --no-print-directory -n grid | sed -nE 's/^bash lib.notebook.sh runs.([^ ]+)\.ipynb.*/  \1/p' \
	  | { grep . || echo 'nothing to do: every result is there' ; }

reproduce: keys ## the whole study: fine-tune, extract, probe, rank, draw; resumes where it stopped
	@echo "$(words $(NOTEBOOKS) $(FIGURES)) notebook runs, $(JOBS) at a time; logs are in runs/<study>/<variant>/"
	@+$(MAKE) --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j$(JOBS)) grid
	@"$(PYTHON)" -c 'import sys, json; sys.tracebacklimit = 0; from lib import report; \
	  report.print_summary(*map(json.loads, sys.argv[1:3]), sys.argv[3])' '$(variants_json)' '$(OVERRIDES)' '$(SCALE)'

verify: keys ## compare the results of make reproduce with what is recorded in expected/; fails on a miss
	@$(judge) check

record: keys ## make the results the reference: expected/ and figures/ (three seeds of every task)
	@$(judge) record

judge = "$(PYTHON)" -c 'import sys, json; sys.tracebacklimit = 0; from lib import verify; \
  sys.exit(getattr(verify, sys.argv[4])(*map(json.loads, sys.argv[1:3]), sys.argv[3]) is False)' \
  '$(variants_json)' '$(OVERRIDES)' '$(SCALE)'

report: reproduce ## the figures notebook as one self-contained page
	@"$(PYTHON)" -c 'import sys; from lib import report; report.write(*sys.argv[1:])' $(FIGURES) $(FIGURES:%.ipynb=%.html)
	@echo $(FIGURES:%.ipynb=%.html)
endif

grid: $(FINETUNED:%=%/01_finetune.ipynb) $(FIGURES) $(if $(KEEP),,$(EACH:%=%/probed))

part = $(word $1,$(subst /, ,$@))

$(NOTEBOOKS):
	@bash lib/notebook.sh $@ '{"study": "$(call part,2)", "variant": "$(call part,3)", "size": "full", "overrides": $(OVERRIDES)}'

$(NOTEBOOKS:%.ipynb=%.key) $(FIGURES:%.ipynb=%.key): ;
$(foreach n,$(NOTEBOOKS) $(FIGURES),$(eval $n: $(n:%.ipynb=%.key)))
$(foreach r,$(FINETUNED),$(eval $r/02_extract.ipynb: $r/01_finetune.ipynb))
$(foreach r,$(EACH),$(eval $r/03_probe_layers.ipynb $r/04_rank_neurons.ipynb: $r/02_extract.ipynb))
$(foreach r,$(OTHERS),$(eval $r/03_probe_layers.ipynb: $(dir $r)random/03_probe_layers.ipynb))

$(FIGURES): $(EACH:%=%/03_probe_layers.ipynb) $(EACH:%=%/04_rank_neurons.ipynb)
	@bash lib/notebook.sh $@ '{"variants": $(variants_json), "scale": "$(SCALE)", "size": "full", "overrides": $(OVERRIDES)}'

$(EACH:%=%/probed): %/probed: %/03_probe_layers.ipynb %/04_rank_neurons.ipynb
	@rm -rf $*/activations; touch $@

pretrain: env ## make the encoders of models/ from nothing, in runs/pretrain (some four core-hours; resumes)
	$(tell_surroundings)
	@"$(PYTHON)" -c 'import sys, json; sys.tracebacklimit = 0; from lib import minis; \
	  print(minis.compare(minis.make(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3])))' '$(SIZE)' '$(SETTINGS)' '$(DEVICE)'

# nbval reads what a cell prints when the cell is done, from a queue of a thousand messages: bars must not fill it
test: export TQDM_MININTERVAL := 5
test: data lint runs/.ipython ## everything that must hold: lint, unit tests, the notebooks under nbval
	@"$(PYTHON)" -m pytest -n 2 --dist loadscope --nbval-lax --nbval-kernel-name python3 --no-loadscope-reorder --ignore tests/faults tests/test_reproduce.py notebooks tests

test-faults: data ## the slow tests of what is killed, full, damaged or made twice (some ten minutes)
	@"$(PYTHON)" -m pytest tests/faults

bench: data ## the same job on NeuroX and on this package, beside the arithmetic alone; BENCH="--device cuda" on a GPU, BENCH=--record to keep it
	$(tell_surroundings)
	@"$(PYTHON)" tests/bench/bench.py $(BENCH)

test-quick: data lint ## the unit tests alone (under two minutes)
	@"$(PYTHON)" -m pytest -n 2 -m 'not slow' --ignore tests/faults tests

lint: env
	@"$(PYTHON)" -m ruff check lib tests
	@"$(PYTHON)" -m ruff format --check --quiet lib tests

notebooks: data runs/.ipython ## execute the lessons in place, as they are committed (after a change of their text or code)
	@"$(PYTHON)" tests/execute.py

lab: data runs/.ipython ## open the notebooks in JupyterLab
	@"$(PYTHON)" -m jupyter lab notebooks

runs/.ipython:
	@mkdir -p $@

clean: ## delete caches and unfinished parts; results and models stay
	@rm -rf runs/corpora runs/.ipython .pytest_cache .ruff_cache .hypothesis
	@find $(wildcard lib tests notebooks runs) -name __pycache__ -o -name .ipynb_checkpoints -o -name '.*.part' -o -name '*.part.ipynb' -o -name '.*.ipython' 2>/dev/null | tr '\n' '\0' | xargs -0 rm -rf

confirm = read -r -p 'delete $1? [y/N] ' answer; [ "$$answer" = y ] || { echo 'nothing deleted'; exit 1; }

clean-runs: ## delete runs/ with its fine-tuned models and tables (asks)
	@$(call confirm,runs/); rm -rf runs

clean-all: ## delete runs/, data/ and .venv (asks)
	@$(call confirm,runs/$(comma) data/ and $(VENV)/); rm -rf runs data $(VENV)
