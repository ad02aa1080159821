"""What a recipe needs: compute, and memory of each process."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from . import cost
from .counting import Kept, kept_activations, network, peak
from .recipe import Recipe
from .recipe_sections import Compute

ENOUGH = 8  # frames that occupy a GPU


@dataclass(frozen=True)
class Estimate:
    """Of one sample, and what a process holds. A sample is a clip, or an image on image-only data; bytes are for one
    process that holds everything.
    """

    learning: int  # parameters
    frozen: int
    flops: float  # forward and backward, with what gradient checkpointing computes again
    model_flops: float  # without; what MFU counts
    encode_flops: float  # the autoencoder's; 0 where latents are prepared
    a100_hours: float  # of the whole run
    unet: float  # bytes: weights (with autocast's copies), gradients, optimizer, average
    teacher: float  # bytes: of a second network that does not learn, whole in every process
    encoders: float  # bytes: autoencoder and text encoder
    kept: tuple[Kept, ...]  # bytes that a sample's activations take, layer by layer
    levels: int  # of the UNet

    @property
    def static(self) -> float:
        return self.unet + self.teacher + self.encoders


def estimate(recipe: Recipe) -> Estimate:
    """Raises CheckpointError where a file that the recipe starts from cannot be read."""
    config, data, bf16 = cost.unet_config(recipe), recipe.data, recipe.compute.precision == "bf16"
    unet = network(recipe, config)
    learning = sum(p.numel() for p in unet.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in unet.parameters() if not p.requires_grad)
    bytes_frozen = frozen * (2 if bf16 else 4)
    if recipe.compute.frozen == "int8":
        eight = sum(m.weight.numel() for m in unet.modules() if isinstance(m, nn.Linear) and not m.weight.requires_grad)
        bytes_frozen -= eight * (1 if bf16 else 3)
    teacher = 0.0
    if cost.holds_teacher(recipe):
        teacher = bytes_frozen if recipe.learn.how == "lora" else (learning + frozen) * (2 if bf16 else 4)
    state = 2 if recipe.optimizer.kind == "adamw8bit" else 8
    # Parameters of kl-f8 and of ViT-H/14's text tower, which every model of this width comes with.
    vae, text = (83.7e6, 354e6) if config.context_dim == 1024 else (0.0, 0.0)
    return Estimate(
        learning=learning,
        frozen=frozen,
        flops=cost.sample_flops(recipe, config, recipe.longest),
        model_flops=cost.sample_flops(recipe, config, recipe.longest, again=False),
        encode_flops=cost.encode_flops(recipe, data.clips or data.images, recipe.longest),
        a100_hours=cost.a100_hours(recipe),
        unet=learning * (4 + (2 if bf16 else 0) + 4 + state + 4) + bytes_frozen,
        teacher=teacher,
        encoders=vae * 4 + text * (2 if bf16 else 4),
        kept=tuple(kept_activations(unet, recipe.longest, data.height // 8, data.width // 8, bf16)),
        levels=len(config.channel_mult),
    )


def memory(recipe: Recipe, needs: Estimate, processes: int = 1) -> float:
    """Bytes that a process needs at its most, about: what it holds, and the activations of a micro-batch."""
    micro = recipe.compute.micro_batch or max(1, recipe.batch // processes)
    unet = needs.unet / processes if recipe.compute.sharding == "full" else needs.unet
    activations = peak(needs.kept, cost.checkpointed(recipe, needs.levels))
    return unet + needs.teacher + needs.encoders + micro * activations


@dataclass(frozen=True)
class Proposal:
    """How a recipe is computed on a card, and what it then takes."""

    recipe: Recipe
    bytes: float
    a100_hours: float


def computed(recipe: Recipe, checkpointing: bool | list[int], micro: int | None) -> Recipe:
    """The recipe with another checkpointing and micro-batch."""
    changes = {"gradient_checkpointing": checkpointing, "micro_batch": micro}
    compute = Compute.model_validate(recipe.compute.model_dump() | changes)
    return recipe.model_copy(update={"compute": compute})


def propose(recipe: Recipe, needs: Estimate, room: float, processes: int = 1) -> Proposal | None:
    """The micro-batch and checkpointing with which the recipe computes least, and then takes the fewest passes, in
    `room` bytes; None where nothing fits. A pass over fewer than ENOUGH frames, which leaves most of a GPU idle, is the
    last resort.
    """
    share = max(1, recipe.batch // processes)
    sizes = [micro for micro in range(share, 0, -1) if share % micro == 0]
    best: tuple[tuple[bool, float, int], Proposal] | None = None
    for deepest in range(needs.levels + 1):
        # From full resolution on: its activations are the largest for what computing them again costs.
        where = bool(deepest) if deepest in (0, needs.levels) else list(range(deepest))
        for micro in sizes:
            tried = computed(recipe, where, None if micro == share else micro)
            size = memory(tried, needs, processes)
            if size > room:
                continue
            hours = cost.a100_hours(tried)
            rank = (micro * recipe.longest < min(ENOUGH, share * recipe.longest), hours, -micro)
            if best is None or rank < best[0]:
                best = (rank, Proposal(tried, size, hours))
            break  # fewer samples at once would be worse
    return best[1] if best else None
