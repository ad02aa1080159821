"""The two objectives that the miniature needs and the paper does not: its autoencoder and its text tower, both from
nothing, on the procedural world.

They run in one process; their batches are drawn from (seed, step) like all others.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..files import checkpoint
from ..networks.autoencoder import SCALE_FACTOR, AutoencoderKL
from ..networks.config import AutoencoderConfig, TextConfig, as_config
from ..networks.text import TextEncoder
from .errors import RecipeError
from .objective import Objective
from .recipe import Recipe
from .rng import SAMPLE, torch_generator
from .sources import world
from .sources.paper import Paper
from .sources.paper_world import PaperWorld
from .sources.procedural import Procedural
from .sources.world import World


@dataclass
class Draw:
    """A batch that is yet to be drawn, from `generator`; nothing of the procedural world is ever broken."""

    generator: torch.Generator
    count: int
    skipped: tuple[str, ...] = ()

    def content(self) -> dict[str, object]:
        return {"generator": self.generator.get_state()}


class ProceduralObjective(Objective[Draw]):
    """Starts from no weights and reads no files."""

    def __init__(self, recipe: Recipe, device: torch.device):
        self.recipe, self.device = recipe, device
        self.fingerprints, self.identities = {}, {}

    def batches(self, first_step: int, rank: int, world: int) -> Generator[Draw, None, None]:
        if world > 1:
            raise RecipeError(
                f"{self.recipe.name}: the {self.recipe.objective} objective trains in one process, found {world}"
            )
        for step in range(first_step, self.recipe.steps):
            yield Draw(torch_generator(self.recipe.seed, SAMPLE, step), self.recipe.batch)


class AutoencoderObjective(ProceduralObjective):
    """L1 + MSE + a little KL on single frames; no adversary, since the world has no texture to invent."""

    KL_WEIGHT = 2e-4
    model: AutoencoderKL

    def __init__(self, recipe: Recipe, cache: Path, device: torch.device):
        super().__init__(recipe, device)
        self.model = AutoencoderKL(as_config(AutoencoderConfig, recipe.networks.autoencoder)).to(device)
        source = recipe.data.images
        if not isinstance(source, Procedural | Paper):
            raise RecipeError(
                f"{recipe.name}: data.images must be procedural or paper for the autoencoder objective, found {source}"
            )
        self.world: World | PaperWorld = source.open("images", cache)

    def frames(self, count: int, generator: torch.Generator) -> Tensor:
        """`[count, 3, 64, 64]` in -1..1, drawn from the world."""
        indices = torch.randint(len(self.world), (count,), generator=generator).tolist()
        return torch.cat([self.world.sample(index)[0] for index in indices]).float() / 127.5 - 1

    def loss(self, model: nn.Module, batch: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        x = self.frames(batch.count, batch.generator).to(self.device)
        side = world.SIZE // self.model.config.downsampling
        noise = torch.randn(len(x), self.model.config.embed_dim, side, side, generator=batch.generator).to(self.device)
        mean, log_variance = self.model.encode(x).chunk(2, 1)
        out = self.model.decode(mean + (0.5 * log_variance).exp() * noise)
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        mse = F.mse_loss(out, x)
        psnr = 10 * torch.log10(4 / mse.detach())
        return F.l1_loss(out, x) + mse + self.KL_WEIGHT * kl, {"psnr": psnr, "kl": kl.detach()}

    def export(self, folder: Path, weights: dict[str, Tensor], step: int) -> list[Path]:
        model = AutoencoderKL(self.model.config)
        model.load_state_dict(weights)
        normalise_latents(model, self.frames(512, torch_generator(self.recipe.seed)))
        return [checkpoint.save_part(folder / "model.safetensors", checkpoint.VAE, model.state_dict())]


class TextObjective(ProceduralObjective):
    """Read colour, shape and direction off every token from the end-of-text token on, as one can with CLIP's: then
    attention finds them anywhere.
    """

    TEMPLATES = ("a {} {} moving {}", "{} {} moving {}", "a {} {} that moves {}")
    ATTRIBUTES = (tuple(world.COLOURS), world.SHAPES, tuple(world.DIRECTIONS))

    def __init__(self, recipe: Recipe, cache: Path, device: torch.device):
        super().__init__(recipe, device)
        self.text = TextEncoder(as_config(TextConfig, recipe.networks.text))
        self.heads = nn.ModuleList(nn.Linear(self.text.config.width, len(names)) for names in self.ATTRIBUTES)
        self.model = nn.ModuleDict({"text": self.text, "heads": self.heads}).to(device)

    def loss(self, model: nn.Module, batch: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        def draw(count: int) -> int:
            return int(torch.randint(count, (), generator=batch.generator))

        labels, prompts = [], []
        for _ in range(batch.count):
            ids = [draw(len(names)) for names in self.ATTRIBUTES]
            template = self.TEMPLATES[draw(len(self.TEMPLATES))]
            prompts.append(template.format(*(names[i] for names, i in zip(self.ATTRIBUTES, ids, strict=True))))
            labels.append(ids)
        tokens = self.text.tokenize(prompts).to(self.device)
        end = tokens.argmax(1, keepdim=True)  # the end-of-text id is the largest
        after = torch.arange(tokens.shape[1], device=self.device) >= end
        features = self.text.encode_tokens(tokens)
        loss, accuracies = torch.zeros((), device=self.device), []
        for head, target in zip(self.heads, torch.tensor(labels, device=self.device).T, strict=True):
            logits = head(features)[after]
            target = target[:, None].expand_as(after)[after]
            loss = loss + F.cross_entropy(logits, target)
            accuracies.append((logits.argmax(-1) == target).float().mean())
        return loss, {"accuracy": torch.stack(accuracies).mean()}

    def export(self, folder: Path, weights: dict[str, Tensor], step: int) -> list[Path]:
        state = {name.removeprefix("text."): t for name, t in weights.items() if name.startswith("text.")}
        return [checkpoint.save_part(folder / "model.safetensors", checkpoint.TEXT, state)]


@torch.no_grad()
def normalise_latents(model: AutoencoderKL, frames: Tensor) -> None:
    """Fold a scale and shift into `quant_conv` and `post_quant_conv` so that SCALE_FACTOR x mean has zero mean and unit
    variance per channel.

    Decoding is unchanged; the UNet's noise schedule gets the latents that it was made for.
    """
    mean = torch.cat([model.encode(chunk) for chunk in frames.split(64)]).chunk(2, 1)[0]
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
