"""A finished seed's clips as sets of files, so that people can rate them: `clips` and `pairs` on the command line."""

from __future__ import annotations

import shlex
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ...files.output import scratch_folder
from ...files.video import write_video
from ...metrics.metric import file_hash
from ...training.errors import RecipeError
from ...training.sources import world
from .. import suites
from ..generate import write as write_manifest
from ..rate.metrics import keep_scores
from ..rate.session import Session, begin
from ..report.measures import AS_ASKED, DEFECT, MOTION_ERROR
from ..rows import OK, Score, append_scores
from ..sets import SCORES, Manifest, read_manifest
from .arms import BY_NAME, Place
from .evidence import Evidence, Seed
from .gates import FPS
from .rows import Row
from .score import scenes
from .tables import TABLE_4

# What docs/rating.md fixes: the pairs of the paper's Table 4, and what its finetuning does to the picture; ten pairs
# of clips each.
MEETINGS = (*TABLE_4, ("F-base", "F-Spa-DIR"))
SEED, PAIRS = 2, 10 * len(MEETINGS)
RATED = tuple(dict.fromkeys(name for both in MEETINGS for name in both))
QUESTIONS = ("motion", "visual")
# So that the codec, which halves the resolution of colour, is no part of what is rated.
CRF, ENLARGED = 18, 4


def clips_file(place: Place, seed: int, row: Row) -> Path:
    """Where the runner has left the clips of a row."""
    kind = f"{row['step']}-{row['weights']}-fps{row['fps']}"
    return place.root / f"seed-{seed}" / row["arm"] / f"clips-{kind}.npz"


def prompt_id(scene: world.Scene) -> str:
    """As the suite `miniature` has it."""
    return "-".join(
        (list(world.COLOURS)[scene.colour], world.SHAPES[scene.shape], list(world.DIRECTIONS)[scene.direction])
    )


def scores(name: str, row: Row, seed: Seed, files: Sequence[tuple[str, str]]) -> Iterator[Score]:
    """The judge's of every clip; `files`: name and hash of each."""
    for index, (scene, (clip, clip_hash)) in enumerate(
        zip(scenes(row["prompts"] != len(scenes())), files, strict=True)
    ):
        defects = {defect: np.nan if some[index] is None else some[index] for defect, some in row["defects"].items()}
        values = {
            MOTION_ERROR.name: row["motion_error"][index],
            DEFECT.name: seed.scale.defect(defects),
            AS_ASKED.name: row["right"]["joint"][index],
        }
        for measure, value in values.items():
            about = (name, clip, clip_hash, prompt_id(scene), seed.number, measure, float(value), OK)
            yield Score(*about, "vc2.evaluation.judge", None, "frames as sampled", prompt=scene.caption)


def export(evidence: Evidence, place: Place, number: int, arms: Sequence[str]) -> list[Path]:
    """Write each arm's last averaged clips, enlarged, as a set for `rate`, with the judge's scores of the clips as they
    were sampled; a set that is there stays. Returns the folders. Raises RecipeError for a seed or clips that are not
    there, OSError.
    """
    seed = next((seed for seed in evidence.seeds if seed.number == number), None)
    if seed is None:
        lacking = f" (to come: {', '.join(evidence.unfinished[number])})" if number in evidence.unfinished else ""
        finished = ", ".join(str(one.number) for one in evidence.seeds) or "none"
        raise RecipeError(f"seed {number} is not finished{lacking}; finished seeds: {finished}")
    if unknown := [name for name in arms if name not in seed.results.rows]:
        raise RecipeError(f"no clips of {', '.join(unknown)}; there are {', '.join(seed.results.rows)}")
    folders = []
    for name in arms:
        row = seed.results.rows[name]
        folder, clips = place.root / "clips" / f"seed-{number}" / name, clips_file(place, number, row)
        model = clips.with_name("model.safetensors")
        for path in (clips, model):
            if not path.is_file():
                raise RecipeError(f"{path} is missing; clips are exported where they were made")
        manifest = _manifest(place, name, row, seed, model)
        before = read_manifest(folder)
        if before is None:
            _write(folder, np.load(clips)["clips"], manifest, row, seed)
        elif replace(before, versions=manifest.versions) != manifest:
            raise RecipeError(f"{folder} holds clips of another model; move it away")
        folders.append(folder)
    return folders


