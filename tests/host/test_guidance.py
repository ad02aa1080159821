"""Our guidance nodes through a real ComfyUI, against the formulas computed with our own UNet."""

from __future__ import annotations

import pytest
import torch

from tests import standin
from tests.fixtures import relative_rms
from tests.host import graphs
from tests.host.graphs import SAME
from vc2.pipeline import TextToVideo
from vc2.sampling import ddim

FRAMES, SIDE, GUIDANCE = 4, 4, 12.0


@pytest.fixture(scope="module")
def checkpoint(server):
    return standin.write(server.base / "models" / "checkpoints" / "standin_guidance.safetensors")


@pytest.fixture(scope="module")
def ours(checkpoint):
    return TextToVideo(checkpoint)


def sampled(client, checkpoint, kind=None, clips=1, **inputs):
    graph = graphs.base(checkpoint.name, FRAMES, 8 * SIDE, clips=clips, frames_per_clip=FRAMES) | {
        "sampler": graphs.vc2_sampler(eta=0.0, steps=5)
    }
    if kind:
        graph["patch"] = graphs.node(kind, model=["load", 0], **inputs)
        graph["sampler"]["inputs"]["model"] = ["patch", 0]
    return graphs.run_for_latent(client, graph)


def expected(ours, guide):
    """DDIM whose epsilon is `guide(predict, x, t)`, where predict(context, **options) runs the UNet."""
    cond, uncond = ours.text([graphs.PROMPT]), ours.text([graphs.NEGATIVE])

    def denoise(x, t):
        def predict(context, **options):
            return ours.unet(x, t, context, torch.tensor([28.0]), **options)

        return guide(predict, cond, uncond, x, t)

    x_T = torch.randn(FRAMES, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(7)).transpose(0, 1)[None]
    with torch.no_grad():
        return ddim.sample(denoise, x_T, ours.schedule, 5, 0.0)[0].transpose(0, 1)


def test_temporal_guidance(client, checkpoint, ours):
    def guide(predict, cond, uncond, x, t):
        c, u = predict(cond), predict(uncond)
        return u + GUIDANCE * (c - u) + 1.5 * (c - predict(cond, temporal="no attention"))

    assert relative_rms(sampled(client, checkpoint, "VC2TemporalGuidance", scale=1.5), expected(ours, guide)) < 1e-3


def test_guidance_rescale(client, checkpoint, ours):
    """In velocity, v = a eps - b s x0, over the whole clip."""

    def guide(predict, cond, uncond, x, t):
        c, u = predict(cond), predict(uncond)
        g = u + GUIDANCE * (c - u)
        abar = ours.schedule.alphas_cumprod[t]
        a, b = abar.sqrt(), (1 - abar).sqrt()

        def velocity(eps):
            return a * eps - b * (x - b * eps) / a

        factor = 0.7 * velocity(c).std() / velocity(g).std() + 0.3
        return a * (velocity(g) * factor) + b * x

    assert relative_rms(sampled(client, checkpoint, "VC2GuidanceRescale", multiplier=0.7), expected(ours, guide)) < 1e-3


@pytest.mark.parametrize(
    ("kind", "inputs"), [("VC2TemporalGuidance", {"scale": 0.0}), ("VC2GuidanceRescale", {"multiplier": 0.0})]
)
def test_zero_changes_nothing(client, checkpoint, kind, inputs):
    assert relative_rms(sampled(client, checkpoint, kind, **inputs), sampled(client, checkpoint)) < SAME


def test_rescale_has_one_factor_a_clip(client, checkpoint):
    both = sampled(client, checkpoint, "VC2GuidanceRescale", clips=2, multiplier=0.7)
    assert relative_rms(both[:FRAMES], sampled(client, checkpoint, "VC2GuidanceRescale", multiplier=0.7)) < SAME
