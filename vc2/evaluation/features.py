"""Features of clips on disk, so that a distance between sets that was interrupted need not look at every clip again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from ..files.output import whole


class Features:
    """A folder of `.npy` files; it can be deleted at any time."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, *what: str | None) -> Path:
        """The file for (clip, control, extractor, ...)."""
        return self.folder / f"{hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]}.npy"

    def load(self, path: Path) -> np.ndarray:
        return np.load(path, allow_pickle=False)

    def save(self, path: Path, features: np.ndarray) -> None:
        """Whole or not at all."""
        with whole(path) as temporary:
            np.save(temporary, features, allow_pickle=False)
