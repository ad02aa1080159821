"""What does not show in a clip: the memory that is reserved, how conditions are batched, what a run leaves behind. In a
process with ComfyUI's modules.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from scripts.comfyui import ROOT, comfyui_tree
from tests import standin

CODE = """
import importlib.util, json, sys
tree, root, path = sys.argv[1:]
sys.path.insert(0, tree)
from comfy.cli_args import args; args.cpu = True
spec = importlib.util.spec_from_file_location("pack", root + "/__init__.py", submodule_search_locations=[root])
sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["pack"])
import comfy.context_windows as stock, comfy.controlnet, comfy.sampler_helpers, torch
from pack.nodes import host
from pack.nodes.long import VC2ContextWindows, VC2FIFOSampler
from pack.nodes.sample import VC2Sampler
from pack.vc2 import checkpoint

reserved, found = [], {}
estimate = comfy.sampler_helpers.estimate_memory
comfy.sampler_helpers.estimate_memory = lambda model, shape, conds: reserved.append(shape[0]) or estimate(model, shape, conds)
model = host.load_model(checkpoint.load(path))

def cond(**values):
    return [[torch.zeros(1, 77, 64), values]]

def run(name, model, frames=12, clips=1, fifo=False, **values):
    latent = {"samples": torch.zeros(clips * frames, 4, 4, 4)}
    values |= {"frames_per_clip": frames}
    how = {"partitions": 2, "window": 4} if fifo else {"steps": 1, "denoise": 1.0}
    sampler = VC2FIFOSampler if fifo else VC2Sampler
    sampler.execute(model, cond(**values), cond(**values), latent, seed=0, guidance=2.0, eta=0.0, **how)
    found[name] = reserved.pop()

def windows(mode):
    return VC2ContextWindows.execute(model, mode, 4, 2).result[0]

run("all frames", model, clips=2)
run("FreeNoise", windows("FreeNoise"), clips=2)
run("windows", windows("overlap"))
run("windows of two clips", windows("overlap"), clips=2)
run("windows longer than the clips", windows("overlap"), frames=3, clips=2)
patched = model.clone()
patched.model_options["context_handler"] = stock.IndexListContextHandler(
    stock.get_matching_context_schedule("standard_static"), stock.get_matching_fuse_method("pyramid"), context_length=4, context_overlap=2)
stock.create_prepare_sampling_wrapper(patched)
run("stock windows of two clips", patched, clips=2)
run("FIFO", model, fifo=True)
run("FIFO of less than a window", model, frames=3, fifo=True)
found["left on the network"] = list(model.model.diffusion_model._options)
found["left on the model"] = "context_handler" in model.model_options

class Control(comfy.controlnet.ControlBase):
    seen = []

    def get_control(self, x, *rest):
        self.seen.append(len(x))

one, other = Control().set_cond_hint(torch.zeros(12, 3, 32, 32)), Control().set_cond_hint(torch.zeros(1, 3, 32, 32))
run("controlled", windows("overlap"), control=one.set_previous_controlnet(other))
found["controlled batches"] = sorted(set(Control.seen))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict:
    path = standin.write(tmp_path_factory.mktemp("inside") / "standin.safetensors")
    result = subprocess.run(
        [sys.executable, "-c", CODE, str(comfyui_tree()), str(ROOT), str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("how", "frames"),
    [
        ("all frames", 24),
        ("FreeNoise", 24),
        ("windows", 4),
        ("windows of two clips", 8),
        ("windows longer than the clips", 6),
        ("stock windows of two clips", 8),
        ("FIFO", 4),
        ("FIFO of less than a window", 3),
    ],
)
def test_memory_is_reserved_for_what_the_model_sees(found, how, frames):
    assert found[how] == frames


def test_a_window_of_both_conditions_is_one_batch(found):
    """The host batches two conditions where they have the very same ControlNet."""
    assert found["controlled batches"] == [8]


def test_a_run_leaves_nothing_behind(found):
    assert found["left on the network"] == []
    assert not found["left on the model"]
