"""What changes from step to step, by stock nodes alone: they do it for our MODEL, so that no node of ours has to.

One run whose LoRA, guidance or motion fps changes in the middle equals two runs, one for each part of the steps.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from tests import standin
from tests.fixtures import relative_rms
from tests.host.graphs import SAME, base, custom_sampler, node, run_for_latent
from tests.host.test_stock_features import lora_files
from vc2.files import checkpoint

STEPS, CUT = 4, 2  # the timesteps 751, 501 | 251, 1
BETWEEN = 0.6  # of the way down, where sampling is between 501 and 251


@pytest.fixture(scope="module")
def narrow(server) -> str:
    return standin.write(server.base / "models" / "checkpoints" / "over_steps.safetensors").name


@pytest.fixture(scope="module")
def lora(server, narrow) -> str:
    files, _ = lora_files(checkpoint.load(server.base / "models" / "checkpoints" / narrow).unet)
    folder = server.base / "models" / "loras"
    folder.mkdir(exist_ok=True)
    save_file(files["kohya"], folder / "over_steps.safetensors")
    return "over_steps.safetensors"


def graph_of(narrow, **changes):
    return base(narrow) | custom_sampler(steps=STEPS, eta=0.0, guidance=4.0) | changes


def in_two_parts(graph, guiders):
    """The steps cut by SplitSigmas, a guider for each part; the second goes on from the first's leftover noise."""
    graph |= {"cut": node("SplitSigmas", sigmas=["schedule", 0], step=CUT), "no_noise": node("DisableNoise")} | guiders
    links = {"sampler": ["method", 0]}
    for name, part, guider, noise, latent in (
        ("half", 0, "first", "noise", "latent"),
        ("sampler", 1, "second", "no_noise", "half"),
    ):
        graph[name] = node(
            "SamplerCustomAdvanced",
            noise=[noise, 0],
            guider=[guider, 0],
            sigmas=["cut", part],
            latent_image=[latent, 0],
            **links,
        )
    return graph


def guider(**changes):
    links = {"model": ["load", 0], "positive": ["condition", 0], "negative": ["condition", 1], "cfg": 4.0}
    return node("CFGGuider", **(links | changes))


def test_parts_of_the_steps_are_the_whole(client, narrow):
    whole = run_for_latent(client, graph_of(narrow))
    parts = in_two_parts(graph_of(narrow), {"first": guider(), "second": guider()})
    assert relative_rms(run_for_latent(client, parts), whole) < SAME


def test_a_lora_over_the_steps(client, narrow, lora):
    """Keyframes of the stock hooks, strength 1 and then 0."""
    hooks = {
        "hook": node("CreateHookLoraModelOnly", lora_name=lora, strength_model=1.0),
        "on": node("CreateHookKeyframe", strength_mult=1.0, start_percent=0.0),
        "off": node("CreateHookKeyframe", strength_mult=0.0, start_percent=BETWEEN, prev_hook_kf=["on", 0]),
        "timed": node("SetHookKeyframes", hooks=["hook", 0], hook_kf=["off", 0]),
        "hooked": node(
            "PairConditioningSetProperties",
            positive_NEW=["condition", 0],
            negative_NEW=["condition", 1],
            strength=1.0,
            set_cond_area="default",
            hooks=["timed", 0],
        ),
    }
    hooked = graph_of(narrow) | hooks
    hooked["guider"]["inputs"] |= {"positive": ["hooked", 0], "negative": ["hooked", 1]}
    with_lora = {
        "lora": node("VC2LoadLoRA", model=["load", 0], lora_name=lora, strength=1.0),
        "first": guider(model=["lora", 0]),
        "second": guider(),
    }
    found = run_for_latent(client, hooked)
    assert relative_rms(found, run_for_latent(client, in_two_parts(graph_of(narrow), with_lora))) < SAME
    assert relative_rms(found, run_for_latent(client, graph_of(narrow))) > 1e-3


def test_guidance_and_fps_over_the_steps(client, narrow):
    """A guider for each part, and the stock timestep ranges, which take our conditions along."""
    other = node("VC2VideoConditioning", positive=["positive", 0], negative=["negative", 0], fps=8, frames_per_clip=0)
    two = in_two_parts(
        graph_of(narrow) | {"other": other},
        {"first": guider(), "second": guider(positive=["other", 0], negative=["other", 1])},
    )
    ranged = graph_of(narrow) | {"other": other}
    for side, output in (("positive", 0), ("negative", 1)):
        ranged |= {
            f"early_{side}": node(
                "ConditioningSetTimestepRange", conditioning=["condition", output], start=0, end=BETWEEN
            ),
            f"late_{side}": node("ConditioningSetTimestepRange", conditioning=["other", output], start=BETWEEN, end=1),
            f"both_{side}": node(
                "ConditioningCombine", conditioning_1=[f"early_{side}", 0], conditioning_2=[f"late_{side}", 0]
            ),
        }
        ranged["guider"]["inputs"][side] = [f"both_{side}", 0]
    found = run_for_latent(client, ranged)
    assert relative_rms(found, run_for_latent(client, two)) < SAME
    assert relative_rms(found, run_for_latent(client, graph_of(narrow))) > 1e-3

    stronger = in_two_parts(graph_of(narrow), {"first": guider(), "second": guider(cfg=9.0)})
    assert torch.isfinite(run_for_latent(client, stronger)).all()
    assert relative_rms(run_for_latent(client, stronger), run_for_latent(client, graph_of(narrow))) > 1e-3
