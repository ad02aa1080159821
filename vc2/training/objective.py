"""What is minimised. An objective owns the module that learns, makes the batch of a step from (seed, step) alone, and computes its loss.

Three of them: the diffusion objective of the paper, and the two that the miniature needs because it has no Stable Diffusion to start from.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import checkpoint
from ..autoencoder import SCALE_FACTOR, AutoencoderKL, sample_posterior
from ..config import AutoencoderConfig, TextConfig, UNetConfig, as_config
from ..schedule import TIMESTEPS, NoiseSchedule
from ..text import TextEncoder
from ..unet import VideoUNet
from .config import Recipe
from .data import procedural as world
from .data.moments import FrameMoments
from .initialise import zero_outputs
from .partition import freeze_except


class Objective(Protocol):
    @property
    def model(self) -> nn.Module:
        """What learns."""

    def loss(self, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of one step, whose batch and noise come from `generator`, and figures to log."""

    def export(self, path: Path, weights: dict[str, Tensor], recipe: Recipe) -> None:
        """Write the trained part as a file that the next recipe, or ComfyUI, loads."""


def build(recipe: Recipe, cache: Path, device: torch.device) -> Objective:
    """The recipe's objective, its module on `device`."""
    torch.manual_seed(recipe.seed)
    kinds: dict[str, type[DiffusionObjective | AutoencoderObjective | TextObjective]] = {
        "diffusion": DiffusionObjective,
        "autoencoder": AutoencoderObjective,
        "text": TextObjective,
    }
    return kinds[recipe.objective](recipe, cache, device)


