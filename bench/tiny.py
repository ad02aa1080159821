"""How well the miniature follows its prompts: 64 prompts with fixed seeds, judged by rule. Writes docs/tiny.md.

The judge is calibrated in the same run: on ground-truth clips of the same scenes, and on the autoencoder's round trips
of them.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from vc2.evaluation.judge import judge
from vc2.files.grid import side_by_side
from vc2.files.video import write_video
from vc2.pipeline import TextToVideo, override
from vc2.training.sources import world

ROOT = Path(__file__).parent.parent
ATTRIBUTES = ("colour", "shape", "direction", "joint")
GOALS = {"colour": 85, "shape": 85, "direction": 85, "joint": 70}
PROMPTS, BATCH = 64, 8


def scenes() -> list[world.Scene]:
    """64 of the world's 96 captions, drawn once and for all; each with a place off the middle for the ground truth."""
    generator = torch.Generator().manual_seed(2024)
    everything = list(product(*(range(len(names)) for names in (world.COLOURS, world.SHAPES, world.DIRECTIONS))))
    order = torch.randperm(len(everything), generator=generator)[:PROMPTS]
    offsets = torch.randint(-world.REACH, world.REACH + 1, (PROMPTS,), generator=generator)
    return [
        world.Scene(colour, shape, direction, int(offset))
        for (colour, shape, direction), offset in zip((everything[i] for i in order), offsets, strict=True)
    ]


def ground_truth(scene: world.Scene, frames: int) -> torch.Tensor:
    """The scene's clip in -1..1, `[T, 3, 64, 64]`."""
    positions = scene.positions()[:: world.SOURCE_FRAMES // frames]
    ids = torch.ones(frames, dtype=torch.long)
    return world.render(ids * scene.colour, ids * scene.shape, positions)


def pixels(frames: torch.Tensor) -> np.ndarray:
    return ((frames.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


@torch.no_grad()
def round_trip(model: TextToVideo, frames: torch.Tensor) -> torch.Tensor:
    return model.vae.decode(model.vae.encode(frames).chunk(2, 1)[0])


def score(clips, wanted: list[world.Scene]) -> dict[str, float]:
    """Percent right on each attribute."""
    verdicts = [judge(clip).matches(scene) for clip, scene in zip(clips, wanted, strict=True)]
    return {name: 100 * sum(v[name] for v in verdicts) / len(verdicts) for name in ATTRIBUTES}


def contact_sheet(clips: list[np.ndarray], path: Path, columns: int = 8) -> None:
    """Every clip as a row of frames."""
    rows = [np.concatenate(list(clip[np.linspace(0, len(clip) - 1, columns).round().astype(int)]), 1) for clip in clips]
    Image.fromarray(np.concatenate(rows)).save(path)


def gallery(clips: list[np.ndarray], captions: list[str], path: Path, columns: int = 4, zoom: int = 3) -> None:
    """The clips side by side as one looping gif."""
    write_video(path, side_by_side([clip.repeat(zoom, 1).repeat(zoom, 2) for clip in clips], captions, columns), 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "models" / "vc2-tiny.safetensors")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    args = parser.parse_args()
    model, wanted, reached = TextToVideo(args.checkpoint), scenes(), True
    lines = ["| clips | " + " | ".join(ATTRIBUTES) + " |", "| --- " * (len(ATTRIBUTES) + 1) + "|"]

    def row(name: str, result: Mapping[str, float]) -> None:
        lines.append(f"| {name} | " + " | ".join(f"{result[a]:.0f} %" for a in ATTRIBUTES) + " |")
        print(lines[-1], flush=True)

    print(lines[0])
    truth = [ground_truth(scene, 8) for scene in wanted]
    row("ground truth (the judge itself)", score([pixels(clip) for clip in truth], wanted))
    row("ground truth through the autoencoder", score([pixels(round_trip(model, clip)) for clip in truth], wanted))
    for frames, fps in ((8, 8), (16, 16)):
        settings, clips = override(model.settings, frames=frames, fps=fps), []
        for i in tqdm(range(0, PROMPTS, BATCH), desc=f"{frames} frames", unit="batch"):
            part = wanted[i : i + BATCH]
            clips += list(model([scene.caption for scene in part], list(range(i, i + len(part))), settings))
        result = score(clips, wanted)
        reached = reached and all(result[name] >= goal for name, goal in GOALS.items())
        row(f"{frames} frames, fps {fps}", result)
    contact_sheet(clips[:8], args.out / "tiny.png")
    gallery(clips[:8], [scene.caption for scene in wanted[:8]], args.out / "clips.gif")
    row("goal", GOALS)
    captions = "\n".join(f"1. {scene.caption}" for scene in wanted[:8])
    table, version, used = "\n".join(lines), torch.__version__.split("+")[0], model.settings
    (args.out / "tiny.md").write_text(f"""# How well the miniature follows its prompts

Made by `make bench-tiny` ({platform.machine()}, torch {version}): {PROMPTS} of the world's 96 captions, seeds 0 to
{PROMPTS - 1}, {used.steps} steps, guidance {used.guidance:g}, eta {used.eta:g}. Right is what the rule-based judge
(`vc2/evaluation/judge.py`) sees; an object that it does not find counts as wrong.

{table}

The first eight clips, 8 of their {frames} frames each:

![contact sheet](tiny.png)

{captions}
""")
    print(f"wrote {args.out / 'tiny.md'}")
    if not reached:
        sys.exit("below the goal")


if __name__ == "__main__":
    main()
