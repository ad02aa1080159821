"""The report of the paper in miniature on rows whose truth is known."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.evaluation import synthetic
from tests.evaluation.synthetic import PAPER, layout
from vc2.evaluation import suites, verify
from vc2.evaluation.__main__ import parse
from vc2.evaluation.miniature import __main__ as command
from vc2.evaluation.miniature import beside, clips, evidence, grids, report, rows, tables, verdicts
from vc2.evaluation.miniature.arms import BY_NAME, PILOT_SEEDS, ROWS, Place
from vc2.evaluation.miniature.evidence import Seed, check_fixed, gather, on_some
from vc2.evaluation.miniature.gates import NEEDS, of_a_seed
from vc2.evaluation.miniature.layouts import Layout
from vc2.evaluation.miniature.score import scenes
from vc2.evaluation.picture import DEFECTS, Scale
from vc2.evaluation.rate import results
from vc2.evaluation.rate import votes as cast
from vc2.evaluation.rate.session import Entry, Pair, Session, begin
from vc2.evaluation.rate.votes import Vote
from vc2.evaluation.rows import Score, append_scores, read_scores
from vc2.files.video import read_clip
from vc2.training.errors import RecipeError

# F loses more of its motion than P; training theta_T too changes nothing; P-base hardly moves.
REFUTED = {**PAPER, "P-Spa-LORA": (0.1, 0.2, 0.1, 0.6, 0.8, 0.9, 0.5)}
SAME = {**PAPER, "F-Spa-Temp-DIR": PAPER["F-Spa-DIR"]}
STILL = {
    **PAPER,
    "P-base": (0.85, 0.9, 0.9, 0.25, 0.3, 0.9, 0.0),
    "P-Spa-LORA": (0.97, 0.2, 0.1, 0.25, 0.8, 0.9, 0.5),
    "P-Temp-LORA": (0.97, 0.3, 0.2, 0.25, 0.5, 0.9, 0.5),
    "F-Spa-LORA": (0.32, 0.4, 0.4, 0.8, 0.8, 0.9, 0.5),
    "F-Temp-LORA": (0.35, 0.8, 0.85, 0.7, 0.4, 0.9, 0.5),
}
SCALE = Scale(dict.fromkeys(DEFECTS, 0.0), dict.fromkeys(DEFECTS, 1.0))


def gathered(folder: Path, kind: str = "counted") -> evidence.Evidence:
    return gather(synthetic.PLACE, folder / "rows", folder / "gates.json", kind)


def decided(folder: Path) -> dict[int, str]:
    return {verdict.claim.number: verdict.verdict for verdict in verdicts.verdicts(gathered(folder))}


@pytest.fixture(scope="module")
def paper(tmp_path_factory) -> Path:
    """Eight seeds as the paper would have them, and their report."""
    folder = synthetic.write(tmp_path_factory.mktemp("paper") / "docs")
    report.write(layout(folder))
    return folder


# Verdicts


def test_where_the_paper_is_right_all_claims_are_confirmed(paper):
    assert decided(paper) == dict.fromkeys(range(1, 6), "confirmed")


def test_a_claim_is_refuted_and_another_undecided_where_the_world_is_so(tmp_path):
    assert decided(synthetic.write(tmp_path / "a", REFUTED))[1] == "refuted"
    outcome = decided(synthetic.write(tmp_path / "b", SAME))
    assert outcome[3] == "undecided"
    assert outcome[1] == "confirmed"


def test_a_gate_that_fails_in_three_of_eight_seeds_makes_untestable_what_needs_it(tmp_path):
    folder = synthetic.write(tmp_path / "docs")
    for count, wanted in ((2, "confirmed"), (3, "untestable")):
        for seed in range(2, 2 + count):
            lines = (json.dumps(row) + "\n" for row in synthetic.of_a_seed(seed, STILL))
            rows.path_of(folder / "rows", seed).write_text("".join(lines))
        assert decided(folder) == {1: wanted, 2: wanted, 3: "confirmed", 4: "confirmed", 5: "confirmed"}
    reasons = {v.claim.number: v.why for v in verdicts.verdicts(gathered(folder))}
    assert reasons[1] == "gate failed: P-base: motion error, in seeds 2, 3, 4 of 8 finished"


def test_a_closed_gate_of_the_world_leaves_nothing_to_test(tmp_path):
    folder = synthetic.write(tmp_path / "docs")
    tree = json.loads((folder / "gates.json").read_text())
    tree["gates"][0] |= {"passed": False}
    (folder / "gates.json").write_text(json.dumps(tree))
    assert set(decided(folder).values()) == {"untestable"}


def test_every_gate_that_a_claim_needs_is_one_of_a_seed(paper):
    names = {gate.name for gate in of_a_seed(rows.read(rows.path_of(paper / "rows", 2)))}
    assert {name for needed in NEEDS.values() for name in needed} == names
    assert set(NEEDS) == {1, 2, 3, 4, 5}


# Which seeds count


def test_pilot_seeds_unfinished_seeds_and_seeds_beyond_eight_do_not_count(tmp_path):
    folder = synthetic.write(tmp_path / "docs", seeds=(0, 1, *range(2, 11)))
    path = rows.path_of(folder / "rows", 4)
    path.write_text("".join(line for line in path.read_text().splitlines(True) if '"arm": "F-Temp-DIR"' not in line))
    found = gathered(folder)
    assert [seed.number for seed in found.seeds] == [2, 3, 5, 6, 7, 8, 9, 10]
    assert found.unfinished == {4: ["F-Temp-DIR"]}
    assert [seed.number for seed in gathered(folder, "pilot").seeds] == list(PILOT_SEEDS)
    (lines,) = [line for line in synthetic.of_a_seed(11, PAPER) if line["arm"] == "random"]  # cheap: one row
    rows.append(rows.path_of(folder / "rows", 11), lines)
    assert 11 in gathered(folder).unfinished


@pytest.mark.parametrize("kind", ["counted", "sketch"])
def test_a_finetune_on_its_way_is_not_finished(tmp_path, kind):
    """Its last row is a snapshot."""
    folder = synthetic.write(tmp_path / "docs", seeds=())
    place = Place(tmp_path, tmp_path / "e", quick=kind == "sketch")
    written = list(synthetic.of_a_seed(2, PAPER, quick=place.quick))
    written = [{**row, "recipe": place.identity(BY_NAME["F-Spa-DIR" if row["arm"] == "random" else row["arm"]])}
               for row in written]  # fmt: skip
    end = max(row["step"] for row in written if row["arm"] == "F-Temp-DIR")
    for shown in (written, [row for row in written if (row["arm"], row["step"]) != ("F-Temp-DIR", end)]):
        rows.path_of(folder / "rows", 2).write_text("".join(json.dumps(row) + "\n" for row in shown))
        found = gather(place, folder / "rows", folder / "gates.json", kind)
        assert found.unfinished == ({} if shown is written else {2: ["F-Temp-DIR"]})
    report.write(Layout(folder, folder / "rows", folder / "gates.json", place, kind))


def test_fewer_than_eight_seeds_are_said_plainly_and_confirm_nothing(tmp_path):
    folder = synthetic.write(tmp_path / "docs", seeds=(2, 3))
    report.write(layout(folder))
    text = (folder / "README.md").read_text()
    assert "**2 of 8 seeds are finished.**" in text
    assert set(decided(folder).values()) == {"undecided"}


def test_one_seed_and_none_make_a_page_too(tmp_path):
    one, none = synthetic.write(tmp_path / "one", seeds=(2,)), synthetic.write(tmp_path / "none", seeds=())
    for folder in (one, none):
        report.write(layout(folder))
    assert "Needs two seeds" in (one / "README.md").read_text()
    assert "No seed is finished yet" in (none / "README.md").read_text()
    assert set(decided(none).values()) == {"not run yet"}


@pytest.mark.parametrize(
    ("name", "value"), [("world", "f" * 16), ("recipe", "f" * 16), ("encoders", {"text": "f"}), ("commit", "f" * 40)]
)
def test_rows_of_another_world_recipe_encoder_or_commit_are_refused(tmp_path, name, value):
    folder = synthetic.write(tmp_path / "docs", seeds=(2,))
    path = rows.path_of(folder / "rows", 2)
    written = rows.read(path)
    written[7][name] = value
    path.write_text("".join(json.dumps(row) + "\n" for row in written))
    with pytest.raises(RecipeError, match=rf"seed-2\.jsonl: {written[7]['arm']} has another {name}"):
        gathered(folder)


def test_a_sketch_may_have_another_autoencoder_than_the_gates(tmp_path):
    made = sketch(tmp_path, ())
    path = rows.path_of(made.rows, 2)
    path.write_text(path.read_text().replace(synthetic.ENCODERS["autoencoder"], "c" * 16))
    assert gather(made.place, made.rows, made.gates, "sketch").encoders["autoencoder"] == "c" * 16
    rows.append(path, {**rows.read(path)[0], "encoders": synthetic.ENCODERS})
    with pytest.raises(RecipeError, match="another encoders"):
        gather(made.place, made.rows, made.gates, "sketch")


def test_rows_of_changed_code_do_not_count(tmp_path):
    folder = synthetic.write(tmp_path / "docs", seeds=(2,))
    path = rows.path_of(folder / "rows", 2)
    path.write_text(path.read_text().replace(synthetic.COMMIT, synthetic.COMMIT + "-dirty"))
    with pytest.raises(RecipeError, match="only rows of a commit without changes count"):
        gathered(folder)


def test_what_was_fixed_must_not_have_changed_since(tmp_path):
    def git(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        done = subprocess.run(["git", "-C", tmp_path, *identity, *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    for name in evidence.FIXED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("as it was")
    git("add", "."), git("commit", "-qm", "fixed")
    commit = git("rev-parse", "HEAD")
    check_fixed(commit, tmp_path)
    (tmp_path / evidence.FIXED[1]).write_text("otherwise")
    with pytest.raises(RecipeError, match=r"claims\.py: changed since the rows were made"):
        check_fixed(commit, tmp_path)
    check_fixed("0" * 40, tmp_path)  # unknown here: nothing to compare with


# Tables


def test_the_tables_say_what_the_rows_say(paper):
    seeds = gathered(paper).seeds
    table = tables.table_3(seeds)
    for name in PAPER:
        assert table[name]["motion error"].mean == pytest.approx(PAPER[name][0], abs=0.05), name
        assert table[name]["defect"].mean == pytest.approx(PAPER[name][1], abs=0.05), name
        assert table[name]["watermark"].mean == pytest.approx(PAPER[name][2], abs=0.05), name
        assert table[name]["direction"].mean == pytest.approx(PAPER[name][3], abs=0.05), name
        assert table[name]["held-out pairs"].mean == pytest.approx(PAPER[name][4], abs=0.1), name
    one, *_ = tables.table_4(seeds)
    assert (one.first, one.second) == ("F-Spa-LORA", "P-Spa-LORA")
    assert one.wins > 0.9 * one.clips  # the lower error moves better
    assert one.clips == 8 * 96
    assert 0.03 < one.tie < 0.08  # what the synthetic rows differ by: 0.02 a seed and 0.05 a clip


def test_a_model_ties_with_one_like_it(tmp_path):
    alike = tables.table_4(gathered(synthetic.write(tmp_path / "docs", SAME)).seeds)[2]
    assert alike.ties > 0.4 * alike.clips
    assert abs(alike.wins - alike.losses) < 0.25 * alike.clips


def test_a_row_of_all_prompts_is_cut_to_the_prompts_of_snapshots():
    whole = synthetic.row(2, "F-base", PAPER["F-base"], 4000)
    whole["motion_error"] = [scene.colour + 10 * scene.direction for scene in scenes()]
    cut = on_some(whole)
    assert cut["motion_error"] == [scene.colour + 10 * scene.direction for scene in scenes(some=True)]
    assert {len(values) for values in (*cut["right"].values(), *cut["defects"].values())} == {32}
    assert on_some(cut) == cut


# Beside


def straight(arm: str, steps: int, defect: float, motion: float) -> list[rows.Row]:
    """A finetune that goes straight from F- or P-base (defect 1, motion error 0.2)."""
    out = []
    for step in (0, 50, steps):
        way = step / steps
        row = synthetic.row(2, arm if step else f"{arm[0]}-base", (0.0,) * 7, step, some=True)
        row["motion_error"] = [0.2 + way * (motion - 0.2)] * 32
        row["defects"] = {name: [1 + way * (defect - 1)] * 32 for name in DEFECTS}
        row["change"] = {"spatial": way * motion, "temporal": 0.0}
        out.append(row)
    return out


def test_motion_is_compared_where_the_pictures_are_equal():
    """P goes twice as far on the same way: at equal picture there is no difference, at the end there is."""
    made = straight("P-Spa-LORA", 1000, defect=0.2, motion=0.6) + straight("F-Spa-LORA", 1000, defect=0.6, motion=0.4)
    seed = Seed(2, made, SCALE)
    equal = {
        c.topic: c.of(seed)
        for c in beside.CONTRASTS
        if c.positive == "P-Spa-LORA loses more of its motion than F-Spa-LORA"
    }
    assert equal["equal defect"] == pytest.approx(0, abs=1e-6)
    steeper = Seed(2, straight("P-Spa-LORA", 1000, 0.2, 1.0) + made[3:], SCALE)
    assert next(c.of(steeper) for c in beside.CONTRASTS if c.topic == "equal defect") == pytest.approx(0.2)


def of_claim_1(made: list[rows.Row]) -> dict[str, float | None]:
    wanted = "P-Spa-LORA loses", "P-Spa-LORA has more", "motion error rises more from P-base to P-Spa"
    return {
        c.topic: c.of(Seed(2, made, SCALE, {row["arm"]: row["step"] for row in made}))
        for c in beside.CONTRASTS
        if c.claims == (1,) and c.positive.startswith(wanted)
    }


def test_motion_is_compared_in_itself_too_and_without_clips_that_show_nothing():
    def model(arm: str, step: int, motion: float, unseen: int = 0) -> rows.Row:
        row = synthetic.row(2, arm, (0.0,) * 7, step)
        row["motion_error"] = [1.0] * unseen + [motion] * (96 - unseen)
        row["speed"] = [None] * unseen + [1.0] * (96 - unseen)
        return row

    made = [model("P-base", 4000, 0.6), model("F-base", 4000, 0.2)]
    # P rises by 0.2 of 0.4, F by 0.3 of 0.8; and a third of F's clips show nothing.
    looked = of_claim_1([*made, model("P-Spa-LORA", 1000, 0.8), model("F-Spa-LORA", 1000, 0.5)])
    assert looked["motion error itself, and not its share (P-base has less to lose)"] == pytest.approx(0.2 - 0.3)
    assert looked["where they end, not how far they came"] == pytest.approx(0.3)
    unseen = of_claim_1([*made, model("P-Spa-LORA", 1000, 0.8), model("F-Spa-LORA", 1000, 0.3, unseen=32)])
    assert unseen["only clips with an object, before and after"] == pytest.approx(0.2 - 0.1)
    assert unseen["where they end, not how far they came"] < 0.3


def test_contrasts_see_every_control(paper):
    seen = beside.look(gathered(paper).seeds)
    assert all(len(one.values) >= 7 for one in seen)
    assert {tuple(one.values) for one in beside.look(())} == {()}
    by = {(one.contrast.topic, one.contrast.positive): one.mean for one in seen}
    (held_out,) = [mean for (topic, text), mean in by.items() if "held-out pairs right than" in text]
    assert held_out > 0.3


def test_what_is_better_on_both_counts_dominates(tmp_path):
    table = {**PAPER, "F-Temp-DIR": (0.1, 0.02, 0.0, 0.9, 0.9, 0.95, 0.9)}
    seeds = gathered(synthetic.write(tmp_path / "docs", table, (2, 3))).seeds
    assert beside.dominating(seeds)["F-Temp-DIR"] == [2, 3]
    assert "F-Spa-LORA" not in beside.dominating(seeds)


# What is written


def test_the_report_follows_from_the_rows(paper):
    for name, text in report.regenerate(layout(paper)).items():
        assert (paper / name).read_text() == text, name


def test_the_page_names_the_commit_and_its_plots_are_whole(paper):
    text = (paper / "README.md").read_text()
    assert f"in commit `{synthetic.COMMIT}`" in text
    assert text.count("**confirmed**") == 5
    assert "metric-judged" in text.lower()
    for name in re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text):
        assert (paper / name).is_file(), name
        ElementTree.parse(paper / name)
    circles = ElementTree.parse(paper / "forest.svg").iter("{http://www.w3.org/2000/svg}circle")
    assert len(list(circles)) == 8 * 10
    assert {
        name for name in (arm.name for arm in ROWS) if f">{name}<" not in (paper / "trajectories.svg").read_text()
    } == set()


@pytest.mark.parametrize(
    ("seeds", "sentence"),
    [
        ((), "no seed counted yet"),
        ((2, 3), "2 of 8 seeds counted, so nothing is decided yet"),
    ],
)
def test_the_front_page_says_how_it_stands(tmp_path, seeds, sentence):
    folder = synthetic.write(tmp_path / "docs" / "miniature", seeds=seeds)
    front = tmp_path / "README.md"
    front.write_text("It holds: <!-- verdicts -->who knows<!-- /verdicts -->, they say.\n")
    report.write(layout(folder))
    assert front.read_text() == f"It holds: <!-- verdicts -->{sentence}<!-- /verdicts -->, they say.\n"
    front.write_text(front.read_text().replace(sentence, "yes"))
    assert "they say" in verify.compare(folder, report.regenerate(layout(folder)))


def test_the_sentence_counts_verdicts(paper):
    found = gathered(paper)
    decided = verdicts.verdicts(found)
    assert verdicts.in_a_sentence(found, decided) == "of its 5 claims 5 confirmed, over 8 training seeds"
    mixed = [replace(decided[0], verdict="untestable"), replace(decided[1], verdict="undecided"), *decided[2:]]
    sentence = "of its 5 claims 3 confirmed, 1 undecided, 1 untestable, over 8 training seeds"
    assert verdicts.in_a_sentence(found, mixed) == sentence


def test_the_front_page_here_has_the_sentence():
    assert report.HOW_IT_STANDS.search((Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8"))


def test_votes_that_lie_there_are_in_the_report_and_verified(tmp_path):
    folder = synthetic.write(tmp_path / "docs", seeds=())
    report.write(layout(folder))
    assert "Nobody has voted yet" in (folder / "README.md").read_text()
    votes = folder / "votes"
    votes.mkdir()
    pairs = tuple(
        Pair(
            f"{i}", f"p{i}", "", 2, *(Entry(name, f"{name}{i}", f"{name}{i}", "t") for name in ("F-base", "F-Spa-DIR"))
        )
        for i in range(12)
    )
    Session(("F-base", "F-Spa-DIR"), ("a", "b"), ("visual",), 0, pairs).save(votes)
    for i in range(12):
        winner, both = ("F-base" if i < 3 else "F-Spa-DIR"), ("F-base", "F-Spa-DIR")
        cast.add(votes / "votes.jsonl", Vote(i, "ada", "visual", f"{i}", f"p{i}", *both, "left", winner, 1.0, ""))
    how = ("defect", "ok", "judge", None, "none")
    append_scores(
        votes / "rows.jsonl",
        [
            Score(name, f"{name}{i}", f"{name}{i}", f"p{i}", 2, how[0], value, *how[1:])
            for i in range(12)
            for name, value in (("F-base", 0.9), ("F-Spa-DIR", 0.1))
        ],
    )
    results.write(votes)
    report.write(layout(folder))
    assert "12 blind votes of 1 rater " in (folder / "README.md").read_text()
    assert "| visual | defect | 75 % [47, 91] | 12 |" in (folder / "README.md").read_text()
    assert verify.difference(folder) == ""
    (votes / "votes.jsonl").write_text("")
    assert "votes/results.json:" in verify.difference(folder)


def test_numbers_are_whole_and_finite(paper):
    tree = json.loads((paper / "report.json").read_text(), parse_constant=lambda text: pytest.fail(text))
    assert [claim["verdict"] for claim in tree["claims"]] == ["confirmed"] * 5
    assert tree["seeds"] == list(range(2, 10))


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


def sketch(folder: Path, arms: tuple[str, ...]) -> Layout:
    """A finished sketch of seed 2, and what the runner leaves of some of its models."""
    synthetic.write(folder, seeds=())
    place = Place(folder / "runs", folder / "e", quick=True)
    written = [
        {**row, "recipe": place.identity(BY_NAME["F-Spa-DIR" if row["arm"] == "random" else row["arm"]])}
        for row in synthetic.of_a_seed(2, PAPER, quick=True)
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


def test_the_command_refuses_rows_that_do_not_belong_here(tmp_path, monkeypatch, capsys):
    folder = synthetic.write(tmp_path / "docs" / "miniature", seeds=(2,))
    monkeypatch.chdir(tmp_path)
    assert command.main(["report"]) == 0
    assert "1 finished seeds: docs/miniature/README.md" in capsys.readouterr().out
    path = rows.path_of(folder / "rows", 2)
    path.write_text(path.read_text().replace('"world": "', '"world": "0'))
    assert command.main(["report"]) == 2
    assert "another world" in capsys.readouterr().err