class DiffusionObjective:
    """MSE on epsilon, t uniform, the dynamic rescale applied once (in `add_noise`); clips and single images jointly (paper section 3.1)."""

    def __init__(self, recipe: Recipe, cache: Path, device: torch.device):
        self.recipe, self.device = recipe, device
        self.schedule = NoiseSchedule(recipe.diffusion.scale_end)
        autoencoder, text = load_autoencoder(recipe.init.autoencoder), load_text(recipe.init.text)
        self.frames = FrameMoments(autoencoder, cache)
        with torch.no_grad():
            self.captions = {caption: text([caption])[0] for caption in [*world.captions(), ""]}
        self.parts = {"vae": autoencoder.state_dict(), "text": text.state_dict()}
        if recipe.init.unet:
            loaded = checkpoint.load(recipe.init.unet, torch.float32)
            self.model = VideoUNet(loaded.config)
            self.model.load_state_dict(loaded.unet)
        else:
            self.model = zero_outputs(VideoUNet(as_config(UNetConfig, recipe.networks.unet)))
        freeze_except(self.model, recipe.diffusion.trainable)
        self.model.to(device)

    def loss(self, generator):
        data, diffusion, b = self.recipe.data, self.recipe.diffusion, self.recipe.batch
        frames, stride = data.lengths[int(torch.randint(len(data.lengths), (), generator=generator))]
        share = 1 / frames if diffusion.image_share is None else diffusion.image_share
        image = float(torch.rand((), generator=generator)) < share
        if image:  # as many frames as a step of clips has, each by itself
            b, frames, stride = b * frames, 1, 1
        moments, context = self._draw(b, frames, stride, generator)
        x0 = sample_posterior(moments.flatten(0, 1), generator).unflatten(0, (b, frames)).transpose(1, 2)
        noise = torch.randn(x0.shape, generator=generator)
        t = self._timesteps(b, generator)
        fps = torch.full((b,), diffusion.image_fps if image else world.SOURCE_FPS // stride)
        x_t = self.schedule.add_noise(x0, noise, t)
        inputs = (tensor.to(self.device) for tensor in (x_t, t, context, fps))
        eps = self.model(*inputs, temporal=diffusion.image_temporal if image else "full")
        errors = F.mse_loss(eps, noise.to(self.device), reduction="none").flatten(1).mean(1)
        loss = (errors * self._weights(t).to(self.device)).mean()
        return loss, {"image_loss" if image else "video_loss": float(loss.detach())}

    def _timesteps(self, b: int, generator: torch.Generator) -> Tensor:
        """`[B]`: uniform, but for the share that comes from the noisy end."""
        diffusion = self.recipe.diffusion
        noisy = torch.rand(b, generator=generator) < diffusion.noisy_share
        return torch.where(
            noisy, torch.randint(diffusion.noisy_from, TIMESTEPS, (b,), generator=generator), torch.randint(TIMESTEPS, (b,), generator=generator)
        )

    def _weights(self, t: Tensor) -> Tensor:
        """`[B]` from timesteps `[B]`: 1 / SNR within 1..max_weight."""
        signal, sigma = self.schedule.coefficients(t, t.float())
        return (sigma / signal).square().clamp(1, self.recipe.diffusion.max_weight)

    def _draw(self, b: int, frames: int, stride: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Moments `[B, T, 8, h, w]` and text `[B, 77, D]` of random scenes."""
        moments, context = [], []
        for _ in range(b):
            scene = world.random_scene(generator)
            first = int(torch.randint(world.SOURCE_FRAMES - stride * (frames - 1), (), generator=generator))
            dropped = float(torch.rand((), generator=generator)) < self.recipe.data.caption_dropout
            moments.append(self.frames.clip(scene, first, frames, stride))
            context.append(self.captions["" if dropped else scene.caption])
        return torch.stack(moments), torch.stack(context)

    def export(self, path, weights, recipe):
        metadata = {"recipe": recipe.model_dump_json(), "sampling": json.dumps(recipe.sampling)}
        checkpoint.save(path, unet=weights, schedule=self.schedule, dtype=torch.float16, metadata=metadata, **self.parts)


class AutoencoderObjective:
    """L1 + MSE + a little KL on single frames; no adversary, since the world has no texture to invent."""

    KL_WEIGHT = 2e-4

    def __init__(self, recipe: Recipe, cache: Path, device: torch.device):
        self.recipe, self.device = recipe, device
        self.model = AutoencoderKL(as_config(AutoencoderConfig, recipe.networks.autoencoder)).to(device)

    def loss(self, generator):
        x = random_frames(self.recipe.batch, generator).to(self.device)
        side = world.SIZE // self.model.config.downsampling
        noise = torch.randn(len(x), self.model.config.embed_dim, side, side, generator=generator).to(self.device)
        mean, log_variance = self.model.encode(x).chunk(2, 1)
        out = self.model.decode(mean + (0.5 * log_variance).exp() * noise)
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        mse = F.mse_loss(out, x)
        psnr = float(10 * torch.log10(4 / mse.detach()))
        return F.l1_loss(out, x) + mse + self.KL_WEIGHT * kl, {"psnr": psnr, "kl": float(kl.detach())}

    def export(self, path, weights, recipe):
        model = AutoencoderKL(self.model.config)
        model.load_state_dict(weights)
        normalise_latents(model, random_frames(512, torch.Generator().manual_seed(recipe.seed)))
        checkpoint.save_part(path, checkpoint.VAE, model.state_dict())


class TextObjective:
    """Read colour, shape and direction off every token from the end-of-text token on, as one can with CLIP's: then attention finds them anywhere."""

    TEMPLATES = ("a {} {} moving {}", "{} {} moving {}", "a {} {} that moves {}")

    def __init__(self, recipe: Recipe, cache: Path, device: torch.device):
        self.recipe, self.device = recipe, device
        self.text = TextEncoder(as_config(TextConfig, recipe.networks.text))
        self.words = words = (list(world.COLOURS), list(world.SHAPES), list(world.DIRECTIONS))
        self.heads = nn.ModuleList(nn.Linear(self.text.config.width, len(w)) for w in words)
        self.model = nn.ModuleDict({"text": self.text, "heads": self.heads}).to(device)

    def loss(self, generator):
        labels, prompts = [], []
        for _ in range(self.recipe.batch):
            ids = [int(torch.randint(len(w), (), generator=generator)) for w in self.words]
            template = self.TEMPLATES[int(torch.randint(len(self.TEMPLATES), (), generator=generator))]
            prompts.append(template.format(*(w[i] for w, i in zip(self.words, ids, strict=True))))
            labels.append(ids)
        tokens = self.text.tokenize(prompts).to(self.device)
        after = torch.arange(tokens.shape[1], device=self.device) >= tokens.argmax(1, keepdim=True)  # the end-of-text id is the largest
        features = self.text.encode_tokens(tokens)
        loss, right = torch.zeros((), device=self.device), []
        for head, target in zip(self.heads, torch.tensor(labels, device=self.device).T, strict=True):
            logits = head(features)[after]
            target = target[:, None].expand_as(after)[after]
            loss = loss + F.cross_entropy(logits, target)
            right.append((logits.argmax(-1) == target).float().mean())
        return loss, {"accuracy": float(torch.stack(right).mean())}

    def export(self, path, weights, recipe):
        state = {name.removeprefix("text."): t for name, t in weights.items() if name.startswith("text.")}
        checkpoint.save_part(path, checkpoint.TEXT, state)


def random_frames(count: int, generator: torch.Generator) -> Tensor:
    """Frames `[count, 3, 64, 64]` of random colour, shape and place."""
    colour = torch.randint(len(world.COLOURS), (count,), generator=generator)
    shape = torch.randint(len(world.SHAPES), (count,), generator=generator)
    return world.render(colour, shape, torch.randint(-world.REACH, world.REACH + 1, (count, 2), generator=generator))


@torch.no_grad()
def normalise_latents(model: AutoencoderKL, frames: Tensor) -> None:
    """Fold a scale and shift into `quant_conv` and `post_quant_conv` so that SCALE_FACTOR x mean has zero mean and unit variance per channel.

    Decoding is unchanged; the UNet's noise schedule gets the latents that it was made for.
    """
    mean = torch.cat([model.encode(part) for part in frames.split(64)]).chunk(2, 1)[0]
    shift, std = mean.mean((0, 2, 3)), mean.std((0, 2, 3))
    gain = 1 / (std * SCALE_FACTOR)
    z = len(shift)
    quant: dict[str, Any] = dict(model.quant_conv.named_parameters())
    post: dict[str, Any] = dict(model.post_quant_conv.named_parameters())
    quant["weight"][:z] *= gain[:, None, None, None]
    quant["bias"][:z] = (quant["bias"][:z] - shift) * gain
    quant["bias"][z:] += 2 * gain.log()
    post["bias"] += post["weight"][:, :, 0, 0] @ shift
    post["weight"] /= gain[None, :, None, None]


def load_autoencoder(path: Path | None) -> AutoencoderKL:
    state = checkpoint.load_part(path, checkpoint.VAE, "init.autoencoder")
    return checkpoint.assemble(AutoencoderKL(AutoencoderConfig.from_state_dict(state), device="meta"), state).eval()


def load_text(path: Path | None) -> TextEncoder:
    state = checkpoint.load_part(path, checkpoint.TEXT, "init.text")
    return checkpoint.assemble(TextEncoder(TextConfig.from_state_dict(state), device="meta"), state).eval()
