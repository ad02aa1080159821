"""The batches of a run. What is in the batch of a step follows from (recipe, step) alone.

So a run resumes at any step without replaying what came before, and any number of processes, each taking its share of
the slots of a step, reads together exactly what one process would: every sample once an epoch, none twice.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..config import Procedural, Recipe
from . import media
from .cache import Prepared
from .procedural import SOURCE_FPS, World
from .sources import BrokenSample, Listing, SourceError, open_listing

MEDIA = ("clips", "images")
ANSWERED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)  # by the trainer, and by no reader
TRIES = 20  # samples to read in place of a broken one before giving up
SHUFFLED_BLOCKS = 16  # tars whose samples are mixed with one another; a process has few files open at a time
# What a stream of random numbers is for: numbers of one stream say nothing about those of another.
PLAN, ORDER, SAMPLE, SPARE, NOISE, VALIDATION = range(6)


def random(*key: int) -> np.random.Generator:
    """The stream of random numbers that belongs to `key`."""
    return np.random.default_rng(key)


def torch_generator(*key: int) -> torch.Generator:
    """As `random`, for torch's distributions; on the CPU, so that every device gets the same numbers."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))


@dataclass(frozen=True)
class Step:
    """What a step reads: `count` samples of its medium's stream from position `first` on."""

    index: int
    medium: str
    frames: int
    strides: tuple[int, int]
    first: int
    count: int


