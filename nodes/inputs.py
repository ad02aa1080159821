"""Inputs that several nodes share, and the check of a choice."""

from __future__ import annotations

from collections.abc import Iterable

import folder_paths
from comfy_api.latest import io

ETA = {
    "default": 1.0,
    "min": 0.0,
    "max": 1.0,
    "step": 0.01,
    "tooltip": "Fresh noise in each step. 1 is usual; 0 adds none. The same seed gives the same clip with any eta.",
}
GUIDANCE = {
    "default": 12.0,
    "min": 0.0,
    "max": 100.0,
    "step": 0.1,
    "tooltip": (
        "How closely the prompt is followed. 12 is usual; lower is freer, much higher burns the colours. 1 ignores the"
        " negative prompt and halves the time."
    ),
}
SEED = {
    "default": 0,
    "min": 0,
    "max": 0xFFFFFFFFFFFFFFFF,
    "control_after_generate": True,
    "tooltip": "Another number, another clip; the same number, the same clip again.",
}


def sampler_inputs(latent: str) -> list:
    """What a guided sampler starts with; `latent` is that input's tooltip."""
    return [
        io.Model.Input(
            "model",
            tooltip="From Load VideoCrafter Checkpoint or Load VideoCrafter Diffusion Model, with or without LoRAs.",
        ),
        io.Conditioning.Input("positive", tooltip="The prompt, through VideoCrafter Video Conditioning."),
        io.Conditioning.Input("negative", tooltip="The negative prompt, through VideoCrafter Video Conditioning."),
        io.Latent.Input("latent", tooltip=latent),
        io.Int.Input("seed", **SEED),
    ]


def choose(value: str, options: Iterable[str], what: str) -> str:
    """`value`, if it is one of `options`; ValueError if not. The host does not check choices of V3 nodes before 0.8."""
    if value not in options:
        shown = ", ".join(list(options)[:8]) or "(none)"
        raise ValueError(f"{what}: {value!r} is not one of the choices: {shown}")
    return value


def choose_file(folder: str, name: str, what: str) -> str:
    """The path of the file `name` in models/`folder`; ValueError where it is not there."""
    choose(name, folder_paths.get_filename_list(folder), f"{what} (files in models/{folder})")
    return folder_paths.get_full_path_or_raise(folder, name)
