"""The sampler of the paper, in one node or as parts for SamplerCustomAdvanced."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..vc2.sampling.ddim import ddim_timesteps
from .host.loading import is_turbo
from .host.progress import warn
from .host.run import run_sampler, sampler, sampling_of
from .host.samplers import sample_ddim
from .inputs import ETA, GUIDANCE, sampler_inputs
from .schema import ADVANCED, search

STEPS = {
    "default": 50,
    "min": 1,
    "max": 1000,
    "tooltip": ("25 for a draft, 50 for the best. Some numbers run one or a few more (30 runs 31)."),
}


def ddim_sigmas(model, steps: int, denoise: float, asked_by: str) -> torch.Tensor:
    """The sigmas of the official timesteps, descending, and at the end that of t = 0.

    `denoise` below 1 takes only the last share of them; 0 gives none at all.
    """
    sampling = sampling_of(model, asked_by)
    if not 0 <= denoise <= 1:
        raise ValueError(f"{asked_by}: denoise must be between 0 and 1, found {denoise}")
    if is_turbo(model):
        warn(
            f"{asked_by}: this model was distilled (T2V-Turbo) for few steps without guidance; its sampler is"
            " VideoCrafter Turbo Sampler"
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
            description=(
                "Makes a clip from noise, or changes one. The defaults are those of VideoCrafter2's own script."
            ),
            inputs=[
                *sampler_inputs(
                    "From Empty VideoCrafter Latent; or from VAE Encode, with denoise below 1, to change a video."
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
                    tooltip=(
                        "1: a new clip. Below 1: keeps more of the clip that is connected as latent, the lower the"
                        " more. An empty latent starts from pure noise at any value."
                    ),
                    **ADVANCED,
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The finished frames, for VAE Decode.")],
        )

    @classmethod
    def execute(cls, model, positive, negative, latent, seed, steps, guidance, eta, denoise) -> io.NodeOutput:
        sigmas = ddim_sigmas(model, steps, denoise, "VideoCrafter Sampler")
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
            description=(
                "VideoCrafter2's own sampling step, for SamplerCustomAdvanced. Use it with VideoCrafter Schedule."
            ),
            inputs=[io.Float.Input("eta", **ETA)],
            outputs=[io.Sampler.Output(tooltip="For SamplerCustomAdvanced.")],
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
                "The noise levels of VideoCrafter2's own sampler, for SamplerCustomAdvanced. They end a little above"
                " no noise, where VideoCrafter DDIM ends: use it with that."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model to sample."),
                io.Int.Input("steps", **STEPS),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Below 1: only that share of the steps, the last ones.",
                    **ADVANCED,
                ),
            ],
            outputs=[io.Sigmas.Output(tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, model, steps, denoise) -> io.NodeOutput:
        return io.NodeOutput(ddim_sigmas(model, steps, denoise, "VideoCrafter Schedule"))
