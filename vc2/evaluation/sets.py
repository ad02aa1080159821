"""A set: a folder of clips of one model, named `<prompt id>-<seed>.mp4`.

`generate` writes `manifest.json` beside the clips; a folder of any other model's clips, which has none, is a set too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
SCORES = "scores.jsonl"  # lies beside the clips, unless another place is named
ENDINGS = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".gif")


@dataclass(frozen=True)
class ClipFile:
    """A clip of a set; `prompt_id` is None where its name matches no prompt of the suite."""

    path: Path
    prompt_id: str | None
    seed: int | None


@dataclass(frozen=True)
class Manifest:
    """What made a set. `commit` ends in `-dirty` where the code was changed after it, and is "" outside a checkout;
    hashes are SHA-256.
    """

    name: str
    checkpoint: str
    checkpoint_hash: str
    suite: str
    suite_hash: str
    seeds: list[int]
    settings: dict[str, Any]
    save_fps: float
    device: str
    dtype: str
    commit: str
    versions: dict[str, str]

    @property
    def dirty(self) -> bool:
        return self.commit.endswith("-dirty")

    def json(self) -> dict[str, Any]:
        """As it is written: the fields, and `dirty` by itself."""
        return {**vars(self), "commit": self.commit.removesuffix("-dirty"), "dirty": self.dirty}


def read_manifest(folder: Path) -> Manifest | None:
    """None for a folder without one. Raises ValueError for a file that is none."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        dirty = tree.pop("dirty")
        return Manifest(**{**tree, "commit": tree["commit"] + ("-dirty" if dirty else "")})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is no manifest of a set ({error!r})") from error


def clips_of(folder: Path, prompt_ids: Iterable[str] = ()) -> list[ClipFile]:
    """The clips of a folder, by name. Raises ValueError for a folder that has none."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of clips")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.is_file())
    if not files:
        raise ValueError(f"{folder} holds no clips ({', '.join(ENDINGS)})")
    known = set(prompt_ids)
    return [ClipFile(path, *split(path.stem, known)) for path in files]


def split(stem: str, known: Iterable[str] = ()) -> tuple[str | None, int | None]:
    """The prompt's id and the seed that a clip's name tells; ids may themselves end in a number."""
    if stem in known:
        return stem, None
    match = re.fullmatch(r"(.+)-(\d+)", stem)
    if match and (match[1] in known or not known):
        return match[1], int(match[2])
    return None, None