class Plan:
    """Every step's kind: clips or images, how long, and where in the stream. The same on every process."""

    CHUNK = 4096

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.chunks: list[list[Step]] = []
        self.read = dict.fromkeys(MEDIA, 0)

    def __getitem__(self, step: int) -> Step:
        while len(self.chunks) * self.CHUNK <= step:
            self.chunks.append(self._chunk(len(self.chunks)))
        return self.chunks[step // self.CHUNK][step % self.CHUNK]

    def _chunk(self, number: int) -> list[Step]:
        recipe, rng, out = self.recipe, random(self.recipe.seed, PLAN, number), []
        for k in range(self.CHUNK):
            frames, low, high = recipe.data.lengths[int(rng.integers(len(recipe.data.lengths)))]
            image = rng.random() < recipe.image_share(frames)
            # As many images as the clips of a step would have frames, except where there are no clips.
            count = recipe.batch * (1 if recipe.image_only or not image else frames)
            medium = "images" if image else "clips"
            out.append(
                Step(
                    number * self.CHUNK + k,
                    medium,
                    1 if image else frames,
                    (1, 1) if image else (low, high),
                    self.read[medium],
                    count,
                )
            )
            self.read[medium] += count
        return out


class Order:
    """Epoch after epoch, a shuffled run over the indices of a listing, those held out for validation aside."""

    def __init__(self, count: int, held_out: int, seed: int, blocks: Sequence[int] | None = None):
        held = min(held_out, count // 10)
        self.held_out = (
            np.unique(np.linspace(0, count - 1, held).round().astype(np.int64)) if held else np.empty(0, np.int64)
        )
        self.kept = np.setdiff1d(np.arange(count), self.held_out, assume_unique=True)
        self.seed = seed
        self.ends = np.searchsorted(self.kept, np.cumsum(blocks)) if blocks is not None else None
        self._shuffled: tuple[int, np.ndarray] = (-1, self.kept)

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, len(self.kept))
        if epoch != self._shuffled[0]:
            self._shuffled = epoch, self._shuffle(epoch)
        return int(self._shuffled[1][place])

    def _shuffle(self, epoch: int) -> np.ndarray:
        rng = random(self.seed, ORDER, epoch)
        if self.ends is None:
            return rng.permutation(self.kept)
        blocks = np.split(self.kept, self.ends[:-1])
        blocks = [blocks[i] for i in rng.permutation(len(blocks))]
        groups = [np.concatenate(blocks[i : i + SHUFFLED_BLOCKS]) for i in range(0, len(blocks), SHUFFLED_BLOCKS)]
        return np.concatenate([rng.permutation(group) for group in groups])


@dataclass
class Sample:
    """`frames`: uint8 pixels `[T, 3, H, W]`, or latent moments `[T, 8, h, w]` of a prepared source, then `text` may
    hold the caption's features `[77, D]`.
    """

    frames: Tensor
    caption: str
    fps: float
    text: Tensor | None = None
    skipped: list[str] = field(default_factory=list)


@dataclass
class Batch:
    """One process's share of a step, or a part of it. `slots` are its samples' places in the whole step."""

    step: Step
    slots: list[int]
    frames: Tensor
    captions: list[str]
    fps: Tensor
    text: Tensor | None
    skipped: list[str]

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def count(self) -> int:
        """Samples of the whole step, over all processes."""
        return self.step.count

    def content(self) -> dict[str, object]:
        """What it holds, to look at."""
        return {name: value for name, value in vars(self).items() if name != "step"}

    def pin_memory(self) -> Batch:
        return replace(
            self, frames=self.frames.pin_memory(), text=None if self.text is None else self.text.pin_memory()
        )

    def split(self, size: int) -> list[Batch]:
        """Parts of at most `size` samples. What was skipped is reported with the first."""
        out = []
        for k in range(0, len(self), size):
            part = slice(k, k + size)
            text = None if self.text is None else self.text[part]
            out.append(
                Batch(
                    self.step,
                    self.slots[part],
                    self.frames[part],
                    self.captions[part],
                    self.fps[part],
                    text,
                    self.skipped if k == 0 else [],
                )
            )
        return out


class Stream:
    """One medium's samples: reads them, and reads others in place of broken ones."""

    def __init__(self, recipe: Recipe, medium: str, cache: Path, networks: dict[str, str] | None = None):
        self.recipe, self.medium = recipe, medium
        source = getattr(recipe.data, medium)
        self.listing: Listing | World | Prepared
        if isinstance(source, Procedural):
            self.listing = World(source.domain, medium, source.count)
        else:
            self.listing = open_listing(source, medium, cache / "index")
        if source.prepared != "no" and networks is not None:
            self.listing = Prepared.find(recipe, medium, self.listing.identity(), cache, networks)
        self.order = Order(len(self.listing), recipe.data.held_out, recipe.seed, self.listing.blocks)
        if not len(self.order):
            raise SourceError(f"data.{medium}: the source is empty")

    @property
    def lengths(self) -> tuple[tuple[int, int, int], ...]:
        """As `data.lengths`; images are clips of one frame."""
        return self.recipe.data.lengths if self.medium == "clips" else ((1, 1, 1),)

    def read(self, index: int, frames: int, strides: tuple[int, int], rng: np.random.Generator) -> Sample:
        """The sample of an index, its stride, start and crop drawn from `rng`. Raises BrokenSample."""
        data, uniform, place = self.recipe.data, (rng.random(), rng.random()), (rng.random(), rng.random())
        place = place if data.crop == "random" else (0.5, 0.5)
        listing = self.listing
        if isinstance(listing, Prepared):
            stored = listing.sample(index)
            stride, first = media.choose_frames(
                len(stored.frames), frames, (1, 1) if stored.frozen else strides, uniform
            )
            chosen = stored.frames[first::stride][:frames]
            return Sample(chosen, stored.caption, stored.fps / stride, stored.text)
        if isinstance(listing, World):
            pixels, caption = listing.sample(index)
            stride, first = media.choose_frames(len(pixels), frames, strides, uniform)
            return Sample(self.fit(pixels[first::stride][:frames]), caption, SOURCE_FPS / stride)
        try:
            record = listing.record(index)
            if self.medium == "images":
                return Sample(
                    media.fit(media.read_image(record), data.width, data.height, place)[None], record.caption, 0.0
                )
            clip, fps = media.read_clip(record, frames, strides, uniform, data.width, data.height, place)
        except OSError as error:
            raise BrokenSample(f"data.{self.medium}, sample {index}, could not be read: {error}") from error
        return Sample(clip, record.caption, fps)

    def fit(self, pixels: Tensor) -> Tensor:
        """Frames of the procedural world, uint8 `[T, 3, 64, 64]`, in the recipe's size."""
        data = self.recipe.data
        return torch.stack(
            [media.fit(frame.permute(1, 2, 0).numpy(), data.width, data.height, (0.5, 0.5)) for frame in pixels]
        )

    def draw(self, step: Step, slot: int) -> Sample:
        """The sample of a slot. One that is broken is skipped, and its name kept, in favour of another. Raises
        SourceError when that does not end.
        """
        recipe, kind, position = self.recipe, MEDIA.index(self.medium), step.first + slot
        index, skipped = self.order[position], []
        for attempt in range(TRIES):
            rng = random(recipe.seed, SAMPLE, kind, position, attempt)
            try:
                sample = self.read(index, step.frames, step.strides, rng)
            except BrokenSample as error:
                skipped.append(str(error))
                index = int(
                    self.order.kept[random(recipe.seed, SPARE, kind, position, attempt).integers(len(self.order))]
                )
                continue
            if self.medium == "images":
                low, high = recipe.diffusion.image_fps
                sample.fps = int(rng.integers(low, high + 1))
            if rng.random() < recipe.data.caption_dropout:
                sample.caption, sample.text = (
                    "",
                    self.listing.empty_text if isinstance(self.listing, Prepared) else None,
                )
            return replace(sample, skipped=skipped)
        raise SourceError(f"data.{self.medium}: {TRIES} samples in a row could not be used, the last: {skipped[-1]}")

    def held_out(self, count: int) -> list[Sample]:
        """Samples that are never trained on, read alike every time; broken ones are left out."""
        frames, low, high = self.lengths[0]
        out: list[Sample] = []
        for index in self.order.held_out.tolist():
            if len(out) == count:
                break
            try:
                sample = self.read(index, frames, (low, high), random(self.recipe.seed, VALIDATION, index))
            except BrokenSample:
                continue  # counted where it is trained on
            if self.medium == "images":
                sample.fps = sum(self.recipe.diffusion.image_fps) // 2
            out.append(sample)
        return out


class StepDataset(Dataset):
    """(step, slot) -> Sample, for a DataLoader."""

    def __init__(self, plan: Plan, streams: dict[str, Stream]):
        self.plan, self.streams = plan, streams

    def __getitem__(self, key: tuple[int, int]) -> tuple[Step, int, Sample]:
        step = self.plan[key[0]]
        return step, key[1], self.streams[step.medium].draw(step, key[1])


class Shares:
    """From step `start` to before `stop`, the keys of the slots that belong to process `rank` of `world`."""

    def __init__(self, plan: Plan, start: int, stop: int, rank: int, world: int):
        self.plan, self.start, self.stop, self.rank, self.world = plan, start, stop, rank, world

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.stop):
            share = self.plan[step].count // self.world
            yield [(step, slot) for slot in range(self.rank * share, (self.rank + 1) * share)]


