"""The batches of a run. What is in the batch of a step follows from (recipe, step) alone.

So a run resumes at any step without replaying what came before, and any number of processes, each taking its share of
the slots of a step, reads together exactly what one process would: every sample once an epoch, none twice.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..recipe import Recipe
from ..sources.source import Sample
from .plan import Plan, Step
from .readers import read_ahead


class AnyStream(Protocol):
    """Where the samples of a medium come from."""

    def shares(self) -> list[float]:
        """The share of each bucket in its samples."""

    def draw(self, step: Step, slot: int) -> Sample:
        """The sample of a slot."""


@dataclass
class Batch:
    """One process's share of a step, or a micro-batch of it. `slots` are its samples' places in the whole step.

    `frames` `[B, T, 3, H, W]` (uint8 pixels) or `[B, T, 8, h, w]` (moments), `fps` `[B]` (integers), `text`
    `[B, 77, D]` or None.
    """

    step: Step
    slots: list[int]
    frames: Tensor
    captions: list[str]
    fps: Tensor
    text: Tensor | None
    skipped: list[str]

    @classmethod
    def of(cls, samples: list[Sample], step: Step, slots: list[int]) -> Batch:
        texts = [sample.text for sample in samples if sample.text is not None]
        return cls(
            step=step,
            slots=slots,
            frames=torch.stack([sample.frames for sample in samples]),
            captions=[sample.caption for sample in samples],
            fps=torch.tensor([int(sample.fps) for sample in samples]),
            text=torch.stack(texts) if texts else None,
            skipped=[reason for sample in samples for reason in sample.skipped],
        )

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
        text = None if self.text is None else self.text.pin_memory()
        return replace(self, frames=self.frames.pin_memory(), text=text)

    def split(self, size: int) -> list[Batch]:
        """Micro-batches of at most `size` samples."""
        return [
            replace(
                self,
                slots=self.slots[k : k + size],
                frames=self.frames[k : k + size],
                captions=self.captions[k : k + size],
                fps=self.fps[k : k + size],
                text=None if self.text is None else self.text[k : k + size],
            )
            for k in range(0, len(self), size)
        ]


class StepDataset(Dataset):
    """(step, slot) -> (its step, slot, its sample), for a DataLoader."""

    def __init__(self, plan: Plan, streams: Mapping[str, AnyStream]):
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
    return Batch.of([sample for _, _, sample in items], items[0][0], [slot for _, slot, _ in items])


def load_batches(
    recipe: Recipe, streams: Mapping[str, AnyStream], start: int, rank: int, world: int, pin: bool
) -> Generator[Batch, None, None]:
    """This process's batches of the steps from `start` on, read ahead by `data.workers` processes."""
    plan = Plan(recipe, {medium: stream.shares() for medium, stream in streams.items()})
    workers = recipe.data.workers
    return read_ahead(
        StepDataset(plan, streams),
        workers,
        batch_sampler=Shares(plan, start, recipe.steps, rank, world),
        collate_fn=collate,
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
    )
