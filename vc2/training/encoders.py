"""The frozen networks around the UNet: the autoencoder and the text encoder, and what they make of data."""

from __future__ import annotations

import torch
from torch import Tensor

from ..networks.autoencoder import SCALE_FACTOR
from .errors import RecipeError
from .initialise import fingerprint_of, load_autoencoder, load_text
from .recipe import Recipe

ENCODED_AT_ONCE = 16  # frames through the autoencoder in one go


def check_sizes(recipe: Recipe, factor: int) -> None:
    """Raise RecipeError for sizes of which an autoencoder that shrinks a side by `factor` has no whole latents. A
    UNet takes any number of them.
    """
    data, sampling = recipe.data, recipe.sampling
    sides = [
        ("data.width", data.width),
        ("data.height", data.height),
        *(("data.buckets", side) for bucket in data.buckets for side in bucket),
        ("sampling.width", sampling.width),
        ("sampling.height", sampling.height),
    ]
    if wrong := dict.fromkeys(f"{key} {side}" for key, side in sides if side is not None and side % factor):
        raise RecipeError(
            f"{', '.join(wrong)}: the autoencoder of {recipe.init.autoencoder_file} makes one latent of {factor} pixels"
            f" a side; use multiples of {factor}"
        )


class Encoders:
    """A recipe's autoencoder and text encoder on `device`. Raises CheckpointError or OSError, or RecipeError for sizes
    that they do not take.
    """

    def __init__(self, recipe: Recipe, device: torch.device):
        self.device = device
        self.bf16 = recipe.compute.precision == "bf16"
        self.autoencoder, self.text = load_autoencoder(recipe.init.autoencoder_file), load_text(recipe.init.text_file)
        check_sizes(recipe, self.autoencoder.config.downsampling)
        self.fingerprints = {
            "autoencoder": fingerprint_of(self.autoencoder.state_dict()),
            "text": fingerprint_of(self.text.state_dict()),
        }
        self.autoencoder.to(device)
        self.text.to(device, torch.bfloat16 if self.bf16 else torch.float32)

    @torch.no_grad()
    def moments(self, pixels: Tensor) -> Tensor:
        """uint8 `[N, 3, H, W]` -> the posterior's moments `[N, 8, h, w]`, float32."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return torch.cat(
                [
                    self.autoencoder.encode(chunk.to(self.device, non_blocking=True).float() / 127.5 - 1).float()
                    for chunk in pixels.split(ENCODED_AT_ONCE)
                ]
            )

    @torch.no_grad()
    def latents(self, frames: Tensor, generators: list[torch.Generator]) -> Tensor:
        """x0 `[B, 4, T, h, w]`, a sample of the autoencoder's posterior, from pixels or moments `[B, T, ...]`."""
        moments = (
            self.moments(frames.flatten(0, 1))
            if frames.dtype == torch.uint8
            else frames.flatten(0, 1).to(self.device, non_blocking=True).float()
        )
        mean, log_variance = moments.unflatten(0, frames.shape[:2]).chunk(2, 2)
        noise = torch.stack([torch.randn(mean.shape[1:], generator=g) for g in generators]).to(self.device)
        return (SCALE_FACTOR * (mean + (0.5 * log_variance.clamp(-30, 20)).exp() * noise)).transpose(1, 2)

    @torch.no_grad()
    def context(self, captions: list[str], text: Tensor | None = None) -> Tensor:
        """Features of captions `[B, 77, D]`, float32; `text` are those that were prepared."""
        return self.text(captions).float() if text is None else text.to(self.device, non_blocking=True).float()

    @torch.no_grad()
    def features(self, captions: list[str]) -> Tensor:
        """What `prepare` stores of captions: `[N, 77, D]` in half precision, on the CPU."""
        return self.text(captions).half().cpu()
