"""README's table of what fits on which card, from what is counted: weights, `PEAK` and ComfyUI's own rules.

python -m bench.cards
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import sections
from bench.tables import wrapped
from vc2.networks.config import UNetConfig
from vc2.networks.unet import PEAK, VideoUNet

ROOT = Path(__file__).parent.parent
CARDS, SIZES = (8, 12, 16, 24), ((512, 320), (1024, 576))  # GiB; pixels
GIB = 2**30
HALF = 2  # bytes
# What a driver and a desktop take of a card, about.
TAKEN = 0.6 * GIB
# ComfyUI's: what it wants free beside an estimate and at least (`comfy.model_management`, Linux), by how much more than
# an estimate must be free for both prompts in one batch (`comfy.samplers`), and what `nodes.host.model` adds to what is
# counted.
RESERVE, LEAST, IN_ONE_BATCH, MARGIN = 0.4 * GIB, 1.2 * GIB, 1.5, 1.26


def weights() -> int:
    """Bytes of the UNet's, in half precision."""
    return HALF * sum(p.numel() for p in VideoUNet(UNetConfig.vc2(), device="meta").parameters())


def need(prompts: int, frames: int, size: tuple[int, int]) -> float:
    """Bytes that ComfyUI sets aside for a pass, in half precision."""
    width, height = size
    return MARGIN * PEAK * HALF * prompts * frames * (width // 8) * (height // 8)


def most_frames(card: int, size: tuple[int, int], model: int) -> tuple[int, int]:
    """Frames that a card takes with all weights on it: both prompts in one batch, and one after the other."""
    free = card * GIB - TAKEN - model
    together = int(free / (IN_ONE_BATCH * need(2, 1, size)))
    apart = int((free - RESERVE) / need(1, 1, size)) if free >= LEAST else 0
    return together, max(apart, together)


def table() -> str:
    model = weights()
    head = ["card"]
    for width, height in SIZES:
        head += [f"{width}x{height}, 16 frames", "at most in one batch", "one after the other"]
    lines = [head, ["---"] * len(head)]
    for card in CARDS:
        cells = [f"{card} GB"]
        for size in SIZES:
            together, apart = most_frames(card, size, model)
            how = "one batch" if together >= 16 else "one after the other" if apart >= 16 else "weights moved"
            cells += [how, f"{together} frames", f"{apart} frames"]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text() -> str:
    peaks = [f"{PEAK * HALF * 2 * 16 * w // 8 * h // 8 / 2**20:.0f} MiB at {w}x{h}" for w, h in SIZES]
    counted = wrapped(
        "Counted, not measured: no GPU was at hand. The numbers follow from the weights"
        f" ({weights() / 1e9:.1f} GB in half precision), from what a pass of 16 frames takes at most with prompt and"
        f" negative prompt in one batch ({' and '.join(peaks)}; [counted](docs/performance.md#counted)), and from how"
        " ComfyUI reserves memory: it is told a quarter more, wants half as much again free before it batches both"
        f" prompts, and keeps {RESERVE / GIB:g} GiB free; a driver and a desktop have {TAKEN / GIB:g} GiB"
        " (`python -m bench.cards`). The text encoder (0.7 GB) and the autoencoder leave the card when room is needed.",
    )
    return f"""{counted}

{table()}

That holds with torch's attention or xformers, one of which ComfyUI takes on NVIDIA's cards by itself; without either it
sets 7.5 times as much aside. ComfyUI chooses by the memory that is free, and keeps some of the weights in main memory
where even one after the other is too much. *FreeNoise* samples all frames at once, so these are the longest clips;
`VC2FIFOSampler` and overlapping windows need no more than a window does. `weight_dtype` fp8 halves the weights. A CPU
works too, slowly. What is measured is in [docs/performance.md](docs/performance.md), and `make bench-gpu` measures a
card in under eight minutes."""


def main() -> None:
    argparse.ArgumentParser(prog="python -m bench.cards", description=__doc__).parse_args()
    sections.replace(ROOT / "README.md", "Which card", text())


if __name__ == "__main__":
    main()
