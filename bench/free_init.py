"""Does FreeInit make the miniature's frames agree more? Writes docs/free_init.md.

Each row is the same prompts and seeds, sampled once or several times. On clips of a known world three things can be
told apart that a difference of neighbouring frames mixes: the background, which must not change at all, the object's
colour, which must not either, and how the picture moves (the second difference: none for steady motion).
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from bench.tiny import ROOT, ground_truth, pixels, scenes, score
from vc2.evaluation.judge import look_at
from vc2.pipeline import Guided, TextToVideo
from vc2.sampling import ddim, freeinit
from vc2.training.sources import world

BATCH, FRAMES, FPS, GUIDANCE = 8, 16, 16, 4.0
SETTINGS = ((25, 1.0), (10, 0.0))  # steps and eta: as the miniature is used, and a draft
ITERATIONS = (1, 2, 3)
Fresh = Callable[..., torch.Tensor]


def unsteadiness(clips: Sequence[np.ndarray]) -> list[float]:
    """Of uint8 clips `[T, H, W, 3]`, all in 0..255: change of the background, of the object's colour, of the motion."""
    background, colour, motion = [], [], []
    for clip in clips:
        frames, masks = clip.astype(np.float32), look_at(clip).masks
        background.append(np.abs(np.diff(frames, axis=0)).mean(-1)[:, ~masks.any(0)].mean())
        means = np.stack([frame[mask].mean(0) for frame, mask in zip(frames, masks, strict=True) if mask.any()])
        colour.append(np.abs(np.diff(means, axis=0)).mean())
        motion.append(np.abs(np.diff(frames, 2, axis=0)).mean())
    return [float(np.mean(values)) for values in (background, colour, motion)]


@torch.no_grad()
def sampled(model: TextToVideo, wanted: list[world.Scene], iterations: int, steps: int, eta: float) -> list[np.ndarray]:
    """Clip n with seed n, uint8 `[T, H, W, 3]`; each has its own generator for all noise."""
    clips: list[np.ndarray] = []
    last = torch.tensor([ddim.ddim_timesteps(steps)[-1]])
    for first in range(0, len(wanted), BATCH):
        batch = wanted[first : first + BATCH]
        generators = [torch.Generator().manual_seed(first + i) for i in range(len(batch))]

        def fresh(_: int = 0, generators: list[torch.Generator] = generators) -> torch.Tensor:
            return torch.stack([torch.randn(4, FRAMES, 8, 8, generator=g) for g in generators])

        cond, uncond = model.text([scene.caption for scene in batch]), model.text([""] * len(batch))
        guided = Guided(model.unet, cond, uncond, torch.full((len(batch),), float(FPS)), GUIDANCE)

        def denoised(x: torch.Tensor, guided: Guided = guided, fresh: Fresh = fresh) -> torch.Tensor:
            return ddim.sample(guided, x, model.schedule, steps, eta, fresh)

        x_0 = freeinit.sample(
            denoised,
            fresh(),
            lambda x, noise: model.schedule.add_noise(x, noise, last),
            iterations,
            generator=torch.Generator().manual_seed(1000 + first),
        )
        clips += list(model.decode(x_0))
    return clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    args = parser.parse_args()
    model, wanted = TextToVideo(ROOT / "models" / "vc2-tiny.safetensors"), scenes()[: args.prompts]
    truth = [pixels(ground_truth(scene, FRAMES)) for scene in wanted]
    rows = [("the world itself", "", truth)]
    for steps, eta in SETTINGS:
        for iterations in tqdm(ITERATIONS, desc=f"{steps} steps", unit="row"):
            clips = sampled(model, wanted, iterations, steps, eta)
            rows.append((f"{steps} steps, eta {eta:g}", str(iterations), clips))
    lines = []
    for name, count, clips in rows:
        background, colour, motion = unsteadiness(clips)
        right = score(clips, wanted)["joint"]
        lines.append(f"| {name} | {count} | {background:.2f} | {colour:.2f} | {motion:.2f} | {right:.0f} % |")
    table = "\n".join(lines)
    made = f"{platform.machine()}, torch {torch.__version__.split('+')[0]}"
    (args.out / "free_init.md").write_text(f"""# FreeInit on the miniature

Made by `python -m bench.free_init` ({made}): {len(wanted)} captions of the world, each with a seed of its own,
guidance {GUIDANCE:g}, the same in every row. Changes from frame to frame, 0..255, smaller is steadier: of the
background and of the colour, neither of which changes in the world itself, and of the motion (second difference).
Right is what the rule-based judge sees (colour, shape and direction together).

| sampling | iterations | background | colour | motion | right |
| --- | --- | --- | --- | --- | --- |
{table}

Time grows with the iterations. What it does for VideoCrafter2 was not measured: the weights could not be had here.
""")
    print(table)


if __name__ == "__main__":
    main()
