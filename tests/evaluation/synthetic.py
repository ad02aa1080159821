"""Rows of the paper in miniature whose truth is known: what the runner writes for models that are as a table says."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vc2.evaluation.miniature import clips, rows
from vc2.evaluation.miniature.arms import ARMS, BY_NAME, Place
from vc2.evaluation.miniature.evidence import Evidence, gather
from vc2.evaluation.miniature.layouts import Layout
from vc2.evaluation.miniature.runner import Runner
from vc2.evaluation.miniature.score import scenes
from vc2.evaluation.picture import DEFECTS
from vc2.training.sources.paper_world import seen, world_hash

COMMIT = "c0ffee" + "0" * 34
ENCODERS = {"autoencoder": "a" * 16, "text": "b" * 16}
PLACE = Place(Path("runs/paper"), Path("runs/paper/encoders.safetensors"))

# Motion error, defect, watermark, share of directions, of held-out and of seen pairs that are right, distance: as the
# paper would have it.
PAPER = {
    "F-base": (0.3, 0.9, 0.9, 0.95, 0.3, 0.9, 0.0),
    "P-base": (0.3, 0.9, 0.9, 0.8, 0.3, 0.9, 0.0),
    "P-Spa-LORA": (0.6, 0.2, 0.1, 0.6, 0.8, 0.9, 0.5),
    "F-Spa-LORA": (0.4, 0.4, 0.4, 0.8, 0.8, 0.9, 0.5),
    "P-Temp-LORA": (0.7, 0.3, 0.2, 0.5, 0.5, 0.9, 0.5),
    "F-Temp-LORA": (0.5, 0.8, 0.85, 0.7, 0.4, 0.9, 0.5),
    "F-Spa-DIR": (0.32, 0.1, 0.05, 0.9, 0.9, 0.95, 0.9),
    "F-Spa-Temp-DIR": (0.5, 0.1, 0.05, 0.8, 0.9, 0.95, 0.9),
    "F-Temp-DIR": (0.45, 0.2, 0.15, 0.8, 0.5, 0.95, 0.7),
    "F-Spa-Temp-LORA": (0.5, 0.3, 0.3, 0.8, 0.7, 0.95, 0.7),
    "F-Spa-DIR-LAION": (0.32, 0.1, 0.05, 0.9, 0.5, 0.95, 0.9),
}
# Training theta_T too changes nothing.
SAME = {**PAPER, "F-Spa-Temp-DIR": PAPER["F-Spa-DIR"]}
OTHERS = {"random": (0.5, 0.9, 0.9, 0.4, 0.2, 0.5, 0.4)}
Table = Mapping[str, tuple[float, ...]]


@cache
def identity(arm: str) -> str:
    return PLACE.identity(BY_NAME["F-Spa-DIR" if arm == "random" else arm])


def flags(share: Mapping[bool, float], some: bool) -> str:
    """Right and wrong in proportion, evenly spread over the prompts; `share` of held-out (False) and seen pairs."""
    counted, out = {True: 0, False: 0}, ""
    for scene in scenes(some):
        group = seen(scene.colour, scene.shape)
        counted[group] += 1
        before, after = (math.floor(round(n * share[group], 9)) for n in (counted[group] - 1, counted[group]))
        out += str(after - before)
    return out


def row(seed: int, arm: str, what: tuple[float, ...], step: int, some: bool = False, **key: Any) -> rows.Row:
    motion, defect, watermark, direction, held_out, on_seen, distance = what
    # Not `seed` alone: the noise of two models must not be the same.
    rng = np.random.default_rng([1, seed, step, *arm.encode(), len(key)])
    count, pairs = len(scenes(some)), flags({True: on_seen, False: held_out}, some)
    directions = flags({True: direction, False: direction}, some)

    def column(mean: float) -> list[float]:
        return [round(float(mean), 3) for mean in mean + rng.normal(0, 0.02) + rng.normal(0, 0.05, count)]

    columns: dict[str, list[float | None]] = {name: [*column(defect)] for name in DEFECTS}
    columns["watermark"] = [*column(watermark)]
    columns["blur"][-1] = None  # no object
    both = "".join(str(int(a == b == "1")) for a, b in zip(pairs, directions, strict=True))
    return {
        "seed": seed, "arm": arm, "step": step, "weights": "ema", "fps": 8, "prompts": count,
        "world": world_hash(), "recipe": identity(arm), "encoders": ENCODERS, "commit": COMMIT,
        "torch": "2", "precision": "fp32",
        "change": {"spatial": round(0.1 * (1 - defect), 5), "temporal": 0.01 * (step > 0)},
        "right": {"colour": pairs, "shape": pairs, "direction": directions, "joint": both},
        "motion_error": [min(1.0, max(0.0, value)) for value in column(motion)],
        "speed": [*column(1 - motion)[:-1], None], "tremble": [0.5] * (count - 1) + [None],
        "defects": columns,
        "distance": {"low": round(distance + float(rng.normal(0, 0.02)), 5), "clean": 0.3},
        "seconds": {"training": 1.0, "scoring": 1.0},
        **key,
    }  # fmt: skip


def of_a_seed(seed: int, table: Table, quick: bool = False) -> Iterator[rows.Row]:
    """All rows that a runner writes for a seed. Controls are as the row that they are controls of; on its way, a
    finetune has come as far as the square root of its steps.
    """
    place = Place(PLACE.root, PLACE.encoders, quick)
    runner = Runner(place, Path("rows"), (seed,), decides=False, commit=COMMIT)
    table = {**OTHERS, **table}
    for name in (*(arm.name for arm in ARMS if arm.name != "SD"), "random"):
        arm = BY_NAME.get(name)
        end = np.array(table[name] if name in table else table[arm.recipe if arm else name])
        start = np.array(table[arm.start]) if arm and arm.start in table else end
        for scoring in runner.scorings(name, seed):
            whole = runner.scorings(name, seed)[-1].step
            way = (scoring.step / whole) ** 0.5 if whole else 1.0
            what = tuple((start + way * (end - start)).tolist())
            yield row(seed, name, what, scoring.step, scoring.some, weights=scoring.weights, fps=scoring.fps)


def write(folder: Path, table: Table = PAPER, seeds: tuple[int, ...] = tuple(range(2, 10))) -> Path:
    """`gates.json` and `rows/` as in docs/miniature; the folder."""
    scale = {"clean": dict.fromkeys(DEFECTS, 0.0), "low": dict.fromkeys(DEFECTS, 1.0)}
    gate = {"name": "watermark behind the autoencoder, of before", "value": 1.0, "bound": 0.8, "passed": True}
    tree = {"world": world_hash(), "encoders": ENCODERS, "commit": COMMIT, "gates": [gate], "scale": scale}
    (folder / "rows").mkdir(parents=True)
    (folder / "gates.json").write_text(json.dumps(tree))
    for seed in seeds:
        lines = (json.dumps(one) + "\n" for one in of_a_seed(seed, table))
        rows.path_of(folder / "rows", seed).write_text("".join(lines))
    return folder


def layout(folder: Path, kind: str = "counted", root: Path = Path("runs/nowhere")) -> Layout:
    # `encoders` that are not there: no calibration, which takes a minute.
    return Layout(folder, folder / "rows", folder / "gates.json", Place(root, root / "encoders.safetensors"), kind)


def gathered(folder: Path, kind: str = "counted") -> Evidence:
    return gather(PLACE, folder / "rows", folder / "gates.json", kind)


def sketch(folder: Path, arms: tuple[str, ...]) -> Layout:
    """A finished sketch of seed 2, and what the runner leaves of some of its models."""
    write(folder, seeds=())
    place = Place(folder / "runs", folder / "e", quick=True)
    written = [
        {**row, "recipe": place.identity(BY_NAME["F-Spa-DIR" if row["arm"] == "random" else row["arm"]])}
        for row in of_a_seed(2, PAPER, quick=True)
    ]
    rows.append(rows.path_of(folder / "rows", 2), *written)
    made = Layout(folder, folder / "rows", folder / "gates.json", place, "sketch")
    results = gather(place, made.rows, made.gates, "sketch").seeds[0].results
    for name in arms:
        path = clips.clips_file(place, 2, results.rows[name])
        path.parent.mkdir(parents=True)
        frames = np.random.default_rng(0).integers(0, 255, (32, 8, 16, 16, 3), np.uint8)
        np.savez(path, clips=frames)
        (path.parent / "model.safetensors").write_bytes(name.encode())
    return made
