"""T2V-Turbo: a clip in four passes."""

from __future__ import annotations

from comfy_api.latest import io

from ..vc2.sampling import turbo
from .host.loading import is_turbo
from .host.run import run_sampler, sampler, sampling_of
from .host.samplers import sample_turbo
from .inputs import SEED
from .schema import ADVANCED, search


class VC2TurboSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VC2TurboSampler",
            display_name="VideoCrafter Turbo Sampler",
            category="VideoCrafter2/sampling",
            **search("vc2", "t2v-turbo", "text to video", "t2v", "fast video", "lcm", "few steps"),
            description=(
                "T2V-Turbo: 4 to 8 steps, one pass each, no negative prompt. For a model with T2V-Turbo's LoRA, or its"
                " v2 UNet."
            ),
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip=(
                        "With T2V-Turbo's LoRA from VC2LoadLoRA, or a T2V-Turbo v2 UNet from VC2LoadDiffusionModel."
                    ),
                ),
                io.Conditioning.Input(
                    "positive",
                    tooltip="The prompt, through VC2VideoConditioning with fps 16 (v2: 8); connect it there twice.",
                ),
                io.Latent.Input("latent", tooltip="From VC2EmptyLatentVideo."),
                io.Int.Input("seed", **SEED),
                io.Int.Input(
                    "steps", default=4, min=1, max=50, tooltip="4 is what it was made for; 8 and 16 are better still."
                ),
                io.Float.Input(
                    "guidance",
                    default=7.5,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="As a condition, at no cost. Trained from 5 to 15; 7.5 equals a guidance of 8.5.",
                ),
                io.Int.Input(
                    "original_steps",
                    default=200,
                    min=1,
                    max=1000,
                    tooltip="Steps that it was distilled on: 200, or 50 as in v1's released code.",
                    **ADVANCED,
                ),
                io.Float.Input(
                    "motion_guidance",
                    default=turbo.MOTION_GUIDANCE,
                    min=-1.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much motion, while noise is high; only a v2 UNet made with it reads it.",
                    **ADVANCED,
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The denoised frames, for VAE Decode.")],
        )

    @classmethod
    def execute(cls, model, positive, latent, seed, steps, guidance, original_steps, motion_guidance) -> io.NodeOutput:
        sampling = sampling_of(model, "VC2TurboSampler")
        if not is_turbo(model):
            raise ValueError(
                "VC2TurboSampler needs a model that was distilled for few steps: put VC2LoadLoRA with T2V-Turbo's"
                " unet_lora.pt before it, or load a T2V-Turbo UNet with VC2LoadDiffusionModel"
            )
        method = sampler(
            sample_turbo, steps=steps, original=original_steps, guidance=guidance, motion_guidance=motion_guidance
        )
        sigmas = sampling.sigmas_of(turbo.turbo_timesteps(steps, original_steps))
        unread = positive  # the host wants a negative prompt too, and runs none at its own guidance of 1
        return io.NodeOutput(run_sampler(model, method, sigmas, latent, seed, 1.0, positive, negative=unread))
