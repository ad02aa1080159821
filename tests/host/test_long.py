"""Long clips and travelling prompts through a real ComfyUI."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
import torch

from scripts.client import PromptError
from tests import standin
from tests.fixtures import relative_rms
from tests.host import graphs
from tests.host.graphs import SAME
from vc2.pipeline import Guided, TextToVideo
from vc2.sampling import ddim, fifo, windows

SIDE = 4


@pytest.fixture(scope="module")
def checkpoint(server):
    return standin.write(server.base / "models" / "checkpoints" / "standin_long.safetensors")


@pytest.fixture(scope="module")
def ours(checkpoint):
    return TextToVideo(checkpoint)


def windowed(mode, length=4, overlap=2):
    return graphs.node("VC2ContextWindows", model=["load", 0], mode=mode, length=length, overlap=overlap)


def sampled(client, checkpoint, frames, patch=None, sampler=None, **conditions):
    """The latent of `frames` frames, with node `patch` between model and sampler."""
    graph = graphs.base(checkpoint.name, frames, 8 * SIDE, **conditions) | {
        "sampler": sampler or graphs.vc2_sampler(eta=0.0, steps=4)
    }
    if patch:
        graph["patch"] = patch
        graph["sampler"]["inputs"]["model"] = ["patch", 0]
    return graphs.run_for_latent(client, graph)


@pytest.mark.parametrize("mode", ["FreeNoise", "overlap", "looped"])
def test_clips_of_one_window_stay_as_they_are(client, checkpoint, mode):
    plain = sampled(client, checkpoint, 4)
    assert relative_rms(sampled(client, checkpoint, 4, windowed(mode)), plain) < SAME


@pytest.mark.parametrize("mode", ["FreeNoise", "overlap", "looped"])
def test_two_windowed_clips_in_a_batch_stay_two(client, checkpoint, mode):
    """A clip after another one shares noise with none but itself: the first of two equals the same clip alone."""
    both = sampled(client, checkpoint, 7, windowed(mode), clips=2, frames_per_clip=7)
    alone = sampled(client, checkpoint, 7, windowed(mode))
    assert both.shape[0] == 14
    assert relative_rms(both[:7], alone) < SAME


def test_free_noise_is_the_models_windowed_pass(client, checkpoint, ours):
    """One Euler step from the highest noise, against our UNet with the same windows and the same rescheduled noise."""
    frames = 9
    noise = torch.randn(frames, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(7))
    noise = windows.reschedule_noise(noise, 4, 2, torch.Generator().manual_seed(0))
    found = sampled(client, checkpoint, frames, windowed("FreeNoise"), graphs.vc2_sampler(eta=0.0, steps=1))
    cond, uncond = ours.text([graphs.PROMPT]), ours.text([graphs.NEGATIVE])

    def eps(context):
        with torch.no_grad():
            return ours.unet(x, torch.tensor([1]), context, torch.tensor([28.0]), window=(4, 2))

    x = noise.transpose(0, 1)[None]  # one step visits t = 1 alone, and starts from the prior
    guided = eps(uncond) + 12 * (eps(cond) - eps(uncond))
    expected, _ = ddim.step(ours.schedule, x, guided, torch.tensor([1]), torch.tensor([0]), 0.0, None)
    assert relative_rms(found, expected[0].transpose(0, 1)) < SAME


def test_windows_are_what_the_model_sees(client, checkpoint):
    """With overlap 0 and windows that divide the clip, windows are clips of their own."""
    apart = sampled(client, checkpoint, 8, windowed("overlap", 4, 0))
    clips = sampled(client, checkpoint, 4, clips=2, frames_per_clip=4)
    assert relative_rms(apart, clips) < SAME


@pytest.mark.parametrize("mode", [None, "overlap", "looped", "FreeNoise"])
def test_frames_that_are_not_whole_clips_are_refused(client, checkpoint, mode):
    """With the conditions batched, 12 frames in clips of 8 would be three clips, half of them without the prompt."""
    with pytest.raises(PromptError, match="holds 12 frames, which are not whole clips of 8"):
        sampled(client, checkpoint, 12, windowed(mode) if mode else None, frames_per_clip=8)


def stock_windows(client, **changes):
    """The stock node, with its defaults for inputs that later versions of ComfyUI have added."""
    needed = client.object_info()["ContextWindowsManual"]["input"]["required"]
    defaults = {name: spec[1]["default"] for name, spec in needed.items() if len(spec) > 1 and "default" in spec[1]}
    mine = {
        "context_length": 4,
        "context_overlap": 2,
        "context_schedule": "standard_static",
        "fuse_method": "pyramid",
        "dim": 0,
    }
    return graphs.node("ContextWindowsManual", model=["load", 0], **(defaults | mine | changes))


def test_the_stock_windows_node_works(client, checkpoint):
    found = sampled(client, checkpoint, 7, stock_windows(client))
    assert relative_rms(found, sampled(client, checkpoint, 7, windowed("overlap"))) < SAME


def test_the_stock_windows_node_s_own_freenoise(client, checkpoint):
    """ComfyUI 0.8.0 has it: it shuffles the noise, and the windows stay ours."""
    if "freenoise" not in stock_windows(client)["inputs"]:
        pytest.skip("this ComfyUI's windows have no FreeNoise")
    plain, shuffled = (sampled(client, checkpoint, 7, stock_windows(client, freenoise=on)) for on in (False, True))
    assert torch.isfinite(shuffled).all()
    assert relative_rms(shuffled, plain) > 0.01


@pytest.mark.parametrize("sampler", ["heun", "dpm_2", "dpmpp_sde", "dpmpp_2m_sde", "uni_pc"])
def test_windows_work_with_samplers_that_step_between_sigmas(client, checkpoint, sampler):
    """Windows apart are clips of their own, also where the model is asked at sigmas that are not the schedule's."""
    stock = partial(graphs.ksampler, sampler_name=sampler, steps=4, cfg=4.0)
    apart = sampled(client, checkpoint, 6, windowed("overlap", 3, 0), stock())
    assert relative_rms(apart, sampled(client, checkpoint, 3, sampler=stock(), clips=2, frames_per_clip=3)) < SAME


