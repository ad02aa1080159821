# `make demo` is the five-minute look; everything else is for working on the pack. COMFYUI_PATH=... uses your own ComfyUI instead of the pinned one.
PYTHON ?= python3
PROMPT ?= a red circle moving right
ARGS ?=
export PROMPT

VENV := .venv
RUN := $(VENV)/bin/python
# Touched after a successful install, so that pip runs again only when what it installs has changed.
INSTALLED := $(VENV)/.installed

.PHONY: demo ui test lint workflows miniature bench bench-tiny bench-long bench-full-size bench-host bench-training bench-training-gpu clean

demo: $(INSTALLED)  ## a prompt in, an mp4 in output/ out: make demo PROMPT="a blue square moving left"
	$(RUN) -m scripts.demo --prompt "$$PROMPT" $(ARGS)

ui: $(INSTALLED)  ## ComfyUI with this pack in your browser, until Ctrl-C
	$(RUN) -m scripts.demo --ui $(ARGS)

test: $(INSTALLED)  ## every test; narrow it down with ARGS="tests/host -k progress"
	$(RUN) -m pytest -n auto --dist loadfile $(ARGS)

lint: $(INSTALLED)  ## what CI checks before the tests
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

workflows: $(INSTALLED)  ## rebuild workflows/*.json and run each for its thumbnail
	$(RUN) -m scripts.make_workflows $(ARGS)

miniature: $(INSTALLED)  ## train models/vc2-tiny.safetensors from nothing; hours on two cores, and the same command resumes it
	$(RUN) -m vc2.training run training/recipes/tiny/text.yaml
	$(RUN) -m vc2.training run training/recipes/tiny/autoencoder.yaml
	$(RUN) -m vc2.training prepare training/recipes/tiny/base.yaml
	$(RUN) -m vc2.training run training/recipes/tiny/base.yaml
	$(RUN) -m vc2.training run training/recipes/tiny/motion.yaml
	$(RUN) -m vc2.training run training/recipes/tiny/polish.yaml
	cp runs/tiny-polish/model.safetensors models/vc2-tiny.safetensors

bench: bench-tiny bench-long bench-full-size bench-host  ## everything in docs/ that is measured

bench-tiny: $(INSTALLED)  ## does the miniature show what it is asked for? writes docs/tiny.md
	$(RUN) -m bench.tiny $(ARGS)

bench-long: $(INSTALLED)  ## do long clips hang together, and what do they cost? writes docs/long.md
	$(RUN) -m bench.long_video $(ARGS)

bench-full-size: $(INSTALLED)  ## the official size through a real ComfyUI: load time and memory; writes docs/full_size.md
	$(RUN) -m bench.full_size $(ARGS)

bench-host: $(INSTALLED)  ## start-up, memory over a hundred prompts, torch.compile; writes docs/host.md
	$(RUN) -m bench.host $(ARGS)

bench-training: $(INSTALLED)  ## a step's time and memory against a plain loop over the official UNet (VIDEOCRAFTER_PATH=...); writes docs/training.md
	$(RUN) -m bench.training $(ARGS)

bench-training-gpu: $(INSTALLED)  ## throughput, MFU and memory of the recipes at full size, on one GPU; writes docs/training_gpu.md
	$(RUN) -m bench.training_gpu $(ARGS)

clean:  ## what make can make again; your videos (output/) and your saved workflows (.host/base/) stay
	rm -rf $(VENV) .host/comfyui-* build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

$(INSTALLED): requirements/host.txt requirements/dev.txt pyproject.toml | $(RUN)
	$(RUN) -m pip install --disable-pip-version-check -r requirements/host.txt -r requirements/dev.txt -e '.[cli,training]'
	touch $@

$(RUN):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$(PYTHON) must be Python 3.10 or later; name another with PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make virtual environments; on Debian: apt install python3-venv"; exit 1; }
