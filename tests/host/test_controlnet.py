"""SD 2.1 ControlNets on a video model: one residual a frame.

The network is ComfyUI's own class at a narrow width, saved in the layout of the real files.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from scripts.comfyui import comfyui_tree
from tests import standin
from tests.fixtures import relative_rms
from tests.host import graphs
from tests.host.graphs import SAME
from tests.host.test_long import fifo_node
from vc2.networks.config import UNetConfig

SIDE, FRAMES = 8, 4
# 64 channels a head is what ComfyUI takes for any network that it does not know by its widths.
CONFIG = UNetConfig(
    model_channels=64,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_resolutions=(1, 2),
    num_head_channels=64,
    context_dim=64,
)
MAKE = """
import sys; sys.path.insert(0, sys.argv[1])
from comfy.cli_args import args; args.cpu = True
import torch
from comfy.cldm.cldm import ControlNet
from safetensors.torch import save_file
torch.manual_seed(0)
net = ControlNet(
    image_size=32, in_channels=4, model_channels=64, hint_channels=3, num_res_blocks=[1, 1], channel_mult=(1, 2),
    num_head_channels=64, use_spatial_transformer=True, transformer_depth=[1, 1], transformer_depth_middle=1,
    context_dim=64, use_linear_in_transformer=True,
)
for name, p in net.named_parameters():
    torch.nn.init.normal_(p, std=0.05)
save_file({name: t.contiguous() for name, t in net.state_dict().items()}, sys.argv[2])
"""


@pytest.fixture(scope="module")
def files(server):
    models = server.base / "models"
    standin.write(models / "checkpoints" / "standin_controlled.safetensors", config=CONFIG)
    (models / "controlnet").mkdir(parents=True, exist_ok=True)
    path = models / "controlnet" / "narrow.safetensors"
    subprocess.run([sys.executable, "-c", MAKE, str(comfyui_tree()), str(path)], check=True)
    state = load_file(path)
    silent = {
        name: torch.zeros_like(t) if name.startswith(("zero_convs", "middle_block_out")) else t
        for name, t in state.items()
    }
    save_file(silent, path.with_name("silent.safetensors"))
    (server.base / "input").mkdir(exist_ok=True)
    for i in range(2 * FRAMES + 2):  # a hint a frame, and two more
        Image.new("RGB", (8 * SIDE, 8 * SIDE), (25 * i, 255 - 25 * i, 90)).save(server.base / "input" / f"hint_{i}.png")


def controlled(client, net=None, hints=range(FRAMES), frames=FRAMES, clips=1, patch=None, sampler=None):
    graph = graphs.base("standin_controlled.safetensors", frames, 8 * SIDE, clips=clips, frames_per_clip=frames)
    graph["sampler"] = sampler or graphs.vc2_sampler(steps=2, eta=0.0)
    if net:
        batch = None
        for count, i in enumerate(hints):
            graph[f"hint{i}"] = graphs.node("LoadImage", image=f"hint_{i}.png")
            source = [f"hint{i}", 0]
            if batch:
                graph[f"batch{count}"] = graphs.node("ImageBatch", image1=batch, image2=source)
                source = [f"batch{count}", 0]
            batch = source
        graph["net"] = graphs.node("ControlNetLoader", control_net_name=net)
        graph["control"] = graphs.node(
            "ControlNetApplyAdvanced",
            positive=["condition", 0],
            negative=["condition", 1],
            control_net=["net", 0],
            image=batch,
            strength=1.0,
            start_percent=0.0,
            end_percent=1.0,
        )
        graph["sampler"]["inputs"] |= {"positive": ["control", 0], "negative": ["control", 1]}
    if patch:
        graph["patch"] = patch
        graph["sampler"]["inputs"]["model"] = ["patch", 0]
    return graphs.run_for_latent(client, graph)


def test_a_silent_controlnet_changes_nothing_and_a_loud_one_does(client, files):
    plain = controlled(client)
    assert relative_rms(controlled(client, "silent.safetensors"), plain) < SAME
    loud = controlled(client, "narrow.safetensors")
    assert torch.isfinite(loud).all()
    assert relative_rms(loud, plain) > 1e-3


def test_every_frame_has_its_own_hint(client, files):
    """The last frame's hint changed changes the clip, and most of all that frame."""
    one = controlled(client, "narrow.safetensors", [0, 1, 2, 3])
    other = controlled(client, "narrow.safetensors", [0, 1, 2, 7])
    change = (one - other).flatten(1).norm(dim=1)
    assert change.argmax() == FRAMES - 1
    assert change[-1] > 1e-3


def test_hints_follow_context_windows(client, files):
    """Windows that do not overlap are clips of their own, each with its own hints."""
    patch = graphs.node("VC2ContextWindows", model=["load", 0], mode="overlap", length=FRAMES, overlap=0)
    windows = controlled(client, "narrow.safetensors", range(2 * FRAMES), 2 * FRAMES, patch=patch)
    clips = controlled(client, "narrow.safetensors", range(2 * FRAMES), FRAMES, clips=2)
    assert relative_rms(windows, clips) < SAME


@pytest.mark.parametrize("hints", [3, 2 * FRAMES + 2])
@pytest.mark.parametrize("how", ["windows", pytest.param("fifo", marks=pytest.mark.slow), None])
def test_fewer_or_more_hints_than_frames(client, files, how, hints):
    """They start over, or the rest is left out: the hint of frame i is i modulo their number.

    So it is whatever part of the clip the model sees.
    """

    def run(hints):
        windows = graphs.node("VC2ContextWindows", model=["load", 0], mode="overlap", length=FRAMES, overlap=0)
        fifo = fifo_node(window=FRAMES, partitions=1)
        options = {"windows": {"patch": windows}, "fifo": {"sampler": fifo}, None: {}}[how]
        return controlled(client, "narrow.safetensors", hints, 2 * FRAMES, **options)

    assert relative_rms(run(range(hints)), run([i % hints for i in range(2 * FRAMES)])) < SAME
