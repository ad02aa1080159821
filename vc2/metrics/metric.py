"""What every metric is: names, a file that the user supplies, and how a clip becomes numbers."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import numpy as np

from .. import __version__

Better = Literal["higher", "lower", "neither"]
WEIGHTS = "VC2_WEIGHTS"  # the environment's name for the folder in which users put the files of metrics
OWN = f"comfyui-videocrafter2 {__version__}"


@dataclass(frozen=True)
class Clip:
    """Frames uint8 `[T, H, W, 3]`, how many of them are shown a second, and what was asked for ("" if unknown).

    `path` is the file that holds exactly these frames, None where there is none.
    """

    frames: np.ndarray
    fps: float
    prompt: str = ""
    path: Path | None = None


@dataclass(frozen=True)
class Measure:
    """One number: a row's `metric`, what it measures (a line), and which way is better."""

    name: str
    about: str
    better: Better


class NotApplicableError(Exception):
    """This clip has no such number (no face is in it, one frame does not move); the message says what is missing."""


class Metric(ABC):
    """A file of `vc2.metrics`. Making one is cheap; models are loaded when the first clip is measured."""

    name: str
    measures: tuple[Measure, ...]
    table: str = ""  # of the paper (or its supplement) that uses it
    library: tuple[str, ...] = ()  # distributions that it needs, none being this one alone
    modules: tuple[str, ...] = ()  # what they are imported as
    licence: str = "Apache-2.0"
    extra: str = "evaluation"  # of this distribution, that brings the library
    file: str = ""  # name of the file that the user puts into the folder of weights
    preprocessing: str = "frames as decoded"
    kind: Literal["clip", "corpus", "composite"] = "clip"
    least: int = 1  # clips
    warning: str = ""  # a known defect, or what the number must not be taken for

    def close(self) -> None:  # noqa: B027 (most have started nothing)
        """Let go of what was started to measure; the next clip starts it again."""

    def measure_names(self) -> list[str]:
        return [measure.name for measure in self.measures]

    def available(self) -> str | None:
        """Why it cannot be computed here, or None where it can."""
        missing = [
            name
            for name, module in zip(self.library, self.modules, strict=True)
            if not importlib.util.find_spec(module)
        ]
        if missing:
            return f"{' and '.join(missing)} not installed (pip install comfyui-videocrafter2[{self.extra}])"
        if self.file and not self.weights_file:
            folder = os.environ.get(WEIGHTS)
            return f"{self.file} not in {folder}" if folder else f"needs {self.file}; name its folder in --weights"
        return None

    @property
    def weights_file(self) -> Path | None:
        """The user's file, where it is."""
        folder = os.environ.get(WEIGHTS)
        path = Path(folder, self.file) if folder and self.file else None
        return path if path and path.is_file() else None

    @property
    def needed_file(self) -> Path:
        """The same, for whom cannot do without. Raises FileNotFoundError."""
        path = self.weights_file
        if path is None:
            raise FileNotFoundError(f"{self.name}: {self.available()}")
        return path

    @property
    def weights_hash(self) -> str | None:
        """SHA-256 of the weights, None for a metric without any."""
        return file_hash(self.weights_file) if self.weights_file else None

    @property
    def implementation(self) -> str:
        """Libraries with their versions; that of this package is always among them, as it prepares the frames."""
        return ", ".join([*map(_versioned, self.library), OWN])


def moving(clip: Clip, frames: int = 2) -> np.ndarray:
    """The frames of a clip. Raises NotApplicableError where they are fewer than that."""
    if len(clip.frames) < frames:
        raise NotApplicableError(f"it takes {frames} frames, and the clip has {len(clip.frames)}")
    return clip.frames


class ClipMetric(Metric):
    """Numbers of one clip."""

    @abstractmethod
    def measure(self, clip: Clip) -> Mapping[str, float]:
        """Finite numbers by names of `measures`. Raises NotApplicableError for a clip that has none."""


class CorpusMetric(Metric):
    """Numbers of at least `least` clips together, and of as many of a reference where `needs_reference`."""

    kind: Literal["clip", "corpus", "composite"] = "corpus"
    needs_reference: bool = False
    extractor: str  # names what `features` gives; metrics of one extractor share them

    @abstractmethod
    def features(self, clip: Clip) -> np.ndarray:
        """What is looked at of a clip, `[rows, D]`. Raises NotApplicableError."""

    @abstractmethod
    def measure(self, features: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> Mapping[str, float]:
        """Finite numbers by names of `measures`, from the features of each clip and of each of the reference's."""


class Composite(Metric):
    """Numbers made of the means of other measures over a set."""

    kind: Literal["clip", "corpus", "composite"] = "composite"
    parts: tuple[str, ...] = ()  # names of measures

    @abstractmethod
    def measure(self, means: Mapping[str, float]) -> Mapping[str, float]:
        """Finite numbers by names of `measures`, from the mean of each of `parts`."""


def file_hash(path: Path) -> str:
    """SHA-256, in hexadecimal digits; of a file that stays as it is it is made once."""
    status = path.stat()
    return _file_hash(path, status.st_mtime_ns, status.st_size)


@lru_cache(10_000)
def _file_hash(path: Path, changed: int, size: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


@lru_cache
def _versioned(distribution: str) -> str:
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return distribution
