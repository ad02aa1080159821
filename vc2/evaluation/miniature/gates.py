"""Can this world show the claims, and can the judge see them? Measured before anything is trained on it, and after the
bases of each seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...networks.autoencoder import AutoencoderKL
from ...training.rng import torch_generator
from ...training.sources import paper_world, world
from .. import judge, picture, watermark
from . import rows
from .score import SPEED, scenes

CLIPS = 144  # of each kind of ground truth
FPS = 8
Clips = list[np.ndarray]


# Of a seed's bases (`of_a_seed`); which of them each claim needs, and in which share of the seeds one may fail.
FOLLOWS, SEEN_PAIRS = "F-base: direction", "F-base: colour and shape of seen pairs"
P_MOVES, HELD_OUT = "P-base: motion error", "F-base: all right, held-out pairs"
NEEDS = {
    1: (FOLLOWS, SEEN_PAIRS, P_MOVES),
    2: (FOLLOWS, SEEN_PAIRS, P_MOVES),
    3: (FOLLOWS, SEEN_PAIRS),
    4: (HELD_OUT,),
    5: (FOLLOWS, SEEN_PAIRS),
}
TOLERATED = 2 / 8


@dataclass(frozen=True)
class Gate:
    """`value` must be at least, or at most, `bound`."""

    name: str
    value: float
    bound: float
    at_most: bool = False

    @property
    def passed(self) -> bool:
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def line(self) -> str:
        sign = "<=" if self.at_most else ">="
        return f"| {self.name} | {self.value:.3f} | {sign} {self.bound:g} | {'passed' if self.passed else 'FAILED'} |"


TABLE = ("| gate | measured | bound | |", "| --- | --- | --- | --- |")


def truth(look: paper_world.Look, domain: str) -> tuple[Clips, list[world.Scene]]:
    """Clips of a domain's scenes, uint8 `[8, 64, 64, 3]`, as they appear through a look."""
    reader, clips, shown = paper_world.PaperWorld(domain, "clips"), [], []
    for index in range(CLIPS):
        scene = reader.scenes[reader.order[index]]
        frames = paper_world.draw(scene, look, torch_generator(7, index))
        clips.append(frames[:: world.SOURCE_FPS // FPS].permute(0, 2, 3, 1).numpy())
        shown.append(world.Scene(scene.colour, scene.shape, scene.direction, 0))
    return clips, shown


@torch.no_grad()
def through(autoencoder: AutoencoderKL, clips: Sequence[np.ndarray]) -> Clips:
    """The clips as the autoencoder gives them back."""
    out = []
    for clip in clips:
        pixels = torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 127.5 - 1
        frames = autoencoder.decode(autoencoder.encode(pixels).chunk(2, 1)[0])
        out.append(((frames.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())
    return out


def right(clips: Sequence[np.ndarray], wanted: Sequence[world.Scene]) -> dict[str, float]:
    """Shares of clips that are right on each attribute."""
    matches = [judge.judge(clip).matches(scene) for clip, scene in zip(clips, wanted, strict=True)]
    return {name: float(np.mean([match[name] for match in matches])) for name in matches[0]}


def of_the_world(autoencoder: AutoencoderKL) -> tuple[list[Gate], picture.Scale]:
    """The gates that need no model, and the scale of the picture measures."""
    low, low_scenes = truth(paper_world.LOW, "low-quality")
    clean, clean_scenes = truth(paper_world.CLEAN, "clean")
    half, half_scenes = truth(paper_world.LOW.scaled(0.5, 0.5), "clean")
    low_back, clean_back, half_back = (through(autoencoder, clips) for clips in (low, clean, half))
    opacities = [float(np.mean([watermark.opacity(clip) for clip in clips])) for clips in (low, low_back)]
    gates = [Gate("watermark behind the autoencoder, of before", opacities[1] / opacities[0], 0.8)]
    for name, clips, wanted in (
        ("low-quality videos", low, low_scenes),
        ("low-quality videos behind the autoencoder", low_back, low_scenes),
        ("clean videos of all pairs", clean, clean_scenes),
        ("clean videos behind the autoencoder", clean_back, clean_scenes),
        ("half of the low quality, all pairs", half, half_scenes),
        ("half of the low quality behind the autoencoder", half_back, half_scenes),
    ):
        gates.append(Gate(f"judge right on colour, shape and direction: {name}", right(clips, wanted)["joint"], 0.98))
    gates += _shams(low, low_scenes)
    measured = {name: _measured(clips) for name, clips in (("low", low), ("clean", clean))}
    back = {name: _measured(clips) for name, clips in (("low", low_back), ("clean", clean_back))}
    scale, before = picture.Scale.of(back["clean"], back["low"]), picture.Scale.of(measured["clean"], measured["low"])
    for name in picture.DEFECTS[1:]:  # the watermark has a gate of its own
        survives = (scale.low[name] - scale.clean[name]) / (before.low[name] - before.clean[name])
        gates.append(Gate(f"{name} behind the autoencoder, of before", survives, 0.5))
    defects = [np.mean([scale.defect(row) for row in back[name]]) for name in ("clean", "low")]
    gates.append(Gate("defect of low-quality videos behind the autoencoder", float(defects[1]), 0.9))
    gates.append(Gate("defect of clean videos behind the autoencoder", float(defects[0]), 0.1, at_most=True))
    halves = float(np.mean([scale.defect(row) for row in _measured(half_back)]))
    gates.append(Gate("defect of half of the low quality, from 0.5", abs(halves - 0.5), 0.15, at_most=True))
    return gates, scale


def _measured(clips: Sequence[np.ndarray]) -> list[dict[str, float]]:
    return [picture.measure(judge.look_at(clip)) for clip in clips]


def _shams(clips: Clips, wanted: list[world.Scene]) -> list[Gate]:
    """What must not be taken for the real thing."""
    rng = np.random.default_rng(0)
    kinds: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "frozen": lambda clip: np.repeat(clip[:1], len(clip), 0),
        "shuffled": lambda clip: clip[rng.permutation(len(clip))],
        "reversed": lambda clip: clip[::-1],
    }
    gates = []
    for name, change in kinds.items():
        changed = [change(clip) for clip in clips]
        gates.append(Gate(f"direction right: {name}", right(changed, wanted)["direction"], 0.1, at_most=True))
        if name != "reversed":  # which moves as steadily as before
            errors = [judge.judge(clip).motion_error(SPEED / FPS) for clip in changed]
            gates.append(Gate(f"motion error: {name}", float(np.mean(errors)), 0.9))
    errors = [judge.judge(clip).motion_error(SPEED / FPS) for clip in clips]
    gates.append(Gate("motion error: low-quality videos", float(np.mean(errors)), 0.2, at_most=True))
    ground = torch.tensor(world.BACKGROUND).float()[None, :, None, None].expand(FPS, 3, world.SIZE, world.SIZE)
    found = []
    for k in range(20):
        empty = paper_world.degrade(ground, paper_world.LOW, torch_generator(8, k)).round().clamp(0, 255).byte()
        found.append(judge.judge(empty.permute(0, 2, 3, 1).numpy()).detected)
    gates.append(Gate("object found: no object, watermark alone", float(np.mean(found)), 0.0, at_most=True))
    return gates


def of_a_seed(results: Sequence[rows.Row]) -> list[Gate]:
    """The gates of a seed's bases; empty before they are scored. P-base must move, whichever way: a clip without motion
    has an error of 1.
    """
    last = {
        row["arm"]: row for row in results if row["weights"] == "ema" and row["fps"] == FPS and row["prompts"] == 96
    }
    if not {"F-base", "P-base"} <= last.keys():
        return []

    def share(arm: str, attribute: str, held_out: bool | None = None) -> float:
        return share_right(last[arm], attribute, held_out)

    return [
        Gate(FOLLOWS, share("F-base", "direction"), 0.8),
        Gate(P_MOVES, float(np.mean(last["P-base"]["motion_error"])), 0.8, at_most=True),
        Gate(HELD_OUT, share("F-base", "joint", True), 0.8, at_most=True),
        Gate(SEEN_PAIRS, min(share("F-base", a, False) for a in ("colour", "shape")), 0.8),
    ]


def share_right(row: rows.Row, attribute: str, held_out: bool | None = None) -> float:
    """Share of a row's clips that are right; of held-out pairs, of seen ones, or (None) of all."""
    flags = [
        int(flag)
        for flag, scene in zip(row["right"][attribute], scenes(row["prompts"] != 96), strict=True)
        if held_out is None or held_out != paper_world.seen(scene.colour, scene.shape)
    ]
    return float(np.mean(flags))


def report(gates: Sequence[Gate], scale: picture.Scale, encoders: dict[str, str]) -> dict[str, Any]:
    """What `docs/miniature/gates.json` holds."""
    return {
        "world": paper_world.world_hash(),
        "encoders": encoders,
        "commit": rows.commit(),
        "gates": [{"name": g.name, "value": round(g.value, 4), "bound": g.bound, "passed": g.passed} for g in gates],
        "scale": {"clean": scale.clean, "low": scale.low},
    }
