"""Which other model a file is, told from its tensors' names, so that the refusal can say so."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

LORA = "a LoRA"
# A piece of a name that only this kind of file has -> what the file is. The first that fits is it: what others are made
# of comes after them.
MARKS = {
    "lora_down.weight": LORA,
    "lora_up.weight": LORA,
    "lora_A.": LORA,
    "lora_B.": LORA,
    "motion_modules.": "an AnimateDiff motion module",
    "control_model.": "a ControlNet",
    "input_hint_block.": "a ControlNet",
    "controlnet_": "a ControlNet",
    "time_stack.": "Stable Video Diffusion",
    "input_blocks.0.1.": "ModelScope's (or ZeroScope's) text-to-video model",
    "temp_convs.": "ModelScope's (or ZeroScope's) text-to-video model in diffusers' layout",
    "conditioner.embedders.": "Stable Diffusion XL",
    "label_emb.0.": "Stable Diffusion XL",
    "add_embedding.linear_1.": "Stable Diffusion XL in diffusers' layout",
    "joint_blocks.": "Stable Diffusion 3",
    "individual_token_refiner.": "HunyuanVideo",
    "double_blocks.": "Flux",
    "head.modulation": "Wan",
    "condition_embedder.time_embedder.": "Wan in diffusers' layout",
    "patchify_proj.": "LTX-Video",
    "t5_yproj.": "Mochi",
    "patch_embed.text_proj.": "CogVideoX",
    "cond_stage_model.transformer.text_model.": "Stable Diffusion 1.5",
}
# How wide the text is that an image UNet of Stable Diffusion reads -> its version.
VERSIONS = {768: "1.5", 1024: "2.1", 2048: "XL"}
LAYOUTS = {"middle_block.1.transformer_blocks.0.": "", "mid_block.attentions.0.": " in diffusers' layout"}
TEMPORAL = ("init_attn.", "temopral_conv.", ".to_k_ip.", "middle_block.2.transformer_blocks.")


def foreign_model(state: Mapping[str, Tensor]) -> str | None:
    """What a file is that is no VideoCrafter text-to-video model, such as "Wan"; None where that cannot be told."""
    for mark, model in MARKS.items():
        if any(mark in name for name in state):
            return model
    if any(mark in name for name in state for mark in TEMPORAL):
        return None
    for mark, layout in LAYOUTS.items():
        for name, tensor in state.items():
            if mark in name and name.endswith("attn2.to_k.weight") and tensor.ndim == 2:
                version = VERSIONS.get(tensor.shape[1], "of an unknown version")
                return f"a Stable Diffusion image UNet{layout} ({version}: its text is {tensor.shape[1]} wide)"
    return None
