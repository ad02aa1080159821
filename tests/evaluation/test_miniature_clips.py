"""Clips of the paper in miniature: which are shown, and sets of them that people rate."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation import synthetic
from tests.evaluation.synthetic import gathered, layout, sketch
from vc2.evaluation import suites
from vc2.evaluation.__main__ import parse
from vc2.evaluation.miniature import clips, grids, report, rows
from vc2.evaluation.miniature.arms import Place
from vc2.evaluation.miniature.evidence import gather
from vc2.evaluation.miniature.score import scenes
from vc2.evaluation.rate.server import Rating
from vc2.evaluation.rate.session import Session, begin
from vc2.evaluation.rows import read_scores
from vc2.files.video import read_clip
from vc2.training.errors import RecipeError


def test_clips_are_chosen_by_rule_and_shown_where_they_are(paper, tmp_path):
    found = gathered(paper)
    choice = grids.choose(found)
    errors = found.seeds[0].results.rows["P-Spa-LORA"]["motion_error"]
    assert errors[choice.by_motion["worst"]["P-Spa-LORA"]] == max(errors)
    assert errors[choice.by_motion["median"]["P-Spa-LORA"]] == pytest.approx(np.median(errors), abs=0.01)
    assert choice == grids.choose(found)
    folder, place = synthetic.write(tmp_path / "docs", seeds=(2,)), Place(tmp_path / "runs", tmp_path / "e")
    row = {name: found.seeds[0].results.rows[name] for name in grids.MODELS}
    for name in grids.MODELS:
        path = clips.clips_file(place, 2, row[name])
        path.parent.mkdir(parents=True)
        np.savez(path, clips=np.random.default_rng(0).integers(0, 255, (96, 8, 4, 4, 3), np.uint8))
    report.write(layout(folder, root=tmp_path / "runs"))
    assert "clips-random.webp" in (folder / "README.md").read_text()
    gallery = (tmp_path / "runs" / "report.html").read_text()  # of all models, motion error beside each clip
    shown = re.findall(r'data-set="([^"]*)" data-prompt="[^"]*" data-seed="2"', gallery)
    assert set(shown) == set(grids.MODELS)
    assert gallery.count("data:image/webp") == len(shown) >= 12 * len(grids.MODELS)
    assert sum((folder / name).stat().st_size for name in (grids.BY_MOTION, grids.RANDOM)) < 1.5e6
    # Elsewhere, without the clips, the pictures stay as long as the page chooses the same clips.
    report.write(layout(folder))
    assert (folder / grids.RANDOM).is_file()
    rows.path_of(folder / "rows", 2).unlink()
    report.write(layout(folder))
    assert not (folder / grids.RANDOM).is_file()


def test_clips_of_a_seed_become_sets_that_people_rate(tmp_path):
    made = sketch(tmp_path, ("F-base", "F-Spa-DIR"))
    found = gather(made.place, made.rows, made.gates, "sketch")
    folders = clips.export(found, made.place, 2, ("F-base", "F-Spa-DIR"))
    session = begin(folders, suites.load("miniature"), ["motion"], None, 1, 0, [("F-Spa-DIR", "F-base")], 10)
    assert {(pair.first.set, pair.second.set, pair.seed) for pair in session.pairs} == {("F-Spa-DIR", "F-base", 2)}
    captions = {scene.caption for scene in scenes(some=True)}
    assert {pair.prompt for pair in session.pairs} <= captions
    assert len({pair.prompt for pair in session.pairs}) == 10
    # The judge's scores are those of the very prompts.
    row = found.seeds[0].results.rows["F-Spa-DIR"]
    errors = {
        score.prompt: score.value
        for score in read_scores(folders[1] / "scores.jsonl")
        if score.metric == "motion error"
    }
    assert errors == dict(zip((scene.caption for scene in scenes(some=True)), row["motion_error"], strict=True))
    frames, fps = read_clip(folders[1] / f"{session.pairs[0].prompt_id}-2.mp4")
    assert (frames.shape, fps) == ((8, 64, 64, 3), 8)  # enlarged
    # Once more, nothing is written; of another model, nothing is mixed.
    before = {path: path.stat().st_mtime_ns for path in folders[0].iterdir()}
    assert clips.export(found, made.place, 2, ("F-base",)) == folders[:1]
    assert {path: path.stat().st_mtime_ns for path in folders[0].iterdir()} == before
    (made.place.root / "seed-2" / "F-base" / "model.safetensors").write_bytes(b"another")
    with pytest.raises(RecipeError, match="holds clips of another model"):
        clips.export(found, made.place, 2, ("F-base",))


def test_what_cannot_be_exported_is_told(tmp_path):
    made = sketch(tmp_path, ("F-base",))
    found = gather(made.place, made.rows, made.gates, "sketch")
    for number, arms, message in (
        (3, ("F-base",), "seed 3 is not finished; finished seeds: 2"),
        (2, ("SD",), "no clips of SD; there are"),
        (2, ("P-base",), r"P-base/clips-.*\.npz is missing"),
    ):
        with pytest.raises(RecipeError, match=message):
            clips.export(found, made.place, number, arms)


def test_the_rating_that_is_fixed_is_forty_pairs_of_four_meetings():
    command_line = clips.rating([Path("c", name) for name in clips.RATED])
    args = parse(shlex.split(command_line)[3:])
    assert [tuple(both) for both in args.meet] == list(clips.MEETINGS)
    assert (len(args.meet), args.pairs, args.out) == (4, 40, Path("c/votes"))
    assert "--meet" not in clips.rating([Path("c/F-base"), Path("c/P-base")])


def test_the_fixed_pairs_have_a_folder_of_their_own(tmp_path):
    made = sketch(tmp_path, clips.RATED)
    found = gather(made.place, made.rows, made.gates, "sketch")
    folders = clips.export(found, made.place, 2, clips.RATED)
    session = clips.fix(folders, tmp_path / "votes")
    assert clips.are_fixed(session)
    there = {path.relative_to(tmp_path).as_posix() for path in (tmp_path / "votes" / "clips").rglob("*.mp4")}
    entries = [entry for pair in session.pairs for entry in (pair.first, pair.second)]
    assert there == {f"votes/clips/{entry.set}/{entry.clip}" for entry in entries}
    scored = {(score.set, score.clip) for score in read_scores(tmp_path / "votes" / "rows.jsonl")}
    assert scored >= {(entry.set, entry.clip) for entry in entries}
    Rating(Session.load(tmp_path / "votes"), tmp_path / "votes")  # raises for other clips than those of the session
    with pytest.raises(FileExistsError, match="votes may be in it"):
        clips.fix(folders, tmp_path / "votes")


def test_the_pairs_here_can_be_voted_on_in_any_clone(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    folder = Path("docs/miniature/votes")
    session = Session.load(folder)
    assert clips.are_fixed(session)
    assert len({pair.prompt_id for pair in session.pairs}) == clips.PAIRS
    Rating(session, folder)
    assert sum(path.stat().st_size for path in folder.rglob("*.mp4")) < 1.6e6
