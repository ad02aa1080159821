"""The paper's objective: MSE on epsilon, t uniform, the dynamic rescale applied once (in `add_noise`); clips and single
images jointly (paper section 3.1).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.profiler import record_function

from ..networks.compiled import compile_layers
from ..networks.unet import VideoUNet
from ..sampling.schedule import TIMESTEPS, NoiseSchedule
from . import cost, kernels, preview, validate
from .data.batches import Batch, load_batches
from .data.mixture import stream_of
from .encoders import Encoders
from .export import write_full, write_lora
from .initialise import fingerprint_of, sampling_of, start_unet
from .objective import Objective, SampleClip
from .partition import mark_what_learns
from .quantise import quantise
from .recipe import Recipe
from .rng import NOISE, torch_generator
from .sources.files import fingerprint
from .sources.source import Sample


class DiffusionObjective(Objective[Batch]):
    """Owns the UNet, the frozen networks around it, and the streams of data."""

    model: VideoUNet

    def __init__(self, recipe: Recipe, cache: Path, device: torch.device):
        self.recipe, self.device = recipe, device
        self.encoders = Encoders(recipe, device)
        self.schedule = NoiseSchedule(recipe.diffusion.scale_end)
        self.streams = {
            medium: stream_of(recipe, medium, cache, self.encoders.fingerprints) for medium in recipe.data.sources
        }
        self.identities = {medium: stream.content for medium, stream in self.streams.items()}
        self.model = start_unet(recipe)
        self.fingerprints = {"unet": fingerprint_of(self.model.state_dict()), **self.encoders.fingerprints}
        if recipe.compute.frozen == "int8":
            quantise(self.model, device)
        mark_what_learns(self.model, recipe)
        self._prepare(self.model)
        # Now, and not when the first sample is due, or the export after the last step.
        sampling_of(recipe)
        if recipe.samples.every:
            validate.sample_settings(recipe, self.encoders.autoencoder.config.downsampling)

    def _prepare(self, unet: VideoUNet) -> None:
        """A network, marked what of it learns, as the recipe computes it."""
        for module in unet.modules():
            if isinstance(module, nn.Dropout):
                module.p = self.recipe.diffusion.dropout
            # Autocast would round these for every use; held rounded they take half the memory and give the same
            # numbers.
            if (
                self.encoders.bf16
                and isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
                and module.weight.is_floating_point()  # else it is quantised
                and not module.weight.requires_grad
            ):
                module.weight.data = module.weight.data.to(torch.bfloat16)
        unet.gradient_checkpointing(cost.checkpointed(self.recipe, len(unet.config.channel_mult)))
        unet.use_attention("auto")
        unet.to(self.device)
        if self.recipe.compute.compile:
            compile_layers(unet)

    def files(self, medium: str) -> str:
        return self.streams[medium].files()

    def batches(self, first_step: int, rank: int, world: int) -> Generator[Batch, None, None]:
        if self.recipe.validation.every:
            self.held_out  # noqa: B018 (read before the first step: what is wrong with it is told at once)
        return load_batches(self.recipe, self.streams, first_step, rank, world, pin=self.device.type == "cuda")

    def split(self, batch: Batch) -> list[Batch]:
        micro = self.recipe.compute.micro_batch
        if micro is None:
            return [batch]
        # An image step has as many images as the clips of another have frames.
        per_clip = batch.count // self.recipe.batch
        return batch.split(micro * per_clip)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Everything random follows from (seed, step, slot), so that how a step is divided changes nothing."""
        generators = [torch_generator(self.recipe.seed, NOISE, batch.step.index, slot) for slot in batch.slots]
        t = torch.stack([self._timestep(g) for g in generators])
        errors = self.errors(model, batch, t, generators)
        loss = (errors * self._weights(t).to(errors.device)).mean()
        return loss, {"image_loss" if batch.step.medium == "images" else "video_loss": loss.detach()}

    def errors(self, model: nn.Module, batch: Batch, t: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Mean squared error of epsilon for each sample, `[B]`, at timesteps t `[B]`."""
        x0, noise, context, fps = self._given(batch, generators)
        t = t.to(self.device)
        x_t = self.schedule.add_noise(x0, noise, t)
        with record_function("network"):
            eps = model(x_t, t, context, fps, temporal=self._temporal(x0))
        return F.mse_loss(eps.float(), noise, reduction="none").flatten(1).mean(1)

    def _given(self, batch: Batch, generators: list[torch.Generator]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents, noise of their shape, the captions' context and fps of a batch, on the device."""
        with record_function("encode frames"):
            x0 = self.encoders.latents(batch.frames, generators)
        noise = torch.stack([torch.randn(x0.shape[1:], generator=g) for g in generators]).to(self.device)
        with record_function("encode captions"):
            context = self.encoders.context(batch.captions, batch.text)
        return x0, noise, context, batch.fps.to(self.device)

    def _temporal(self, x0: Tensor) -> str:
        """How latents `[B, C, T, h, w]` pass the temporal layers."""
        return self.recipe.diffusion.image_temporal if x0.shape[2] == 1 else "full"

    def _timestep(self, generator: torch.Generator) -> Tensor:
        """Uniform, but for the share that comes from the noisy end."""
        diffusion = self.recipe.diffusion
        noisy = float(torch.rand((), generator=generator)) < diffusion.noisy_share
        return torch.randint(diffusion.noisy_from if noisy else 0, TIMESTEPS, (), generator=generator)

    def _weights(self, t: Tensor) -> Tensor:
        """`[B]` from timesteps `[B]`: 1 / SNR within 1..max_weight."""
        signal, sigma = self.schedule.coefficients(t, t.float())
        return (sigma / signal).square().clamp(1, self.recipe.diffusion.max_weight)

    def flops(self, batch: Batch) -> float:
        config = self.model.config
        return batch.count * cost.sample_flops(self.recipe, config, batch.step.frames, again=False)

    @cached_property
    def held_out(self) -> dict[str, list[Sample]]:
        """Samples for validation, by medium; a medium without any is left out."""
        samples = {medium: stream.held_out(self.recipe.data.held_out) for medium, stream in self.streams.items()}
        return {medium: some for medium, some in samples.items() if some}

    def validate(self, model: nn.Module, accelerator: Accelerator) -> dict[str, float]:
        with kernels.uncompiled(self.recipe):
            return validate.held_out_loss(self.errors, model, self.recipe, accelerator, self.held_out)

    def validation(self) -> str | None:
        """Of the held-out samples as they were read, their noise and its levels."""
        samples = {
            f"{medium} {n:06d} {sample.fps} {sample.caption}": sample.frames
            for medium, held_out in self.held_out.items()
            for n, sample in enumerate(held_out)
        }
        recipe = self.recipe
        levels = (recipe.seed, recipe.validation.quantiles, recipe.diffusion.scale_end)
        return fingerprint(*levels, fingerprint_of(samples)) if samples else None

    def sample(self, model: nn.Module, accelerator: Accelerator) -> Iterator[SampleClip]:
        with kernels.uncompiled(self.recipe):
            yield from validate.sample_clips(self.encoders, self.schedule, model, self.recipe, accelerator)

    def preview(self, batch: Batch, folder: Path) -> None:
        preview.write(self.encoders, batch, folder)

    def export(self, folder: Path, weights: dict[str, Tensor], step: int) -> list[Path]:
        """`model.safetensors`, a whole checkpoint in half precision; for LoRA `lora.safetensors` too."""
        whole = folder / "model.safetensors"
        files = [write_full(whole, self.recipe, weights, step, torch.float16, self.fingerprints)]
        if self.recipe.learn.how == "lora":
            files.append(self.export_lora(folder / "lora.safetensors", weights, step))
        return files

    def export_lora(self, target: Path, weights: dict[str, Tensor], step: int) -> Path:
        return write_lora(target, self.recipe, weights, step, torch.float16)
