"""All models' clips of a seed in one page to look at: the report of sets, made from the runner's rows and clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..provenance import versions
from ..report.clips import choose, strip_of
from ..report.material import Material, SetOfClips
from ..report.measures import MOTION_ERROR
from ..report.render import HTML, render
from ..writing import replace_text
from .arms import Place
from .clips import clips_file, scores
from .evidence import Evidence
from .gates import FPS

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
    # A clip's name is its place among the prompts.
    files = {name: [(f"{index:02d}", "") for index in range(row["prompts"])] for name, row in rows.items()}
    scored = tuple(score for name, row in rows.items() for score in scores(name, row, seed, files[name]))
    made = {"commit": evidence.commit, "versions": versions(), "command": "miniature report"}
    title = f"The paper in miniature, seed {seed.number}"
    material = Material(title, sets, scored, MOTION_ERROR.name, PROMPTS, seed.number, made)
    shown = choose(material)
    there = {name: np.load(clips_file(place, seed.number, row))["clips"] for name, row in rows.items()}
    strips = [strip_of(there[one.set][int(one.clip)], FPS) for one in shown]
    material = replace(material, shown=tuple(one.tree() for one in shown))
    path = place.root / HTML
    replace_text(path, render(material, strips)[HTML])
    return path
