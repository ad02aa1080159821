"""The rows that a report stands on: which seeds count, and whether their rows belong to this checkout."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...training.errors import RecipeError
from ...training.sources.paper_world import world_hash
from ..picture import Scale
from . import rows
from .arms import ARMS, BASES, BY_NAME, LATER, PILOT_SEEDS, ROWS, Place
from .claims import Results
from .gates import Gate, of_a_seed, share_right
from .rows import Row
from .score import scenes

log = logging.getLogger(__name__)

REGISTERED_SEEDS = 8
NEEDED = tuple(arm.name for arm in (*BASES[1:], *ROWS))  # models that the claims are about
# What decides must be as it was when the rows were made; results of other code that changed show in `verify`.
FIXED = (
    "docs/miniature/expectations.md",
    "vc2/evaluation/miniature/claims.py",
    "docs/miniature/gates.json",  # its scale says what a defect of 1 is
    "vc2/evaluation/miniature/gates.py",
    "vc2/evaluation/picture.py",
    "vc2/evaluation/statistics.py",
)
OF_ONE_COMMIT = ("counted", "repeat")  # kinds whose rows decide
ASKED_LATER = tuple(arm.name for arm in LATER)  # which decide nothing, and may be of another commit
PER_CLIP = ("motion_error", "speed", "tremble")


@dataclass(frozen=True, eq=False)
class Seed:
    """A seed's rows, and what is read from them. `ends`: each arm's last step in a sketch, where all rows are of some
    prompts; elsewhere (None) a row of all prompts is an arm's last.
    """

    number: int
    rows: Sequence[Row]
    scale: Scale
    ends: Mapping[str, int] | None = None

    def row(self, arm: str, step: int | None = None, weights: str = "ema", fps: int = 8) -> Row | None:
        """The row of a model at a step, None for its last; None where there is no such row (yet)."""
        mine = [r for r in self.rows if (r["arm"], r["weights"], r["fps"]) == (arm, weights, fps)]
        if step is not None:
            mine = [r for r in mine if r["step"] == step]
        return max(mine, key=lambda r: r["step"], default=None)

    @cached_property
    def results(self) -> Results:
        """Of every arm's averaged row at its end."""
        last = {name: self.row(name) for name in (*BY_NAME, "random")}
        return Results({name: row for name, row in last.items() if row and self._at_its_end(row)}, self.scale)

    def _at_its_end(self, row: Row) -> bool:
        if self.ends is None:
            return bool(row["prompts"] == len(scenes()))
        return bool(row["step"] == self.ends.get(row["arm"], 0))

    @property
    def missing(self) -> list[str]:
        """Models that the claims need and that are not scored on all prompts."""
        return [name for name in NEEDED if name not in self.results.rows]

    def gates(self) -> list[Gate]:
        return of_a_seed(self.rows)


def on_some(row: Row) -> Row:
    """A row of all prompts as if the clips of `scenes(some=True)` alone had been made."""
    if row["prompts"] != len(scenes()):
        return row
    chosen = set(scenes(some=True))
    places = [place for place, scene in enumerate(scenes()) if scene in chosen]

    def pick(values: Sequence[Any]) -> list[Any]:
        return [values[place] for place in places]

    return {
        **{name: value for name, value in row.items() if name != "distance"},
        "prompts": len(places),
        "right": {name: "".join(pick(flags)) for name, flags in row["right"].items()},
        **{name: pick(row[name]) for name in PER_CLIP if name in row},
        "defects": {name: pick(values) for name, values in row["defects"].items()},
    }


def direction(row: Row) -> float:
    """Share of clips that move as the prompt says."""
    return share_right(row, "direction")


def speed(row: Row) -> float | None:
    """Mean speed of the clips with an object, as a share of the world's; None where no clip has one."""
    there = [value for value in row["speed"] if value is not None]
    return float(np.mean(there)) if there else None


def without_object(row: Row) -> float:
    """Share of clips in which no single object is found."""
    return float(np.mean([value is None for value in row["speed"]]))


@dataclass(frozen=True)
class Evidence:
    """`seeds` are those that the claims are decided on, `unfinished` what others lack, `extra` seeds beyond the
    registered number. `kind`: "counted", "repeat", "pilot" or "sketch".
    """

    kind: str
    seeds: tuple[Seed, ...]
    unfinished: Mapping[int, Sequence[str]]
    extra: tuple[int, ...]
    scale: Scale
    world_gates: tuple[Mapping[str, Any], ...]  # as gates.json has them
    commit: str
    encoders: Mapping[str, str]

    @property
    def prompts(self) -> int:
        return len(scenes(self.kind == "sketch"))