# Of 6 frames: 4 frames each, 2 apart.
WINDOWS = {"overlap": [[0, 1, 2, 3], [2, 3, 4, 5]], "looped": [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 0, 1]]}


@pytest.fixture(params=WINDOWS)
def blended(request, ours):
    """A mode, and the epsilon `denoise(x, t)` that it stands for: a frame's is averaged over its windows, 1 2 2 1."""
    guided = Guided(ours.unet, ours.text([graphs.PROMPT]), ours.text([graphs.NEGATIVE]), torch.tensor([28.0]), 12.0)
    weight = torch.tensor([1.0, 2.0, 2.0, 1.0])[None, None, :, None, None]

    @torch.no_grad()
    def denoise(x, t):
        total, weights = torch.zeros_like(x), torch.zeros_like(x)
        for window in WINDOWS[request.param]:
            total[:, :, window] += weight * guided(x[:, :, window], t)
            weights[:, :, window] += weight
        return total / weights

    return request.param, denoise


def test_overlapping_windows_are_blended(client, checkpoint, ours, blended):
    mode, denoise = blended
    x_T = torch.randn(6, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(7)).transpose(0, 1)[None]
    expected = ddim.sample(denoise, x_T, ours.schedule, 4, 0.0)[0].transpose(0, 1)
    assert relative_rms(sampled(client, checkpoint, 6, windowed(mode)), expected) < SAME


