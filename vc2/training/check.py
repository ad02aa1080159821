"""`python -m vc2.training check`: everything that can be wrong with a run, found before it starts. And `recipes`: the
matrix.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch

from ..pipeline import Settings
from . import parallel
from .config import Recipe, RecipeError, Source, load_recipe
from .cost import estimate, memory
from .data.batches import MEDIA, Stream, random
from .data.procedural import World
from .data.sources import BrokenSample, SourceError
from .initialise import load_autoencoder, load_text, sampling_of, start_unet

PROBED = 8  # samples that are read of each source
GB = 1e9


def check(recipe: Recipe, cache: Path, processes: int = 1) -> Iterator[str]:
    """Lines of a report. Raises RecipeError at its end, with everything that is wrong, each as a run would say it."""
    yield f"{recipe.name}: {recipe.about or recipe.objective}"
    if recipe.objective != "diffusion":
        yield "ok: procedural data, fresh weights"
        return
    wrong: dict[str, None] = {}  # one cause may be met twice
    sources = [_source(recipe, medium, cache) for medium in MEDIA if getattr(recipe.data, medium)]
    for part in (*sources, _weights(recipe), _settings(recipe, processes), describe(recipe, processes)):
        try:
            yield from part
        except (ValueError, OSError) as error:
            wrong[str(error)] = None
    if len(wrong) > 1:
        raise RecipeError(f"{len(wrong)} things are wrong:" + "".join(f"\n- {message}" for message in wrong))
    if wrong:
        raise RecipeError(next(iter(wrong)))


def describe(recipe: Recipe, processes: int = 1) -> Iterator[str]:
    """Cost and memory in words. Raises RecipeError where they do not fit this machine's device, CheckpointError or
    OSError where the network is not known.
    """
    cost = estimate(recipe)
    noun = "image" if recipe.image_only else "clip"
    yield f"learns: {cost.learning / 1e6:.2f} M parameters, {cost.frozen / 1e6:.2f} M frozen"
    again, encode = (cost.flops - cost.model_flops) / 1e12, cost.encode_flops / 1e12
    yield f"compute: {cost.model_flops / 1e12:.1f} TFLOP a {noun}, forward and backward" + "".join(
        f", {more:.1f} {what}"
        for more, what in ((again, "again for gradient checkpointing"), (encode, "to encode it"))
        if more
    )
    yield f"in all: {cost.a100_hours:,.1f} A100-hours (at 40 % of 312 TFLOP/s)"
    need = memory(recipe, cost, processes) / GB
    yield (
        f"memory: about {need:.1f} GB a process on {processes}, of which {cost.static / GB:.1f} GB are weights and the"
        " optimizer's state"
    )
    if torch.cuda.is_available():
        room = torch.cuda.get_device_properties(0).total_memory / GB
        if need > room:
            raise RecipeError(
                f"this device has {room:.1f} GB and about {need:.1f} are needed; try compute.precision=bf16,"
                " compute.gradient_checkpointing=true, compute.micro_batch=1, learn.how=lora or"
                " optimizer.kind=adamw8bit"
            )


def _weights(recipe: Recipe) -> Iterator[str]:
    """Loads all that the recipe starts from, as a run would."""
    init = recipe.init
    autoencoder = load_autoencoder(init.autoencoder_file)
    load_text(init.text_file)
    start_unet(recipe)
    if recipe.samples.every:
        Settings.of({"sampling": json.dumps(sampling_of(recipe))}).check(autoencoder.config.downsampling)
    yield (
        f"weights: UNet from {init.unet or init.sd or 'nothing'}, autoencoder from {init.autoencoder_file}, text"
        f" encoder from {init.text_file}"
    )


def _settings(recipe: Recipe, processes: int) -> Iterator[str]:
    """What cannot run, and settings that may stand beside one another and are hardly meant so."""
    warmup = recipe.optimizer.warmup
    if warmup >= recipe.steps:
        yield (
            f"note: optimizer.warmup is {warmup} of {recipe.steps} steps, so the learning rate does not reach"
            f" {recipe.optimizer.lr:g}"
        )
    if recipe.samples.every and not recipe.samples.prompts:
        yield "note: samples.every is set, and samples.prompts is empty, so there will be no sample clips"
    parallel.require(recipe, processes)


def _source(recipe: Recipe, medium: str, cache: Path) -> Iterator[str]:
    """Reads some of a source."""
    stream = Stream(recipe, medium, cache)
    count = len(stream.listing)
    frames, low, high = stream.lengths[0]
    if isinstance(stream.listing, World):
        yield f"data.{medium}: {count} procedural samples"
        return
    broken = []
    for place in range(PROBED):
        try:
            stream.read(
                int(stream.order.kept[place * len(stream.order) // PROBED]),
                frames,
                (low, high),
                random(recipe.seed, place),
            )
        except BrokenSample as error:
            broken.append(str(error))
    if len(broken) == PROBED:
        raise SourceError(f"data.{medium}: none of {PROBED} samples could be used, the first: {broken[0]}")
    held = len(stream.order.held_out)
    yield (
        f"data.{medium}: {count} samples, {held} of them held out; {PROBED - len(broken)} of {PROBED} tried can be read"
        + "".join(f"\n  {b}" for b in broken)
    )


def matrix(folder: Path) -> Iterator[str]:
    """A line a recipe of `folder`, with what each needs."""
    header = (
        f"{'recipe':<18} {'starts from':<34} {'learns':<12} {'how':<8} {'data':<22} {'batch x steps':<14} {'size':<9}"
        " A100-hours"
    )
    yield header
    yield "-" * len(header)
    for path in sorted(folder.glob("*.yaml"), key=_rank):
        if path.stem.startswith("_"):
            continue
        recipe = load_recipe(path)
        if recipe.objective != "diffusion":
            yield f"{recipe.name:<18} {'nothing':<34} {recipe.objective:<12}"
            continue
        data = " + ".join(_kind(source) for source in (recipe.data.clips, recipe.data.images) if source)
        start = str(recipe.init.unet or recipe.init.sd or "nothing")
        cost = estimate(recipe).a100_hours
        size, work = f"{recipe.data.width}x{recipe.data.height}", f"{recipe.batch} x {recipe.steps}"
        how = recipe.learn.how + (f" {recipe.learn.rank}" if recipe.learn.how == "lora" else "")
        yield (
            f"{recipe.name:<18} {start:<34} {recipe.learn.part:<12} {how:<8} {data:<22} {work:<14} {size:<9}"
            f" {cost:,.1f}"
        )


def _rank(path: Path) -> tuple[bool, str]:
    return "base" not in path.stem, path.stem


def _kind(source: Source) -> str:
    return getattr(source, "kind", "") + (f" ({source.domain})" if hasattr(source, "domain") else "")
