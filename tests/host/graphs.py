"""Small API graphs, and a pipeline of our own to compare the host with."""

from __future__ import annotations

import json
import struct
from typing import Any

import torch
from safetensors.torch import load

from scripts.client import Client, Result

Graph = dict[str, dict[str, Any]]
PROMPT, NEGATIVE = "a red circle moving right", ""
SAME = 1e-4  # relative RMS of two latents that are one: other kernels change 1e-6, a fault 1e-3 and more


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def base(
    ckpt: str, frames: int = 4, size: int = 32, clips: int = 1, fps: float = 28, frames_per_clip: int = 0
) -> Graph:
    """Model, conditions and an empty latent; add a sampler called "sampler"."""
    return {
        "load": node("VC2LoadCheckpoint", ckpt_name=ckpt, weight_dtype="default"),
        "positive": node("CLIPTextEncode", clip=["load", 1], text=PROMPT),
        "negative": node("CLIPTextEncode", clip=["load", 1], text=NEGATIVE),
        "condition": node(
            "VC2VideoConditioning",
            positive=["positive", 0],
            negative=["negative", 0],
            fps=fps,
            frames_per_clip=frames_per_clip,
        ),
        "latent": node("VC2EmptyLatentVideo", width=size, height=size, frames=frames, clips=clips),
    }


def vc2_sampler(**changes: Any) -> dict[str, Any]:
    inputs = {"seed": 7, "steps": 10, "guidance": 12.0, "eta": 1.0, "denoise": 1.0} | changes
    links = {"model": ["load", 0], "positive": ["condition", 0], "negative": ["condition", 1], "latent": ["latent", 0]}
    return node("VC2Sampler", **(links | inputs))


def ksampler(**changes: Any) -> dict[str, Any]:
    inputs = {
        "seed": 7,
        "steps": 10,
        "cfg": 12.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
    } | changes
    links = {
        "model": ["load", 0],
        "positive": ["condition", 0],
        "negative": ["condition", 1],
        "latent_image": ["latent", 0],
    }
    return node("KSampler", **(links | inputs))


def custom_sampler(
    seed: int = 7, steps: int = 10, guidance: float = 12.0, eta: float = 1.0, sampler: dict | None = None
) -> Graph:
    """VC2DDIM and VC2Schedule through the stock SamplerCustomAdvanced."""
    return {
        "noise": node("RandomNoise", noise_seed=seed),
        "guider": node(
            "CFGGuider", model=["load", 0], positive=["condition", 0], negative=["condition", 1], cfg=guidance
        ),
        "method": sampler or node("VC2DDIM", eta=eta),
        "schedule": node("VC2Schedule", model=["load", 0], steps=steps, denoise=1.0),
        "sampler": node(
            "SamplerCustomAdvanced",
            noise=["noise", 0],
            guider=["guider", 0],
            sampler=["method", 0],
            sigmas=["schedule", 0],
            latent_image=["latent", 0],
        ),
    }


def run_for_latent(client: Client, graph: Graph, source: str = "sampler") -> torch.Tensor:
    """Run `graph` and return the latent that node `source` puts out, `[N, 4, h, w]`, in the UNet's scale."""
    result: Result = client.run(
        graph | {"save": node("SaveLatent", samples=[source, 0], filename_prefix="latents/test")}
    )
    file = result.outputs["save"]["latents"][0]
    data = client.view(file["filename"], file["subfolder"], file["type"])
    size = struct.unpack("<Q", data[:8])[0]
    json.loads(data[8 : 8 + size])  # a clear failure where this is no safetensors file
    return load(data)["latent_tensor"] * 0.18215