def collate(items: list[tuple[Step, int, Sample]]) -> Batch:
    samples = [sample for _, _, sample in items]
    return Batch(
        step=items[0][0],
        slots=[slot for _, slot, _ in items],
        frames=torch.stack([sample.frames for sample in samples]),
        captions=[sample.caption for sample in samples],
        fps=torch.tensor([round(sample.fps) for sample in samples]),
        text=torch.stack([sample.text for sample in samples]) if samples[0].text is not None else None,  # type: ignore[misc]
        skipped=[name for sample in samples for name in sample.skipped],
    )


def load_batches(
    recipe: Recipe, streams: dict[str, Stream], start: int, rank: int, world: int, pin: bool
) -> Iterator[Batch]:
    """This process's batches of the steps from `start` on, read ahead by `data.workers` processes."""
    plan, workers = Plan(recipe), recipe.data.workers
    loader = DataLoader(
        StepDataset(plan, streams),
        batch_sampler=Shares(plan, start, recipe.steps, rank, world),
        collate_fn=collate,
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
        worker_init_fn=quiet,
    )
    return iter(loader)


def quiet(_: int) -> None:
    """Signals are the trainer's to answer: it finishes the step, saves and stops its readers. Launchers and terminals
    send them to readers too.
    """
    for name in ANSWERED:
        signal.signal(name, signal.SIG_IGN)
