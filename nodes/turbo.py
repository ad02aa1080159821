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
                "A clip in 4 passes of the model instead of 100, without a negative prompt. Needs T2V-Turbo's LoRA, its"
                " v2 model, or a LoRA or model that you distilled by the training recipe turbo."
            ),
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip=(
                        "With T2V-Turbo's LoRA, or one of your own, from Load VideoCrafter LoRA; or T2V-Turbo v2 from"
                        " Load VideoCrafter Diffusion Model."
                    ),
                ),
                io.Conditioning.Input(
                    "positive",
                    tooltip=(
                        "The prompt, through VideoCrafter Video Conditioning with motion fps 16 (v2: 8). Connect the"
                        " prompt to both inputs there."
                    ),
                ),
                io.Latent.Input("latent", tooltip="From Empty VideoCrafter Latent."),
                io.Int.Input("seed", **SEED),
                io.Int.Input("steps", default=4, min=1, max=50, tooltip="4 for a draft; 8 and 16 look better."),
                io.Float.Input(
                    "guidance",
                    default=7.5,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip=(
                        "How closely the prompt is followed, at no extra time. Stay between 5 and 15, or for a model of"
                        " your own within what it was trained with; 7.5 behaves like 8.5 in VideoCrafter Sampler."
                    ),
                ),
                io.Int.Input(
                    "original_steps",
                    default=200,
                    min=1,
                    max=1000,
                    tooltip=(
                        "Steps of the model that this one was distilled from. Leave at 200; T2V-Turbo v1's released"
                        " code has 50, a model of your own what its recipe calls consistency.timesteps."
                    ),
                    **ADVANCED,
                ),
                io.Float.Input(
                    "motion_guidance",
                    default=turbo.MOTION_GUIDANCE,
                    min=-1.0,
                    max=1.0,
                    step=0.01,
                    tooltip="More for more motion. Only some T2V-Turbo v2 models read it.",
                    **ADVANCED,
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The finished frames, for VAE Decode.")],
        )

    @classmethod
    def execute(cls, model, positive, latent, seed, steps, guidance, original_steps, motion_guidance) -> io.NodeOutput:
        sampling = sampling_of(model, "VideoCrafter Turbo Sampler")
        if not is_turbo(model):
            raise ValueError(
                "VideoCrafter Turbo Sampler needs a model that was distilled for few steps: put Load VideoCrafter LoRA"
                " with T2V-Turbo's unet_lora.pt, or a LoRA of the training recipe turbo, before it, or load a T2V-Turbo"
                " UNet with Load VideoCrafter Diffusion Model"
            )
        method = sampler(
            sample_turbo, steps=steps, original=original_steps, guidance=guidance, motion_guidance=motion_guidance
        )
        sigmas = sampling.sigmas_of(turbo.turbo_timesteps(steps, original_steps))
        unread = positive  # the host wants a negative prompt too, and runs none at its own guidance of 1
        return io.NodeOutput(run_sampler(model, method, sigmas, latent, seed, 1.0, positive, negative=unread))
