# `make` alone lists what there is. COMFYUI_PATH=... uses your own ComfyUI instead of the pinned one, COMFYUI=latest (or
# a release, 0.33.0) one that is cloned; FRONT_END=latest (or a release) another front end than the ComfyUI's own.
PYTHON ?= python3
PROMPT ?= a red circle moving right
SEEDS ?= 8
ARGS ?=
export PROMPT

VENV := .venv
RUN := $(VENV)/bin/python
# Touched after a successful install, so that pip runs again only when what it installs has changed.
INSTALLED := $(VENV)/.installed
PYTEST := $(RUN) -m pytest -n auto --dist loadfile
# The interpreter `$$run` of an environment with the requirements of the ComfyUI that is asked for.
ITS_OWN = tree=$$($(PYTHON) -m scripts.fetch tree) && export COMFYUI_PATH="$$tree" \
	&& run=$$($(PYTHON) -m scripts.fetch environment)
DEMO = $(if $(COMFYUI),$(ITS_OWN),run=$(RUN)) && "$$run" -m scripts.demo

.PHONY: help demo ui test test-slow test-host test-kernels lint verify workflows miniature paper rate clean
.PHONY: bench bench-gpu bench-changes bench-against bench-few-steps bench-all bench-tiny bench-long bench-full-size bench-loading bench-host bench-scale
.PHONY: bench-training bench-training-gpu
.PHONY: bench-training-compile bench-training-saving bench-mutants bench-decoding

help:  # this list; headings are the lines with four #
	@awk -F ':.*## ' '/^#### / { print "\n" substr($$0, 6) } /^[a-z-]+:.*## / { printf "make %-22s %s\n", $$1, $$2 }' \
		$(MAKEFILE_LIST)

#### Try it
demo: $(if $(COMFYUI),,$(INSTALLED))  ## a prompt in, an mp4 in output/ out: make demo PROMPT="a blue square moving left"
	@$(DEMO) --prompt "$$PROMPT" $(ARGS)

ui: $(if $(COMFYUI),,$(INSTALLED))  ## ComfyUI with this pack in your browser, until Ctrl-C
	@$(DEMO) --ui $(ARGS)

#### Work on it
test: $(INSTALLED)  ## the tests; narrow it down with ARGS="tests/host -k progress"
	$(PYTEST) $(ARGS)

test-slow: $(INSTALLED)  ## the tests that `make test` leaves out because they take long
	$(PYTEST) -m slow $(ARGS)

test-host:  ## does it work on your ComfyUI? make test-host COMFYUI_PATH=..., in an environment of its own
	@[ -n "$(COMFYUI_PATH)$(COMFYUI)" ] || { echo "make test-host COMFYUI_PATH=/path/to/ComfyUI, or COMFYUI=latest"; exit 1; }
	@$(ITS_OWN) && "$$run" -m pytest -n auto --dist loadfile -m "slow or not slow" tests/host tests/browser $(ARGS)

# Left out: slow tests, and what reads and writes files, and how processes end, which no kernel has a part in.
NO_ARITHMETIC := $(addprefix --ignore=tests/, $(addprefix vc2/test_, encoding.py hostile.py odd_checkpoints.py output.py \
	video_io.py windows.py) $(addprefix training/test_, failures.py media.py scale.py))

test-kernels: $(INSTALLED)  ## the arithmetic tests once more, with the kernels of a plain old processor
	ATEN_CPU_CAPABILITY=default DNNL_MAX_CPU_ISA=SSE41 $(PYTEST) tests/vc2 tests/training $(NO_ARITHMETIC) $(ARGS)

lint: $(INSTALLED)  ## style, types, and which folder may import which
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports --no-logo

verify: $(INSTALLED)  ## do the numbers of docs/miniature follow from their rows?
	$(RUN) -m vc2.evaluation verify docs/miniature

workflows: $(INSTALLED)  ## rebuild workflows/*.json and run each for its thumbnail
	$(RUN) -m scripts.make_workflows $(ARGS)

clean:  ## what make can make again; your videos (output/) and your saved workflows (.host/base/) stay
	rm -rf $(VENV) .host/comfyui-* .host/environment-* .host/front-end-* build dist *.egg-info
	rm -rf .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis

#### Train the miniature
miniature: $(INSTALLED)  ## train the UNet of models/vc2-tiny.safetensors from nothing, and its four-step LoRA, in about four hours; resumes
	$(RUN) -m vc2.evaluation.miniature encoders
	$(RUN) -m vc2.training prepare training/recipes/tiny/base.yaml
	for part in base motion polish; do $(RUN) -m vc2.training run training/recipes/tiny/$$part.yaml $(ARGS) || exit; done
	$(RUN) -m scripts.bundle runs/tiny-polish/model.safetensors
	$(RUN) -m vc2.training run training/recipes/tiny/turbo.yaml $(ARGS)
	$(RUN) -m scripts.bundle runs/tiny-turbo/model.safetensors

