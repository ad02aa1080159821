"""Prompts and scores of sets for reports, of clips that need not be there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vc2.evaluation.rows import Score, digest
from vc2.metrics.metric import file_hash

HOSTILE = '</script><img src=x onerror="alert(1)"> | **bold** [a](javascript:alert(1)) \N{SNOWMAN}'
PROMPTS = {"panda": "a panda playing guitar", "evil": HOSTILE, "sea": "the sea"}


def score(set_: str, prompt: str, metric: str, value: float | None, **changes) -> Score:
    status = "ok" if value is not None else "skipped: needs a.pt"
    what = (set_, f"{prompt}-0.mp4", f"hash of {set_} {prompt}", prompt, 0, metric, value, status)
    row = Score(*what, "library 1.0", None, "frames as decoded", prompt=PROMPTS.get(prompt))
    return replace(row, **changes)


def of_set(set_: str, level: float) -> list[Score]:
    """Flicker (lower is better) of three prompts, controls; and a metric that was skipped."""
    out = []
    for index, prompt in enumerate(PROMPTS):
        out.append(score(set_, prompt, "flicker", level + index))
        out.append(score(set_, prompt, "flicker", 0.0, control="frozen"))
        out.append(score(set_, prompt, "flicker", 50.0, control="shuffled"))
        out.append(score(set_, prompt, "sharpness", 10 * level, weights="f" * 64))
    out.append(score(set_, "", "clipsim", None, clip=None, prompt_id=None, seed=None))
    return out


def hashed(folder: Path, scores: list[Score]) -> list[Score]:
    """The scores with the hashes of the clips that lie in a folder, and what the world shows for two of them."""
    files = {path.name: file_hash(path) for path in folder.glob("*.mp4")}
    out = [replace(one, clip_hash=files[one.clip] if one.clip else digest(files.values())) for one in scores]
    truth = {"clip_hash": "of what was drawn", "seed": None, "control": "ground truth"}
    return out + [score(out[0].set, name, "flicker", 0.5, clip=name, **truth) for name in ("panda", "evil")]