def _manifest(place: Place, name: str, row: Row, seed: Seed, model: Path) -> Manifest:
    suite = suites.load("miniature")
    return Manifest(
        name=name,
        checkpoint=str(model.relative_to(place.root)),
        checkpoint_hash=file_hash(model),
        suite=suite.name,
        suite_hash=suite.hash,
        seeds=[seed.number],
        settings=place.recipe(BY_NAME["F-Spa-DIR" if name == "random" else name], seed.number).sampling.model_dump(),
        save_fps=float(FPS),
        device="",
        dtype=row["precision"],
        commit=row["commit"],
        versions={"torch": row["torch"]},
    )


def _write(folder: Path, clips: np.ndarray, manifest: Manifest, row: Row, seed: Seed) -> None:
    """Whole or not at all."""
    files = []
    with scratch_folder(folder) as scratch:
        made = scratch / folder.name
        made.mkdir()
        for clip, scene in zip(clips, scenes(len(clips) != len(scenes())), strict=True):
            path = made / f"{prompt_id(scene)}-{seed.number}.mp4"
            write_video(path, [_enlarged(frame) for frame in clip], FPS, crf=CRF)
            files.append((path.name, file_hash(path)))
        append_scores(made / SCORES, scores(manifest.name, row, seed, files))
        (made / f"{SCORES}.lock").unlink(missing_ok=True)
        write_manifest(made, manifest)
        made.replace(folder)


def fix(folders: Sequence[Path], folder: Path) -> Session:
    """Write the pairs that docs/rating.md fixes, of the sets of all `RATED` models: `folder/session.json`, their clips
    in `folder/clips`, the judge's scores in `folder/rows.jsonl`. Raises FileExistsError where there are some, OSError.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} is there already, and votes may be in it; move it away")
    session = begin(folders, suites.load("miniature"), QUESTIONS, None, 1, 0, MEETINGS, PAIRS)
    with scratch_folder(folder) as scratch:
        made = scratch / folder.name
        for entry in (entry for pair in session.pairs for entry in (pair.first, pair.second)):
            target = made / "clips" / entry.set / entry.clip
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folders[session.sets.index(entry.set)] / entry.clip, target)
        keep_scores(session, made)
        asked = {"questions": ",".join(QUESTIONS), "meet": [list(both) for both in MEETINGS], "pairs": PAIRS, "seed": 0}
        kept = tuple((folder / "clips" / name).as_posix() for name in session.sets)
        session = replace(session, folders=kept, asked=asked)
        session.save(made)
        made.replace(folder)
    return session


def are_fixed(session: Session) -> bool:
    """Whether a session is of as many pairs of each meeting as docs/rating.md says."""
    met = Counter((pair.first.set, pair.second.set) for pair in session.pairs)
    return met == dict.fromkeys(MEETINGS, PAIRS // len(MEETINGS)) and session.questions == QUESTIONS


def _enlarged(frame: np.ndarray) -> np.ndarray:
    size = (ENLARGED * frame.shape[1], ENLARGED * frame.shape[0])
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))


def rating(folders: Sequence[Path]) -> str:
    """The command that has the fixed pairs rated; with other sets, every two meet."""
    names = {folder.name for folder in folders}
    meetings = [both for both in MEETINGS if names == set(RATED)]
    words = ["python", "-m", "vc2.evaluation", "rate", *map(str, folders), "--questions", ",".join(QUESTIONS)]
    words += [word for both in meetings for word in ("--meet", *both)]
    return shlex.join([*words, "--pairs", str(PAIRS), "-o", str(folders[0].parent / "votes")])