paper: $(INSTALLED)  ## does the paper hold, in miniature? again, from nothing: SEEDS=8 takes about eleven hours on two cores; SEEDS=1 QUICK=1 is a sketch in ten minutes. Resumes
	$(RUN) -m vc2.evaluation.miniature run --seeds $(SEEDS) --workers 2 $(if $(QUICK),--quick,--repeat)
	$(RUN) -m vc2.evaluation.miniature report $(if $(QUICK),--quick,--repeat)

rate: $(INSTALLED)  ## which clip is better? vote, blind, on forty pairs of the paper in miniature
	$(RUN) -m vc2.evaluation rate -o docs/miniature/votes

#### Benches: they measure the numbers in docs/
bench: $(INSTALLED)  ## how fast: with VIDEOCRAFTER_PATH beside the official code; writes docs/performance.md
	$(RUN) -m bench.counted
	$(RUN) -m bench.performance $(ARGS)

bench-gpu: $(INSTALLED)  ## the goals for one GPU, in under eight minutes; writes docs/performance.md
	$(RUN) -m bench.gpu $(ARGS)

bench-changes: $(INSTALLED)  ## what each way of computing gives, one at a time; writes its section of docs/performance.md
	$(RUN) -m bench.changes $(ARGS)

bench-against: $(INSTALLED)  ## the demo's clip in turns with 0.2.0's code; writes its section of docs/performance.md
	test -d .cache/0.2.0 || git worktree add --detach .cache/0.2.0 c0b9ca1
	$(RUN) -m bench.against .cache/0.2.0 --version 0.2.0 $(ARGS)

bench-few-steps: $(INSTALLED)  ## what fewer passes cost: caches, fewer steps; writes its section of docs/performance.md
	$(RUN) -m bench.few_steps $(ARGS)

bench-all: bench bench-tiny bench-long bench-full-size bench-host  ## those that need neither a GPU nor other files than ours

bench-tiny: $(INSTALLED)  ## does the miniature show what it is asked for? writes docs/tiny.md
	$(RUN) -m bench.tiny $(ARGS)

bench-long: $(INSTALLED)  ## long clips: how smooth they are and what they cost; writes docs/long.md
	$(RUN) -m bench.long_video $(ARGS)

bench-full-size: $(INSTALLED)  ## the official size through a real ComfyUI: load time and memory; writes docs/full_size.md
	$(RUN) -m bench.full_size $(ARGS)

bench-loading: $(INSTALLED)  ## loading a full-size checkpoint, in turns with 0.2.0; writes its section of docs/performance.md
	test -d .cache/0.2.0 || git worktree add --detach .cache/0.2.0 c0b9ca1
	$(RUN) -m bench.loading --older .cache/0.2.0 $(ARGS)

bench-host: $(INSTALLED)  ## start-up, memory over a hundred prompts, torch.compile; writes docs/host.md
	$(RUN) -m bench.host $(ARGS)

bench-scale: $(INSTALLED)  ## data sets of 60,000 tars, simulated: index, start-up, memory; writes docs/scale.md
	$(RUN) -m bench.scale $(ARGS)

bench-training: $(INSTALLED)  ## the trainer's step against a plain loop over the official code (VIDEOCRAFTER_PATH); writes docs/training.md
	$(RUN) -m bench.training $(ARGS)

bench-training-compile: $(INSTALLED)  ## compute.compile on the miniature's recipes; writes its section of docs/training.md
	$(RUN) -m bench.training_compile $(ARGS)

bench-training-saving: $(INSTALLED)  ## how long a run stands still to save; writes its section of docs/training.md
	$(RUN) -m bench.training_saving $(ARGS)

bench-training-gpu: $(INSTALLED)  ## speed, MFU and memory of training at full size on one GPU; writes docs/training_gpu.md
	$(RUN) -m bench.training_gpu $(ARGS)

bench-mutants: $(INSTALLED)  ## fifty wrong lines in the trainer: do its tests notice? about an hour, resumable; writes docs/mutants.md
	$(RUN) -m bench.mutants $(ARGS)

bench-decoding: $(INSTALLED)  ## processor time to read clips and photographs; writes docs/decoding.md
	$(RUN) -m bench.decoding $(ARGS)

$(INSTALLED): $(wildcard requirements/*.txt) pyproject.toml | $(RUN)
	$(RUN) -m pip install --disable-pip-version-check -r requirements/host.txt -r requirements/dev.txt \
		-e '.[cli,training,evaluation]'
	touch $@

$(RUN):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "$(PYTHON) must be Python 3.10 or later; name another with PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make virtual environments; on Debian: apt install python3-venv"; exit 1; }
