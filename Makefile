# Two commands matter: `make course` and `make test`. The rest are their parts.
#   make course              environment, notebooks, book, a graded sample class
#   make course TORCH=cpu    the same with the small CPU build of torch (Linux; macOS has no other)
#   make course TORCH=cu126  the same with torch for CUDA 12.6
# Run twice, nothing is done twice.

TORCH  ?= default
VENV   ?= .venv
JOBS   ?= 2
PORT   ?= 8000
SAMPLE ?= build/sample_course
WORK   ?= work
SOLUTIONS ?= 1
ifndef PYTHON
# The first that starts and is new enough; a pyenv shim without its Python does not start.
PYTHON := $(firstword $(foreach p,python3.12 python3.11 python3.13 python3,$(shell $(p) -c "print('$(p)')" 2>/dev/null)))
endif

# The macOS make (3.81) does not search an exported PATH: programs are named in full.
RUN := $(abspath $(VENV))/bin/
export PATH := $(RUN):$(PATH)
export COURSE_SOLUTIONS := $(SOLUTIONS)
SITE := build/book/$(if $(filter 0,$(SOLUTIONS)),no-solutions/)html
# Notebooks and pages print nothing that is not theirs.
export TF_CPP_MIN_LOG_LEVEL := 3
export PYTHONWARNINGS :=

.PHONY: course env book notebooks sample serve lab test test-slow test-all check format bench clean help

help:                   ## what each target does
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

course: book sample     ## environment, notebooks, book and a graded sample class
	@echo
	@echo "The book:    $(CURDIR)/$(SITE)/index.html   (or: make serve)"
	@echo "The class:   $(CURDIR)/$(SAMPLE)   (feedback/ holds a page for each submission)"
	@echo "Exercises:   make lab"

env:                    ## the environment alone, in .venv
	@if [ -z "$(PYTHON)" ]; then echo "make env: no Python found; install Python 3.11, 3.12 or 3.13 (with venv)" >&2; exit 1; fi
	@$(PYTHON) tools/make_env.py --venv $(VENV) --torch $(TORCH)

notebooks: env          ## instructor's and learner's notebooks and the tables made from course.yml
	@$(RUN)coursekit notebooks build
	@$(RUN)coursekit book map

book: notebooks         ## the book, every cell executed (SOLUTIONS=0 leaves solutions out)
	@$(RUN)coursekit book build --workers $(JOBS)

sample: notebooks       ## the sample class, graded, into build/sample_course
	@$(RUN)coursekit course sample $(SAMPLE) --workers $(JOBS)

serve: book             ## the book on http://localhost:8000
	@echo "http://localhost:$(PORT)   (stop with Ctrl-C)"
	@$(RUN)python -m http.server $(PORT) --bind 127.0.0.1 --directory $(SITE)

lab: env                ## JupyterLab on your own copies of the exercises, in work/
	@$(RUN)coursekit notebooks copy $(WORK)
	@cd $(WORK) && $(RUN)jupyter lab

test: env               ## the tests that run on a laptop
	@$(RUN)pytest -n $(JOBS) --dist worksteal --durations=15 -m "not slow and not gpu"

test-slow: env          ## the tests marked slow
	@$(RUN)pytest -n $(JOBS) --dist worksteal --durations=15 -m "slow and not gpu"

test-all: test test-slow ## both

check: env              ## lint, import rules, layout map, leak test, generated files unchanged
	@$(RUN)ruff check .
	@$(RUN)ruff format --check .
	@$(RUN)coursekit notebooks build --check
	@$(RUN)coursekit notebooks check
	@$(RUN)coursekit book map --check
	@$(RUN)pytest tests/house

format: env             ## let ruff mend what it can
	@$(RUN)ruff check --fix .
	@$(RUN)ruff format .

bench: env              ## each benchmark prints a table and writes build/benchmarks/*.json
	@for script in benchmarks/*.py; do echo "== $$script"; $(RUN)python $$script || exit 1; done

clean:                  ## what was built; the environment and work/ stay
	rm -rf build book/_build solutions/*/ .pytest_cache .ruff_cache .hypothesis