def gather(place: Place, folder: Path, gates: Path, kind: str) -> Evidence:
    """Read `folder/seed-*.jsonl`, and of seeds that count what was asked later, beside the folder. Raises RecipeError
    for rows of another world, recipe, encoder or code; OSError.
    """
    if not gates.is_file():
        raise RecipeError(f"{gates} is missing; `python -m vc2.evaluation.miniature gates` writes it")
    tree = json.loads(gates.read_text(encoding="utf-8"))
    if tree["world"] != world_hash():
        raise RecipeError(
            f"{gates} is of world {tree['world']}, and here it is {world_hash()}; run `python -m"
            " vc2.evaluation.miniature gates` anew"
        )
    scale = Scale(tree["scale"]["clean"], tree["scale"]["low"])
    paths = {int(path.stem.removeprefix("seed-")): path for path in folder.glob("seed-*.jsonl")}
    if kind != "sketch":
        paths = {number: path for number, path in paths.items() if (number in PILOT_SEEDS) == (kind == "pilot")}
    ends = {arm.name: place.stops(arm, 0)[-1] for arm in ARMS} if kind == "sketch" else None
    later = later_than(folder) if kind == "counted" else None
    read = {n: [*rows.read(path), *(rows.read(later / path.name) if later else ())] for n, path in paths.items()}
    seeds = [Seed(number, some, scale, ends) for number, some in sorted(read.items())]
    encoders = tree["encoders"]
    if kind == "sketch":  # which decides nothing, and so need not be made with what the gates were measured with
        encoders = next((row["encoders"] for seed in seeds for row in seed.rows), encoders)
    _check(place, folder, seeds, encoders, kind)
    finished = [seed for seed in seeds if not seed.missing]
    commits = sorted({row["commit"] for seed in seeds for row in seed.rows if row["arm"] not in ASKED_LATER})
    if kind == "counted" and commits:
        check_fixed(commits[0])
    return Evidence(
        kind,
        tuple(finished[:REGISTERED_SEEDS]),
        {seed.number: seed.missing for seed in seeds if seed.missing},
        tuple(seed.number for seed in finished[REGISTERED_SEEDS:]),
        scale,
        tuple(tree["gates"]),
        ", ".join(commits),
        encoders,
    )


def later_than(folder: Path) -> Path:
    """Where rows lie of models that were asked for after those of the seeds in `folder`."""
    return folder.with_name("later")


def _check(place: Place, folder: Path, seeds: Sequence[Seed], encoders: Mapping[str, str], kind: str) -> None:
    identities = {name: place.identity(arm) for name, arm in BY_NAME.items()}
    identities["random"] = identities["F-Spa-DIR"]
    first = next((row["commit"] for seed in seeds for row in seed.rows), "")
    for seed in seeds:
        for row in seed.rows:
            path = rows.path_of(later_than(folder) if row["arm"] in ASKED_LATER else folder, seed.number)
            wanted: dict[str, Any] = {"world": world_hash(), "encoders": encoders}
            # What the pilot was for is to choose the recipes.
            wanted |= {"recipe": identities.get(row["arm"])} if kind != "pilot" else {}
            wanted |= {"commit": first} if kind in OF_ONE_COMMIT and row["arm"] not in ASKED_LATER else {}
            for name, value in wanted.items():
                if row[name] != value:
                    raise RecipeError(
                        f"{path}: {row['arm']} has another {name}, {row[name]}, and here it is {value}; check out what"
                        " the rows were made by, or move the file away"
                    )
            if kind == "counted" and (not row["commit"] or row["commit"].endswith("-dirty")):
                raise RecipeError(
                    f"{path}: {row['arm']} was made by {row['commit'] or 'no commit'}; only rows of a commit without"
                    " changes count"
                )


def check_fixed(commit: str, root: Path = Path(__file__).parents[3]) -> None:
    """Raises RecipeError where what decides is no longer as it was in `commit`. Outside a checkout that has it, nothing
    can be compared.
    """

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)

    try:
        known = git("cat-file", "-e", f"{commit}^{{commit}}").returncode == 0
    except OSError:
        known = False
    if not known:
        log.warning("commit %s is not in this checkout; %s are not compared with it", commit, ", ".join(FIXED))
        return
    if changed := git("diff", "--name-only", commit, "--", *FIXED).stdout.split():
        raise RecipeError(
            f"{', '.join(changed)}: changed since the rows were made ({commit}); what was fixed before the runs"
            " decides, so take the change back"
        )
