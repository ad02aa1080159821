"""Sampling through a real ComfyUI against `vc2.sampling.ddim` with the same weights and the same noise."""

from __future__ import annotations

import pytest
import torch

from tests import standin
from tests.fixtures import relative_rms
from tests.host import graphs
from tests.host.graphs import SAME
from vc2.pipeline import Guided, TextToVideo
from vc2.sampling import ddim
from vc2.sampling.schedule import NoiseSchedule

FRAMES, SIDE = 4, 4


@pytest.fixture(scope="module")
def checkpoint(server):
    path = standin.write(server.base / "models" / "checkpoints" / "standin.safetensors")
    return path


@pytest.fixture(scope="module")
def ours(checkpoint):
    return TextToVideo(checkpoint)


def expected(ours, steps, eta, guidance=12.0, seed=7, schedule=None, fps=28, clips=1):
    """What `vc2.sampling.ddim` gives with the noise that the host draws from `seed`; `[clips * T, 4, h, w]`."""

    def clip(frames):
        return frames.unflatten(0, (clips, FRAMES)).transpose(1, 2)

    x_T = clip(torch.randn(clips * FRAMES, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)))
    steps_generator = torch.Generator().manual_seed(seed + 1)

    def step_noise(_):
        return clip(torch.randn(clips * FRAMES, 4, SIDE, SIDE, generator=steps_generator))

    cond, uncond = (ours.text([text] * clips) for text in (graphs.PROMPT, graphs.NEGATIVE))
    denoise = Guided(ours.unet, cond, uncond, torch.full((clips,), float(fps)), guidance)
    with torch.no_grad():
        out = ddim.sample(denoise, x_T, schedule or ours.schedule, steps, eta, step_noise)
    return out.transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize(("steps", "eta"), [(10, 0.0), (10, 1.0), (50, 1.0)])
@pytest.mark.parametrize("kind", ["VC2Sampler", "SamplerCustomAdvanced"])
def test_sampler_reproduces_ddim(client, checkpoint, ours, kind, steps, eta):
    graph = graphs.base(checkpoint.name, FRAMES, 8 * SIDE)
    graph |= (
        {"sampler": graphs.vc2_sampler(steps=steps, eta=eta)}
        if kind == "VC2Sampler"
        else graphs.custom_sampler(steps=steps, eta=eta)
    )
    found = graphs.run_for_latent(client, graph)
    assert relative_rms(found, expected(ours, steps, eta)) < SAME


def test_leaving_out_the_rescale_would_be_caught(client, checkpoint, ours):
    graph = graphs.base(checkpoint.name, FRAMES, 8 * SIDE) | {"sampler": graphs.vc2_sampler(eta=0.0)}
    without = expected(ours, 10, 0.0, schedule=NoiseSchedule(None))
    assert relative_rms(graphs.run_for_latent(client, graph), without) > 0.05


@pytest.mark.parametrize("sampler", ["euler", "ddim"])
def test_stock_samplers_agree_to_discretisation(client, checkpoint, ours, sampler):
    """Two samplers of one ODE, on the same sigmas: at eta 0 Euler's step in x~ is DDIM's.

    What is left is t = 0's noise, which the official result keeps.
    """
    graph = graphs.base(checkpoint.name, FRAMES, 8 * SIDE)
    graph |= graphs.custom_sampler(steps=50, sampler=graphs.node("KSamplerSelect", sampler_name=sampler))
    assert relative_rms(graphs.run_for_latent(client, graph), expected(ours, 50, 0.0)) < 0.01


def test_two_clips_in_a_batch_stay_two(client, checkpoint, ours):
    graph = graphs.base(checkpoint.name, FRAMES, 8 * SIDE, clips=2, frames_per_clip=FRAMES) | {
        "sampler": graphs.vc2_sampler(eta=0.0)
    }
    assert relative_rms(graphs.run_for_latent(client, graph), expected(ours, 10, 0.0, clips=2)) < SAME


def test_fps_is_a_condition(client, checkpoint, ours):
    graph = graphs.base(checkpoint.name, FRAMES, 8 * SIDE, fps=8) | {"sampler": graphs.vc2_sampler(eta=0.0)}
    found = graphs.run_for_latent(client, graph)
    assert relative_rms(found, expected(ours, 10, 0.0, fps=8)) < SAME
    assert relative_rms(found, expected(ours, 10, 0.0, fps=28)) > 1e-3
