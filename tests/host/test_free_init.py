"""VC2FreeInit through the real server: what it samples again, with whatever sampler, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from scripts.client import PromptError
from tests import standin
from tests.fixtures import relative_rms
from tests.host import graphs
from tests.host.graphs import SAME, base, ksampler, node, run_for_latent, vc2_sampler
from vc2.pipeline import Guided, TextToVideo
from vc2.sampling import ddim, freeinit

STEPS = 4


@pytest.fixture(scope="module")
def narrow(server):
    return standin.write(server.base / "models" / "checkpoints" / "free_init.safetensors")


def free_init(model=("load", 0), **changes):
    inputs = {"iterations": 3, "spatial_cutoff": 0.25, "temporal_cutoff": 0.25} | changes
    return node("VC2FreeInit", model=[*model], **inputs)


def sampled(client, narrow, patch=None, sampler=None, frames=4, more=None, **clips):
    graph = base(narrow.name, frames, 64, **clips) | {"sampler": sampler or vc2_sampler(steps=STEPS, eta=0.0)}
    if patch:
        graph["again"] = patch
        graph["sampler"]["inputs"]["model"] = ["again", 0]
    return run_for_latent(client, graph | (more or {}))


@pytest.mark.parametrize("sampler", [vc2_sampler(steps=3), ksampler(steps=3)], ids=["ours", "stock"])
def test_one_iteration_is_none(client, narrow, sampler):
    assert torch.equal(
        sampled(client, narrow, free_init(iterations=1), {**sampler, "inputs": {**sampler["inputs"]}}),
        sampled(client, narrow, None, {**sampler, "inputs": {**sampler["inputs"]}}),
    )


def test_it_reproduces_ours(client, narrow):
    """Two clips in a batch: each remembers itself, over its own frames."""
    ours = TextToVideo(narrow)
    cond, uncond = (ours.text([text] * 2) for text in (graphs.PROMPT, graphs.NEGATIVE))
    guided = Guided(ours.unet, cond, uncond, torch.tensor([28.0, 28.0]), 12.0)
    noise = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    x_T = noise.reshape(2, 4, 4, 8, 8).transpose(1, 2)
    last = torch.tensor([ddim.ddim_timesteps(STEPS)[-1]])

    @torch.no_grad()
    def sample(x):
        return ddim.sample(guided, x, ours.schedule, STEPS, 0.0)

    expected = freeinit.sample(
        sample,
        x_T,
        lambda x_0, eps: ours.schedule.add_noise(x_0, eps, last),
        3,
        0.3,
        0.5,
        torch.Generator().manual_seed(9),
    )
    found = sampled(client, narrow, free_init(spatial_cutoff=0.3, temporal_cutoff=0.5), clips=2, frames_per_clip=4)
    assert relative_rms(found, expected.transpose(1, 2).reshape(8, 4, 8, 8)) < SAME
    once = sampled(client, narrow, clips=2, frames_per_clip=4)
    assert relative_rms(found, once) > 0.01


@pytest.mark.parametrize("name", ["euler", "dpmpp_2m_sde"])
def test_it_runs_any_sampler_again(client, narrow, name):
    def stock():
        return ksampler(sampler_name=name, steps=4, cfg=4.0)

    found = sampled(client, narrow, free_init(), stock())
    assert torch.isfinite(found).all()
    assert relative_rms(found, sampled(client, narrow, None, stock())) > 0.01
    assert torch.equal(found, sampled(client, narrow, free_init(), stock() | {"_meta": {"title": "once more"}}))


def test_with_windows_and_conditions_over_areas(client, narrow):
    """What a run prepares of the conditions is prepared anew in each: a second prompt for a part of the picture."""
    windows = node("VC2ContextWindows", model=["load", 0], mode="overlap", length=4, overlap=2)
    more = {
        "area": node(
            "ConditioningSetAreaPercentage",
            conditioning=["condition", 0],
            width=0.5,
            height=1.0,
            x=0.0,
            y=0.0,
            strength=1.0,
        ),
        "both": node("ConditioningCombine", conditioning_1=["condition", 0], conditioning_2=["area", 0]),
        "windows": windows,
    }

    def sampler():
        return vc2_sampler(steps=STEPS, eta=0.0, guidance=4.0, positive=["both", 0])

    found = sampled(client, narrow, free_init(("windows", 0), iterations=2), sampler(), frames=6, more=more)
    once = sampled(client, narrow, free_init(("windows", 0), iterations=1), sampler(), frames=6, more=more)
    assert relative_rms(found, once) > 0.01
    assert float(found.std()) == pytest.approx(float(once.std()), rel=0.2)


def test_free_noise_is_refused(client, narrow):
    windows = node("VC2ContextWindows", model=["load", 0], mode="FreeNoise", length=4, overlap=2)
    with pytest.raises(PromptError, match="FreeInit and FreeNoise each choose the noise"):
        sampled(client, narrow, free_init(("windows", 0)), frames=8, more={"windows": windows})
    after = node("VC2ContextWindows", model=["first", 0], mode="FreeNoise", length=4, overlap=2)
    with pytest.raises(PromptError, match="FreeInit and FreeNoise each choose the noise"):
        sampled(client, narrow, after, frames=8, more={"first": free_init()})


def test_frames_to_change_are_refused(client, narrow):
    sampler = vc2_sampler(steps=STEPS, denoise=0.5, latent=["source", 0])
    with pytest.raises(PromptError, match="FreeInit makes clips from noise"):
        sampled(client, narrow, free_init(), sampler, more={"source": vc2_sampler(steps=1)})


def test_frames_that_are_not_whole_clips_are_refused(client, narrow):
    with pytest.raises(PromptError, match="holds 4 frames, which are not whole clips of 3"):
        sampled(client, narrow, free_init(), frames_per_clip=3)
