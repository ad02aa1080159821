"""Arrays in files that all processes of a machine map."""

from __future__ import annotations

from pathlib import Path

import numpy as np


class Mapped:
    """A one-dimensional array in a file of its bytes. A process to which it is sent maps the file too."""

    def __init__(self, path: Path, dtype: np.dtype):
        self.path, self.dtype = path, dtype
        # Nothing can be mapped of an empty file.
        self.array = np.memmap(path, dtype, "r") if path.stat().st_size else np.empty(0, dtype)

    def __reduce__(self) -> tuple:
        return Mapped, (self.path, self.dtype)

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index):
        return self.array[index]