def test_overlapping_windows_in_a_second_order_sampler(client, checkpoint, ours, blended):
    """Heun's method in x~ = x_t / c, whose derivative by sigma' is epsilon, written out on the schedule's timesteps."""
    mode, denoise = blended
    c, sigma = ours.schedule.alphas_cumprod.sqrt() * ours.schedule.scale, ours.schedule.sigmas()
    timesteps = ddim.ddim_timesteps(4)[::-1]
    x = torch.randn(6, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(7)).transpose(0, 1)[None]
    x = x / c[timesteps[0]]
    for t, t_prev in pairwise([*timesteps, 0]):
        eps = denoise(c[t] * x, torch.tensor([t]))
        euler = x + (sigma[t_prev] - sigma[t]) * eps
        x = x + (sigma[t_prev] - sigma[t]) * (eps + denoise(c[t_prev] * euler, torch.tensor([t_prev]))) / 2

    graph = graphs.base(checkpoint.name, 6, 8 * SIDE) | {"patch": windowed(mode)}
    graph |= graphs.custom_sampler(steps=4, sampler=graphs.node("KSamplerSelect", sampler_name="heun"))
    graph["guider"]["inputs"]["model"] = ["patch", 0]
    assert relative_rms(graphs.run_for_latent(client, graph), x[0].transpose(0, 1)) < SAME


def fifo_node(**changes):
    inputs = {"seed": 7, "guidance": 12.0, "partitions": 2, "window": 4, "eta": 1.0} | changes
    links = {"model": ["load", 0], "positive": ["condition", 0], "negative": ["condition", 1], "latent": ["latent", 0]}
    return graphs.node("VC2FIFOSampler", **(links | inputs))


def test_fifo_reproduces_ours(client, checkpoint, ours):
    frames = 7
    found = sampled(client, checkpoint, frames, sampler=fifo_node())
    cond, uncond = ours.text([graphs.PROMPT]), ours.text([graphs.NEGATIVE])
    denoise = Guided(ours.unet, cond, uncond, torch.tensor([28.0]), 12.0)
    x_T = torch.randn(frames, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(7)).transpose(0, 1)[None]
    expected = fifo.sample(
        lambda x, t, _: denoise(x, t), x_T, ours.schedule, 4, 2, 1.0, torch.Generator().manual_seed(8)
    )
    assert relative_rms(found, expected[0].transpose(0, 1)) < 1e-3


def test_fifo_refuses_an_odd_window(client, checkpoint):
    with pytest.raises(PromptError, match="window must be even"):
        sampled(client, checkpoint, 7, sampler=fifo_node(window=5))


@pytest.mark.parametrize("mode", ["FreeNoise", "overlap", "stock"])
def test_fifo_refuses_other_windows(client, checkpoint, mode):
    patch = stock_windows(client) if mode == "stock" else windowed(mode)
    with pytest.raises(PromptError, match="has windows of its own"):
        sampled(client, checkpoint, 7, patch, fifo_node())


@pytest.mark.parametrize("conditions", [{"clips": 2, "frames_per_clip": 7}, {"frames_per_clip": 4}])
def test_fifo_refuses_several_clips(client, checkpoint, conditions):
    with pytest.raises(PromptError, match="samples one clip"):
        sampled(client, checkpoint, 7, sampler=fifo_node(), **conditions)


def test_fifo_starts_from_noise_alone(client, checkpoint):
    """Neither from frames nor with a mask."""
    graph = graphs.base(checkpoint.name, 7, 8 * SIDE) | {"source": graphs.vc2_sampler(steps=1)}
    graph["mask"] = graphs.node("SolidMask", value=1.0, width=8 * SIDE, height=8 * SIDE)
    graph["masked"] = graphs.node("SetLatentNoiseMask", samples=["latent", 0], mask=["mask", 0])
    for latent in ("source", "masked"):
        with pytest.raises(PromptError, match="starts from noise alone"):
            graphs.run_for_latent(client, graph | {"sampler": fifo_node(latent=[latent, 0])})


