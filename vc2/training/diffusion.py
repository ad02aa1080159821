"""The paper's objective: MSE on epsilon, t uniform, the dynamic rescale applied once (in `add_noise`); clips and single
images jointly (paper section 3.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks.autoencoder import SCALE_FACTOR
from ..networks.unet import Block, VideoUNet
from ..sampling.schedule import TIMESTEPS, NoiseSchedule
from . import lora
from .config import Recipe
from .data.batches import MEDIA, NOISE, Batch, Sample, Stream, load_batches, torch_generator
from .data.cache import fingerprint_of
from .export import write_full, write_lora
from .initialise import load_autoencoder, load_text, start_unet
from .partition import freeze_except, untouched_by_images

ENCODED_AT_ONCE = 16  # frames through the autoencoder in one go


def mark_what_learns(unet: VideoUNet, recipe: Recipe) -> None:
    """Freeze everything but what the recipe trains, adapters included."""
    temporal = recipe.diffusion.image_temporal
    if recipe.learn.how == "lora":
        # Adapters go on what will be computed: on images alone not all temporal layers are.
        lora.inject(
            unet,
            recipe.learn.part,
            recipe.learn.rank,
            recipe.image_only and temporal == "bypass",
            recipe.image_only and temporal != "full",
        )
    else:
        freeze_except(
            unet, recipe.learn.part, untouched_by_images(unet, temporal) if recipe.image_only else frozenset()
        )


class DiffusionObjective:
    """Owns the UNet, the frozen autoencoder and text encoder, and the streams of data."""

    def __init__(self, recipe: Recipe, cache: Path, device: torch.device):
        self.open_networks(recipe, device)
        self.schedule = NoiseSchedule(recipe.diffusion.scale_end)
        self.streams = {
            medium: Stream(recipe, medium, cache, self.networks) for medium in MEDIA if getattr(recipe.data, medium)
        }
        self.data = {medium: stream.listing.identity() for medium, stream in self.streams.items()}
        self.model = start_unet(recipe)
        self.start = {"unet": fingerprint_of(self.model.state_dict()), **self.networks}
        mark_what_learns(self.model, recipe)
        self._prepare_network()
        self.place_networks()

    def open_networks(self, recipe: Recipe, device: torch.device) -> None:
        """The autoencoder and the text encoder, and fingerprints of them. Raises CheckpointError or OSError."""
        self.recipe, self.device = recipe, device
        self.frozen_dtype = torch.bfloat16 if recipe.compute.precision == "bf16" else torch.float32
        self.autoencoder, self.text = load_autoencoder(recipe.init.autoencoder_file), load_text(recipe.init.text_file)
        self.networks = {
            "autoencoder": fingerprint_of(self.autoencoder.state_dict()),
            "text": fingerprint_of(self.text.state_dict()),
        }

    def place_networks(self) -> None:
        self.autoencoder.to(self.device)
        self.text.to(self.device, self.frozen_dtype)

    @property
    def _reduced(self) -> bool:
        return self.frozen_dtype != torch.float32

    def _prepare_network(self) -> None:
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = self.recipe.diffusion.dropout
            if isinstance(module, Block):
                module.use_checkpoint = self.recipe.compute.gradient_checkpointing
            # Autocast would round these for every use; held rounded they take half the memory and give the same
            # numbers.
            if (
                self._reduced
                and isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
                and not module.weight.requires_grad
            ):
                module.weight.data = module.weight.data.to(self.frozen_dtype)
        self.model.use_attention("auto")
        self.model.to(self.device)

    def batches(self, start: int, rank: int, world: int) -> Iterator[Batch]:
        return load_batches(self.recipe, self.streams, start, rank, world, pin=self.device.type == "cuda")

    def parts(self, batch: Batch) -> list[Batch]:
        micro = self.recipe.compute.micro_batch
        if micro is None:
            return [batch]
        # An image step has as many images as the clips of another have frames.
        per_clip = batch.step.count // self.recipe.batch
        return batch.split(micro * per_clip)

    def loss(self, model: nn.Module, part: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Everything random follows from (seed, step, slot), so that how a step is divided changes nothing."""
        generators = [torch_generator(self.recipe.seed, NOISE, part.step.index, slot) for slot in part.slots]
        t = torch.stack([self._timestep(g) for g in generators])
        loss = self.errors(model, part.frames, part.captions, part.text, part.fps, t, generators)
        loss = (loss * self._weights(t).to(loss.device)).mean()
        return loss, {"image_loss" if part.step.medium == "images" else "video_loss": loss.detach()}

    def errors(
        self,
        model: nn.Module,
        frames: Tensor,
        captions: list[str],
        text: Tensor | None,
        fps: Tensor,
        t: Tensor,
        generators: list[torch.Generator],
    ) -> Tensor:
        """Mean squared error of epsilon for each sample, `[B]`: frames `[B, T, ...]` (pixels or moments), timesteps
        `[B]`.
        """
        x0 = self._latents(frames, generators)
        noise = torch.stack([torch.randn(x0.shape[1:], generator=g) for g in generators]).to(self.device)
        t, fps = t.to(self.device), fps.to(self.device)
        image = x0.shape[2] == 1
        x_t = self.schedule.add_noise(x0, noise, t)
        eps = model(
            x_t,
            t,
            self._context(captions, text),
            fps,
            temporal=self.recipe.diffusion.image_temporal if image else "full",
        )
        return F.mse_loss(eps.float(), noise, reduction="none").flatten(1).mean(1)

    @torch.no_grad()
    def _latents(self, frames: Tensor, generators: list[torch.Generator]) -> Tensor:
        """x0 `[B, 4, T, h, w]`: a sample of the autoencoder's posterior."""
        moments = (
            self.moments(frames.flatten(0, 1))
            if frames.dtype == torch.uint8
            else frames.flatten(0, 1).to(self.device, non_blocking=True).float()
        )
        mean, log_variance = moments.unflatten(0, frames.shape[:2]).chunk(2, 2)
        noise = torch.stack([torch.randn(mean.shape[1:], generator=g) for g in generators]).to(self.device)
        return (SCALE_FACTOR * (mean + (0.5 * log_variance.clamp(-30, 20)).exp() * noise)).transpose(1, 2)

    @torch.no_grad()
    def moments(self, pixels: Tensor) -> Tensor:
        """uint8 `[N, 3, H, W]` -> the posterior's moments `[N, 8, h, w]`, float32."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._reduced):
            return torch.cat(
                [
                    self.autoencoder.encode(part.to(self.device, non_blocking=True).float() / 127.5 - 1).float()
                    for part in pixels.split(ENCODED_AT_ONCE)
                ]
            )

    @torch.no_grad()
    def _context(self, captions: list[str], text: Tensor | None) -> Tensor:
        return self.text(captions).float() if text is None else text.to(self.device, non_blocking=True).float()

    @torch.no_grad()
    def features(self, captions: list[str]) -> Tensor:
        """What `prepare` stores of captions: `[N, 77, D]` in half precision, on the CPU."""
        return self.text(captions).half().cpu()

    def _timestep(self, generator: torch.Generator) -> Tensor:
        """Uniform, but for the share that comes from the noisy end."""
        low = (
            self.recipe.diffusion.noisy_from
            if float(torch.rand((), generator=generator)) < self.recipe.diffusion.noisy_share
            else 0
        )
        return torch.randint(low, TIMESTEPS, (), generator=generator)

    def _weights(self, t: Tensor) -> Tensor:
        """`[B]` from timesteps `[B]`: 1 / SNR within 1..max_weight."""
        signal, sigma = self.schedule.coefficients(t, t.float())
        return (sigma / signal).square().clamp(1, self.recipe.diffusion.max_weight)

    def held_out(self) -> dict[str, list[Sample]]:
        """Samples for validation, by medium."""
        return {medium: stream.held_out(self.recipe.data.held_out) for medium, stream in self.streams.items()}

    def export(self, folder: Path, weights: dict[str, Tensor], step: int) -> list[Path]:
        """`model.safetensors`, a whole checkpoint in half precision; for LoRA `lora.safetensors` too."""
        out = [write_full(folder / "model.safetensors", self.recipe, weights, step, torch.float16, self.start)]
        if self.recipe.learn.how == "lora":
            out.append(write_lora(folder / "lora.safetensors", self.recipe, weights, step, torch.float16))
        return out
