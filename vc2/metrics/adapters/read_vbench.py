"""What VBench (Huang et al., 2024) wrote about the clips of a set: a program for `external.json`.

    {"vbench": ["python", ".../vc2/metrics/adapters/read_vbench.py", "/results"]}

`/results` is the folder of `*_eval_results.json` that VBench's own program left, in its own environment:

    vbench evaluate --videos_path /absolute/path/of/the/set --dimension subject_consistency --mode=custom_input

VBench loads a network for each dimension and takes many clips at once, so it runs first, and its numbers of single
clips are read here, imaging quality in the scale of its mean (0 to 1). Clips are known by their paths.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from protocol import About, ValuesOf, serve

PATTERN = "*_eval_results.json"
PERCENT = {"imaging_quality"}  # MUSIQ's, of 100: `vbench/imaging_quality.py` divides their mean


def numbers_of(dimension: str, results: Any) -> dict[Path, float]:
    """By clip, of `[mean, [{"video_path": ..., "video_results": ...}, ...]]`. Raises ValueError for another shape."""
    try:
        _, clips = results
        scale = 100 if dimension in PERCENT else 1
        return {Path(clip["video_path"]).resolve(): float(clip["video_results"]) / scale for clip in clips}
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{dimension} is no list of a mean and of a number a clip ({error!r})") from error


def read(folder: Path) -> tuple[dict[Path, dict[str, float]], str]:
    """Numbers by clip and dimension, and a fingerprint of the files. Raises OSError and ValueError."""
    files = sorted(folder.glob(PATTERN))
    if not files:
        raise FileNotFoundError(f"{folder} has no {PATTERN}, which `vbench evaluate` writes")
    found: dict[Path, dict[str, float]] = {}
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        digest.update(content)
        try:
            for dimension, results in json.loads(content).items():
                for clip, number in numbers_of(dimension, results).items():
                    found.setdefault(clip, {})[f"vbench.{dimension}"] = number
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{path}: {error}") from error
    return found, digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help=f"folder with {PATTERN}")
    args = parser.parse_args()

    def start() -> tuple[About, ValuesOf]:
        found, fingerprint = read(args.results)

        def values_of(clip: str, prompt: str) -> dict[str, float]:
            if (path := Path(clip).resolve()) not in found:
                there = f"of {len(found)} clips in {args.results} the first is {next(iter(found), 'none')}"
                raise LookupError(f"VBench has not seen it; {there}")
            return found[path]

        about = {"implementation": f"VBench, results {fingerprint[:12]}", "weights": None, "preprocessing": "its own"}
        return about, values_of

    serve(start)


if __name__ == "__main__":
    main()