@pytest.mark.slow
@pytest.mark.parametrize(
    "patch", [("VC2GuidanceRescale", {"multiplier": 0.7}), ("VC2TemporalGuidance", {"scale": 1.5})]
)
def test_fifo_with_guidance_nodes(client, checkpoint, patch):
    """They see a window of the clip at a time, and take effect."""
    kind, inputs = patch
    plain = sampled(client, checkpoint, 7, sampler=fifo_node(guidance=4.0))
    guided = sampled(client, checkpoint, 7, graphs.node(kind, model=["load", 0], **inputs), fifo_node(guidance=4.0))
    assert torch.isfinite(guided).all()
    assert relative_rms(guided, plain) > 1e-3


def travelling(client, checkpoint, prompts, frames=6, patch=None, sampler=None, between="blend", travel_frames=None):
    graph = graphs.base(checkpoint.name, frames, 8 * SIDE) | {
        "sampler": sampler or graphs.vc2_sampler(eta=0.0, steps=4)
    }
    graph["travel"] = graphs.node(
        "VC2PromptTravel", clip=["load", 1], prompts=prompts, frames=travel_frames or frames, between=between
    )
    graph["condition"]["inputs"]["positive"] = ["travel", 0]
    if patch:
        graph["patch"] = patch
        graph["sampler"]["inputs"]["model"] = ["patch", 0]
    return graphs.run_for_latent(client, graph)


@pytest.mark.parametrize("patch", [None, "overlap", "FreeNoise"])
def test_travel_from_a_prompt_to_itself_is_the_prompt(client, checkpoint, patch):
    same = f"0: {graphs.PROMPT}\n5: {graphs.PROMPT}"
    node = windowed(patch) if patch else None
    assert relative_rms(travelling(client, checkpoint, same, patch=node), sampled(client, checkpoint, 6, node)) < SAME


@pytest.mark.slow
def test_travel_under_fifo(client, checkpoint):
    same = f"0: {graphs.PROMPT}\n5: {graphs.PROMPT}"
    plain = sampled(client, checkpoint, 6, sampler=fifo_node())
    assert relative_rms(travelling(client, checkpoint, same, sampler=fifo_node()), plain) < SAME
    other = f"0: {graphs.PROMPT}\n5: a green cross moving up"
    assert relative_rms(travelling(client, checkpoint, other, sampler=fifo_node()), plain) > 1e-3


def test_each_frame_reads_its_own_prompt(client, checkpoint):
    """With windows apart from one another, frames before the second keyframe cannot know of it."""
    hold = travelling(
        client,
        checkpoint,
        f"0: {graphs.PROMPT}\n4: a green cross moving up",
        8,
        windowed("overlap", 4, 0),
        between="hold",
    )
    plain = sampled(client, checkpoint, 8, windowed("overlap", 4, 0))
    assert relative_rms(hold[:4], plain[:4]) < SAME
    assert relative_rms(hold[4:], plain[4:]) > 1e-3


def test_travel_of_another_length_is_refused(client, checkpoint):
    with pytest.raises(PromptError, match="travel over 5 frames but a clip has 6"):
        travelling(client, checkpoint, "0: a\n4: b", travel_frames=5)


def test_long_prompts_travel_too(client, checkpoint):
    """Prompts of one, two and three lots of 77 tokens in one clip: in windows apart, each is what it is alone."""
    prompts = [graphs.PROMPT, "very " * 100 + "long", "a green cross " * 60 + "moving up"]
    apart = windowed("overlap", 4, 0)
    lines = "\n".join(f"{4 * i}: {prompt}" for i, prompt in enumerate(prompts))
    travelled = travelling(client, checkpoint, lines, 12, apart, between="hold")
    for i, prompt in enumerate(prompts):
        own, others = slice(4 * i, 4 * i + 4), [frame for frame in range(12) if frame // 4 != i]
        graph = graphs.base(checkpoint.name, 12, 8 * SIDE) | {"patch": apart}
        graph["positive"]["inputs"]["text"] = prompt
        graph["sampler"] = graphs.vc2_sampler(eta=0.0, steps=4, model=["patch", 0])
        alone = graphs.run_for_latent(client, graph)
        assert relative_rms(travelled[own], alone[own]) < SAME
        assert relative_rms(travelled[others], alone[others]) > 1e-3
