"""Checkpoints of the real layout with weights that are a function of their names: small enough to run anywhere."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.fixtures import cases, fill_module
from vc2.files import checkpoint
from vc2.networks.autoencoder import AutoencoderKL
from vc2.networks.config import UNetConfig
from vc2.networks.text import TextEncoder
from vc2.networks.unet import VideoUNet
from vc2.sampling.schedule import NoiseSchedule

AUTOENCODER = {"ch": 32, "ch_mult": (1, 1, 2, 2), "num_res_blocks": 1}
TEXT = {"width": 64, "heads": 4, "layers": 3}


def unet_config(case: str) -> UNetConfig:
    """The configuration of a parity fixture's UNet, e.g. "vc2_tiny"."""
    return UNetConfig(**next(c["config"] for c in cases("unet") if c["name"] == case))


def write(
    path: Path,
    case: str = "vc2_tiny",
    schedule: NoiseSchedule | None = None,
    config: UNetConfig | None = None,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """A whole checkpoint around a fixture's UNet (or one of another `config`).

    In half precision by default: the host keeps text encoders so on a CPU, and would round other weights.
    """
    return checkpoint.save(
        path,
        unet=fill_module(VideoUNet(config or unet_config(case))).state_dict(),
        vae=fill_module(AutoencoderKL(AUTOENCODER)).state_dict(),
        text=fill_module(TextEncoder(TEXT)).state_dict(),
        schedule=schedule or NoiseSchedule(),
        dtype=dtype,
    )
