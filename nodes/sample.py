"""The sampler of the paper, in one node or as parts for SamplerCustomAdvanced."""

from __future__ import annotations

import logging

import torch
from comfy_api.latest import io

from ..vc2.sampling.ddim import ddim_timesteps
from .host.loading import is_turbo
from .host.run import run_sampler, sampler, sampling_of
from .host.samplers import sample_ddim
from .inputs import ETA, GUIDANCE, sampler_inputs
from .schema import ADVANCED, search

log = logging.getLogger(__name__)

STEPS = {
    "default": 50,
    "min": 1,
    "max": 1000,
    "tooltip": (
        "Official: 50. The number of steps run can be one or a few more (30 gives 31), as in the official sampler."
    ),
}


def ddim_sigmas(model, steps: int, denoise: float, asked_by: str) -> torch.Tensor:
    """The sigmas of the official timesteps, descending, and at the end that of t = 0.

    `denoise` below 1 takes only the last share of them; 0 gives none at all.
    """
    sampling = sampling_of(model, asked_by)
    if not 0 <= denoise <= 1:
        raise ValueError(f"{asked_by}: denoise must be between 0 and 1, found {denoise}")
    if is_turbo(model):
        log.warning(
            "%s: this model was distilled (T2V-Turbo) for few steps without guidance; VC2TurboSampler is its sampler",
            asked_by,
        )
    timesteps = ddim_timesteps(steps)
    timesteps = timesteps[: round(len(timesteps) * denoise)]
    return sampling.sigmas_of(timesteps[::-1]) if timesteps else torch.FloatTensor([])


class VC2Sampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VC2Sampler",
            display_name="VideoCrafter Sampler",
            category="VideoCrafter2/sampling",
            **search(
                "vc2",
                "text to video",
                "t2v",
                "txt2vid",
                "video to video",
                "vid2vid",
                "ksampler",
                essentials="Video Generation",
            ),
            description="The official DDIM sampler, with the dynamic rescale; the defaults are the official ones.",
            inputs=[
                *sampler_inputs(
                    "From VC2EmptyLatentVideo; or encoded frames, with denoise below 1, for video to video."
                ),
                io.Int.Input("steps", **STEPS),
                io.Float.Input("guidance", **GUIDANCE),
                io.Float.Input("eta", **ETA, **ADVANCED),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Below 1 the latent's frames are noised only so far and then denoised.",
                    **ADVANCED,
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The denoised frames, for VAE Decode.")],
        )

    @classmethod
    def execute(cls, model, positive, negative, latent, seed, steps, guidance, eta, denoise) -> io.NodeOutput:
        sigmas = ddim_sigmas(model, steps, denoise, "VC2Sampler")
        method = sampler(sample_ddim, eta=eta)
        return io.NodeOutput(run_sampler(model, method, sigmas, latent, seed, guidance, positive, negative))


class VC2DDIM(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VC2DDIM",
            display_name="VideoCrafter DDIM",
            category="VideoCrafter2/sampling",
            **search("vc2", "ddim", "sampler select"),
            description="The official sampling step as a SAMPLER, for SamplerCustomAdvanced. Use it with VC2Schedule.",
            inputs=[io.Float.Input("eta", **ETA)],
            outputs=[io.Sampler.Output()],
        )

    @classmethod
    def execute(cls, eta) -> io.NodeOutput:
        return io.NodeOutput(sampler(sample_ddim, eta=eta))


class VC2Schedule(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VC2Schedule",
            display_name="VideoCrafter Schedule",
            category="VideoCrafter2/sampling",
            **search("vc2", "ddim", "sigmas", "scheduler"),
            description=(
                "The official timesteps as SIGMAS. The last one is timestep 0, not zero noise: use it with VC2DDIM."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model whose noise schedule is meant."),
                io.Int.Input("steps", **STEPS),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Below 1: only the last share of the steps.",
                    **ADVANCED,
                ),
            ],
            outputs=[io.Sigmas.Output()],
        )

    @classmethod
    def execute(cls, model, steps, denoise) -> io.NodeOutput:
        return io.NodeOutput(ddim_sigmas(model, steps, denoise, "VC2Schedule"))
