"""EvalCrafter's SD score (the paper's Table 1): is a clip like pictures that Stable Diffusion makes of its prompt? A
program for `external.json`, for the environment of this distribution:

    {"sd_score": ["python", ".../vc2/metrics/adapters/run_sd_score.py", "/pictures"]}

`/pictures` is a folder of pictures that were made before, and of `pictures.jsonl`, a line for each of them:

    {"prompt": "a panda playing guitar", "file": "panda-0.png"}

EvalCrafter takes five of SDXL for each prompt. The score is the mean cosine of every frame's and every picture's
embedding in the CLIP of the metric `clip`, whose file it needs.
"""

from __future__ import annotations

import argparse
import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from protocol import About, ValuesOf, serve
from torch import Tensor

from vc2.files.video import read_video
from vc2.metrics.clip import ClipScores
from vc2.metrics.metric import Clip

LIST = "pictures.jsonl"


def read_list(folder: Path) -> dict[str, list[Path]]:
    """Pictures by prompt. Raises OSError for a file that is missing, ValueError for a line that is no such object."""
    pictures: dict[str, list[Path]] = {}
    for number, line in enumerate((folder / LIST).read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            prompt, path = row["prompt"], folder / row["file"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f'{folder / LIST}:{number}: expected {{"prompt": ..., "file": ...}}, found {line[:80]!r}'
            ) from error
        if not path.is_file():
            raise FileNotFoundError(f"{folder / LIST}:{number}: {path} is not there")
        pictures.setdefault(prompt, []).append(path)
    return pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help=f"folder of pictures and {LIST}")
    args = parser.parse_args()

    def start() -> tuple[About, ValuesOf]:
        clip_scores = ClipScores()
        pictures = read_list(args.pictures)
        if missing := clip_scores.available():
            raise FileNotFoundError(missing)

        @cache
        def embedded(prompt: str) -> Tensor:
            """`[pictures, D]`"""
            if prompt not in pictures:
                raise LookupError(f"{args.pictures / LIST} has no picture of {prompt!r}")
            frames = (np.asarray(Image.open(path).convert("RGB")) for path in pictures[prompt])
            return torch.cat([clip_scores.embed_frames(Clip(frame[None], fps=1)) for frame in frames])

        def values_of(clip: str, prompt: str) -> dict[str, float]:
            frames = clip_scores.embed_frames(Clip(read_video(clip), fps=1))
            return {"sd_score": float((frames @ embedded(prompt).T).mean())}

        of_what = f"{sum(map(len, pictures.values()))} pictures of {len(pictures)} prompts"
        about = {
            "implementation": f"SD score by {clip_scores.implementation}",
            "weights": clip_scores.weights_hash,
            "preprocessing": f"{clip_scores.preprocessing}; {of_what}",
        }
        return about, values_of

    serve(start)


if __name__ == "__main__":
    main()
