"""All models' clips of a seed in one page to look at: the report of sets, made from the runner's rows and clips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...training.sources import world
from ..provenance import versions
from ..report import clips
from ..report.material import Material, SetOfClips, replace_text
from ..report.measures import DEFECT, MOTION_ERROR
from ..report.render import HTML, render
from ..rows import OK, Score
from .arms import Place
from .evidence import Evidence, Seed
from .gates import FPS
from .grids import clips_file
from .rows import Row
from .score import scenes

PROMPTS = 12


def write(evidence: Evidence, place: Place) -> Path | None:
    """`report.html` in the folder of the runs, of the first seed; None where its clips are not here. Raises OSError."""
    if not evidence.seeds:
        return None
    seed = evidence.seeds[0]
    rows = {name: row for name, row in seed.results.rows.items() if clips_file(place, seed.number, row).is_file()}
    if not rows:
        return None
    sets = tuple(SetOfClips(name, str(place.root), row["prompts"], None) for name, row in rows.items())
    scores = tuple(score for name, row in rows.items() for score in _scores(name, row, seed))
    made = {"commit": evidence.commit, "versions": versions(), "command": "miniature report"}
    title = f"The paper in miniature, seed {seed.number}"
    material = Material(title, sets, scores, MOTION_ERROR.name, PROMPTS, seed.number, made)
    shown = clips.choose(material)
    there = {name: np.load(clips_file(place, seed.number, row))["clips"] for name, row in rows.items()}
    strips = [clips.strip_of(there[one.set][int(one.clip)], FPS) for one in shown]
    material = replace(material, shown=tuple(one.tree() for one in shown))
    path = place.root / HTML
    replace_text(path, render(material, strips)[HTML])
    return path


def _scores(name: str, row: Row, seed: Seed) -> Iterator[Score]:
    """Motion error and defect of every clip; a clip's name is its place among the prompts."""
    defects = [
        {defect: np.nan if values[index] is None else values[index] for defect, values in row["defects"].items()}
        for index in range(row["prompts"])
    ]
    for index, scene in enumerate(scenes(row["prompts"] != len(scenes()))):
        what = (list(world.COLOURS)[scene.colour], world.SHAPES[scene.shape], list(world.DIRECTIONS)[scene.direction])
        values = {MOTION_ERROR.name: row["motion_error"][index], DEFECT.name: seed.scale.defect(defects[index])}
        for measure, value in values.items():
            about = (name, f"{index:02d}", "", "-".join(what), seed.number, measure, float(value), OK)
            yield Score(*about, "vc2.evaluation.judge", None, "frames as sampled", prompt=scene.caption)
