"""Loaders: files in, ComfyUI's own MODEL, CLIP and VAE out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import folder_paths
import torch
from comfy_api.latest import io

from ..vc2.files import CheckpointError, checkpoint
from .host.loading import apply_lora, load_clip, load_model, load_vae
from .host.run import sampling_of
from .inputs import choose, choose_file
from .schema import ADVANCED, search

DTYPES = {
    "default": None,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}


@contextlib.contextmanager
def sentence_first() -> Iterator[None]:
    """The front end writes an error's class before its sentence: of a built-in the name, of ours the whole path."""
    try:
        yield
    except CheckpointError as error:
        raise ValueError(str(error)) from error


def first_choice(names: Iterable[str]) -> str | None:
    """What a new loader stands at: a file that its name says is VideoCrafter's, the miniature last; None for none."""
    ours = [name for name in names if any(mark in name.lower() for mark in ("vc2", "videocrafter", "model.ckpt"))]
    return min(ours, key=lambda name: "vc2-tiny" in name, default=None)


class VC2LoadCheckpoint(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VC2LoadCheckpoint",
            display_name="Load VideoCrafter Checkpoint",
            category="VideoCrafter2/load",
            **search("videocrafter2", "vc2", "text to video model", "t2v", "load video model"),
            description=(
                "Loads a VideoCrafter2 or VideoCrafter1 text-to-video checkpoint: model, text encoder and VAE. The"
                " version is detected."
            ),
            inputs=[
                io.Combo.Input(
                    "ckpt_name",
                    options=folder_paths.get_filename_list("checkpoints"),
                    default=first_choice(folder_paths.get_filename_list("checkpoints")),
                    tooltip=(
                        "A file in models/checkpoints: VideoCrafter2's model.ckpt, a .safetensors of it, or the"
                        " miniature vc2-tiny.safetensors that comes with this pack."
                    ),
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(DTYPES),
                    default="default",
                    tooltip=(
                        "How precisely the model's weights are kept. default: as in the file, where the device can"
                        " compute with it. fp8: half the memory of fp16, a little less exact."
                    ),
                    **ADVANCED,
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The model, for a sampler."),
                io.Clip.Output(tooltip="The text encoder, for CLIP Text Encode."),
                io.Vae.Output(tooltip="Turns latents into pictures and back, in VAE Decode and VAE Encode."),
            ],
        )

    @classmethod
    def execute(cls, ckpt_name, weight_dtype) -> io.NodeOutput:
        dtype = DTYPES[choose(weight_dtype, DTYPES, "weight_dtype")]
        path = choose_file("checkpoints", ckpt_name, "ckpt_name")
        with sentence_first():
            loaded = checkpoint.load(path)
        for part, kind in (
            (loaded.vae, "autoencoder (first_stage_model.*)"),
            (loaded.text, "text encoder (cond_stage_model.model.*)"),
        ):
            if part is None:
                raise ValueError(
                    f"{ckpt_name} has no {kind}; load a file that holds only a UNet with Load VideoCrafter Diffusion"
                    " Model"
                )
        return io.NodeOutput(load_model(loaded, dtype), load_clip(loaded), load_vae(loaded))


class VC2LoadDiffusionModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VC2LoadDiffusionModel",
            display_name="Load VideoCrafter Diffusion Model",
            category="VideoCrafter2/load",
            **search("videocrafter2", "vc2", "load unet", "t2v"),
            description=(
                "Loads only the model (UNet), such as finetuned weights or T2V-Turbo v2. Take CLIP and VAE from Load"
                " VideoCrafter Checkpoint."
            ),
            inputs=[
                io.Combo.Input(
                    "unet_name",
                    options=folder_paths.get_filename_list("diffusion_models"),
                    default=first_choice(folder_paths.get_filename_list("diffusion_models")),
                    tooltip="A file in models/diffusion_models or models/unet.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(DTYPES),
                    default="default",
                    tooltip=(
                        "How precisely the weights are kept. default: as in the file, where the device can compute"
                        " with it. fp8: half the memory of fp16, a little less exact."
                    ),
                    **ADVANCED,
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model, for a sampler.")],
        )

    @classmethod
    def execute(cls, unet_name, weight_dtype) -> io.NodeOutput:
        dtype = DTYPES[choose(weight_dtype, DTYPES, "weight_dtype")]
        path = choose_file("diffusion_models", unet_name, "unet_name")
        with sentence_first():
            loaded = checkpoint.load(path)
        return io.NodeOutput(load_model(loaded, dtype))


class VC2LoadLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VC2LoadLoRA",
            display_name="Load VideoCrafter LoRA",
            category="VideoCrafter2/load",
            **search("videocrafter2", "vc2", "video lora", "t2v-turbo", "motion lora", "vader"),
            description=(
                "Adds a LoRA to a VideoCrafter model: T2V-Turbo's unet_lora.pt, VADER and other PEFT files, kohya's,"
                " or ComfyUI's own."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model to change; the incoming one stays as it is."),
                io.Combo.Input(
                    "lora_name", options=folder_paths.get_filename_list("loras"), tooltip="A file in models/loras."
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-20.0,
                    max=20.0,
                    step=0.05,
                    tooltip="How strongly it acts. 1: as trained; 0: not at all.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="For any sampler; with T2V-Turbo's LoRA for VideoCrafter Turbo Sampler.")],
        )

    @classmethod
    def execute(cls, model, lora_name, strength) -> io.NodeOutput:
        sampling_of(model, "Load VideoCrafter LoRA")
        path = choose_file("loras", lora_name, "lora_name")
        with sentence_first():
            return io.NodeOutput(apply_lora(model, path, strength))
