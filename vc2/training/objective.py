"""What is minimised. An objective owns the network that learns, reads the batch of a step, and computes its loss.

There are four: the paper's (`diffusion`), the one that makes a model of few steps of another (`consistency`), and the
two that the miniature needs because it has no Stable Diffusion to start from (`miniature`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from accelerate import Accelerator
from torch import Tensor, nn


class AnyBatch(Protocol):
    """What the loop knows of a process's share of a step."""

    @property
    def count(self) -> int:
        """Samples of the whole step, over all processes."""

    @property
    def skipped(self) -> Sequence[str]:
        """Why samples could not be used, in whose place others were read."""

    def content(self) -> dict[str, object]:
        """All that torch.save takes, to look at where the step fails."""


class SampleClip(NamedTuple):
    """`name` has no ending; frames are uint8 `[H, W, 3]`, so many a second."""

    name: str
    frames: list[np.ndarray]
    fps: float


B = TypeVar("B", bound=AnyBatch)


class Objective(ABC, Generic[B]):
    """What the loop asks of an objective. Networks are on their device from the start."""

    model: nn.Module  # what learns
    fingerprints: dict[str, str]  # of the weights that it begins with, by their key in `init`
    identities: dict[str, str]  # of its sources' data, by medium

    @abstractmethod
    def batches(self, first_step: int, rank: int, world: int) -> Generator[B, None, None]:
        """This process's share of the batches from a step on. Who does not read to the end closes it."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: B) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss of a micro-batch through `model` (the network, perhaps wrapped), and figures to log."""

    @abstractmethod
    def export(self, folder: Path, weights: dict[str, Tensor], step: int) -> list[Path]:
        """Write the trained weights as files that the next recipe, or ComfyUI, loads."""

    def export_lora(self, target: Path, weights: dict[str, Tensor], step: int) -> Path:
        """Write the adapters alone. For objectives that train some."""
        raise NotImplementedError

    def files(self, medium: str) -> str:
        """The identity of a medium's data as 0.2.0 recorded it: by where it lies, and since when."""
        return self.identities[medium]

    def split(self, batch: B) -> list[B]:
        """The micro-batches that are computed one after another."""
        return [batch]

    def flops(self, batch: B) -> float:
        """What the network's forward and backward passes of the whole step need; 0 where nobody has counted."""
        return 0.0

    def validate(self, model: nn.Module, accelerator: Accelerator) -> dict[str, float]:
        """Losses on held-out samples, empty where there are none: of each medium by its name, and in more detail."""
        return {}

    def validation(self) -> str | None:
        """What the losses of `validate` are of, as a fingerprint: only those of one and the same compare. None where
        there are none.
        """
        return None

    def sample(self, model: nn.Module, accelerator: Accelerator) -> Iterator[SampleClip]:
        """What the model makes now, this process's share. Every process must take all of it."""
        return iter(())

    def preview(self, batch: B, folder: Path) -> None:
        """Write a batch as the network gets it, for people to look at."""
