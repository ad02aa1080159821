"""`python -m vc2.training check`: everything that can be wrong with a run, found before it starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from ..plural import plural
from . import cost, parallel
from .cards import CARDS, Card
from .cost import A100, figure
from .data.stream import Stream
from .encoders import check_sizes
from .errors import RecipeError
from .estimate import Estimate, computed, estimate, memory, propose
from .initialise import load_autoencoder, load_text, sampling_of, start_unet
from .recipe import Recipe
from .rng import numpy_generator
from .sources.source import BrokenSample, SourceError
from .validate import sample_settings

TRIED = 20  # samples that are read of each source; of so many, data.broken_share allows one by default
GB = 1e9
USED = 0.9  # of a card's memory; the rest is for CUDA itself, the workspaces of its kernels, and gaps


def check(recipe: Recipe, cache: Path, processes: int = 1, card: Card | None = None) -> Iterator[str]:
    """Lines of a report, with a proposal for `card`, or for this machine's. Raises RecipeError at its end, with
    everything that is wrong, each as a run would say it.
    """
    yield f"{recipe.name}: {recipe.about or recipe.objective}"
    if not recipe.of_the_unet:
        yield "ok: procedural data, fresh weights"
        return
    wrong: dict[str, None] = {}  # one cause may be met twice
    sources = [
        _source(recipe, medium, number, cache)
        for medium, section in recipe.data.sources.items()
        for number in range(len(section.members))
    ]
    for report in (*sources, _weights(recipe), _settings(recipe, processes), describe(recipe, processes, card)):
        try:
            yield from report
        except (ValueError, OSError) as error:
            wrong[str(error)] = None
    if len(wrong) > 1:
        raise RecipeError(f"{len(wrong)} things are wrong:" + "".join(f"\n- {message}" for message in wrong))
    if wrong:
        raise RecipeError(next(iter(wrong)))


def describe(recipe: Recipe, processes: int = 1, card: Card | None = None) -> Iterator[str]:
    """Cost and memory in words. Raises RecipeError where they do not fit this machine's device, or nothing would fit
    `card`; CheckpointError or OSError where the network is not known.
    """
    needs = estimate(recipe)
    yield f"learns: {needs.learning / 1e6:.2f} M parameters, {needs.frozen / 1e6:.2f} M frozen"
    compute = f"compute: {figure(needs.model_flops / 1e12)} TFLOP {'an image' if recipe.image_only else 'a clip'}"
    compute += ", forward and backward"
    if needs.flops > needs.model_flops:
        compute += f", {figure((needs.flops - needs.model_flops) / 1e12)} again for gradient checkpointing"
    if needs.encode_flops:
        compute += f", {figure(needs.encode_flops / 1e12)} to encode it"
    yield compute
    rate = f"{100 * cost.UTILISATION:.0f} % of {A100 / 1e12:.0f} TFLOP/s"
    yield f"in all: {figure(needs.a100_hours)} A100-hours (at {rate})"
    total = memory(recipe, needs, processes) / GB
    yield (
        f"memory: about {figure(total)} GB a process on {processes}, of which {figure(needs.static / GB)} GB are"
        " weights and the optimizer's state"
    )
    device = torch.cuda.get_device_properties(0).total_memory / GB if torch.cuda.is_available() else None
    if card or device:
        yield from proposals(recipe, needs, card or Card(device or 0.0, 0.0), processes)
    if device and not card and total > device:
        raise RecipeError(
            f"this device has {device:.1f} GB and about {total:.1f} are needed; see what is proposed, or try"
            " compute.precision=bf16, learn.how=lora or optimizer.kind=adamw8bit"
        )


def proposals(recipe: Recipe, needs: Estimate, card: Card, processes: int) -> Iterator[str]:
    """How to compute on a card, and what that costs: as the recipe says, or by what is to be changed in it."""
    room = USED * card.memory * GB
    best = propose(recipe, needs, room, processes)
    name = next((name for name, known in CARDS.items() if known == card), f"{card.memory:.0f} GB")
    if best is None:
        least = memory(computed(recipe, True, 1), needs, processes) / GB
        raise RecipeError(
            f"{name}: nothing fits. The least is {figure(least)} GB, with compute.gradient_checkpointing=true"
            f" compute.micro_batch=1, for which a card must have {figure(least / USED)}: {USED:.0%} of it may be used."
            " Try compute.precision=bf16, learn.how=lora, optimizer.kind=adamw8bit, or compute.sharding=full on more"
            " processes"
        )

    def hours_in_words(hours: float) -> str:
        text = f"{figure(hours)} A100-hours in all"
        return text + (f", {figure(hours * A100 / card.peak)} hours of this card" if card.peak not in (0, A100) else "")

    size = memory(recipe, needs, processes)
    changes = _changes(recipe, best.recipe, needs.levels, processes)
    as_it_is = f"{figure(size / GB)} GB a process of {figure(room / GB)} that may be used"
    proposed = f"{' '.join(changes)}; about {figure(best.bytes / GB)} GB a process, {hours_in_words(best.a100_hours)}"
    if not changes:
        yield f"{name}: fits as it is, about {as_it_is}, {hours_in_words(best.a100_hours)}"
    elif size <= room:
        yield f"{name}: fits as it is, about {as_it_is}, {hours_in_words(needs.a100_hours)}"
        yield f"{name}: makes more of the card: {proposed}"
    else:
        yield f"{name}: does not fit as it is, about {as_it_is}; proposed: {proposed}"


def _changes(recipe: Recipe, other: Recipe, levels: int, processes: int) -> list[str]:
    """What in `compute` makes `other` of the recipe, as overrides; none for the same computation in other words."""
    then, now = recipe.compute, other.compute
    changes = []
    if cost.checkpointed(recipe, levels) != cost.checkpointed(other, levels):
        where = now.gradient_checkpointing
        value = str(where).lower() if isinstance(where, bool) else str(list(where)).replace(" ", "")
        changes.append(f"compute.gradient_checkpointing={value}")
    share = max(1, recipe.batch // processes)
    if (then.micro_batch or share) != (now.micro_batch or share):
        changes.append(f"compute.micro_batch={now.micro_batch or 'null'}")
    return changes


def _weights(recipe: Recipe) -> Iterator[str]:
    """Loads all that the recipe starts from, as a run would."""
    init = recipe.init
    autoencoder = load_autoencoder(init.autoencoder_file)
    load_text(init.text_file)
    start_unet(recipe)
    check_sizes(recipe, autoencoder.config.downsampling)
    sampling_of(recipe)
    if recipe.samples.every:
        sample_settings(recipe, autoencoder.config.downsampling)
    yield (
        f"weights: UNet from {init.unet or init.sd or 'nothing'}, autoencoder from {init.autoencoder_file}, text"
        f" encoder from {init.text_file}"
    )


def _settings(recipe: Recipe, processes: int) -> Iterator[str]:
    """What cannot run, and settings that are allowed together and hardly meant so."""
    warmup = recipe.optimizer.warmup
    if warmup >= recipe.steps:
        yield (
            f"note: optimizer.warmup is {warmup} of {recipe.steps} steps, so the learning rate does not reach"
            f" {recipe.optimizer.lr:g}"
        )
    if recipe.samples.every and not recipe.samples.prompts:
        yield "note: samples.every is set, and samples.prompts is empty, so there will be no sample clips"
    parallel.require(recipe, processes)


def _source(recipe: Recipe, medium: str, number: int, cache: Path) -> Iterator[str]:
    """Reads some samples of a source, spread over it. Raises SourceError where too many of them cannot be used: more
    than `data.broken_share` of a source that was tried whole, more than half of what was tried of a larger one.
    """
    stream = Stream(recipe, medium, cache, number=number)
    frames, low, high = stream.lengths[0]
    tried, broken = min(TRIED, len(stream.order)), []
    for k in range(tried):
        index = stream.order.training(k * len(stream.order) // tried)
        try:
            stream.read(index, frames, (low, high), numpy_generator(recipe.seed, k))
        except BrokenSample as error:
            broken.append(str(error))
    count, held_out = len(stream.source), len(stream.order.held_out)
    yield f"{stream.name}: {plural(count, f'{stream.section.kind} sample')}, of which {held_out} held out"
    unusable = f"{stream.name}: {len(broken)} of the {tried} samples that were tried cannot be used"
    reasons = "".join(f"\n  {reason}" for reason in broken)
    if tried < len(stream.order):  # a few of many: their share says little, unless it is most of them
        allowed, limit = 0.5, "half of what was tried"
    else:
        allowed = recipe.data.broken_share
        limit = f"data.broken_share ({allowed:.0%}) allows"
    if len(broken) > allowed * tried:
        raise SourceError(f"{unusable}, more than {limit}:{reasons}")
    yield f"{unusable}:{reasons}" if broken else f"{stream.name}: {plural(tried, 'sample')} tried, all can be used"
