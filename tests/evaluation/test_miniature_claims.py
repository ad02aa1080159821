"""The claims of the paper in miniature on rows whose truth is known: what is decided, and which seeds count."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.evaluation import synthetic
from tests.evaluation.synthetic import PAPER, SAME, gathered, layout, sketch
from vc2.evaluation.miniature import evidence, report, rows, verdicts
from vc2.evaluation.miniature.arms import BY_NAME, LATER, PILOT_SEEDS, Place
from vc2.evaluation.miniature.evidence import check_fixed, gather
from vc2.evaluation.miniature.gates import NEEDS, of_a_seed
from vc2.evaluation.miniature.layouts import Layout
from vc2.training.errors import RecipeError

# F loses more of its motion than P; P-base hardly moves.
REFUTED = {**PAPER, "P-Spa-LORA": (0.1, 0.2, 0.1, 0.6, 0.8, 0.9, 0.5)}
STILL = {
    **PAPER,
    "P-base": (0.85, 0.9, 0.9, 0.25, 0.3, 0.9, 0.0),
    "P-Spa-LORA": (0.97, 0.2, 0.1, 0.25, 0.8, 0.9, 0.5),
    "P-Temp-LORA": (0.97, 0.3, 0.2, 0.25, 0.5, 0.9, 0.5),
    "F-Spa-LORA": (0.32, 0.4, 0.4, 0.8, 0.8, 0.9, 0.5),
    "F-Temp-LORA": (0.35, 0.8, 0.85, 0.7, 0.4, 0.9, 0.5),
}


def decided(folder: Path) -> dict[int, str]:
    return {verdict.claim.number: verdict.verdict for verdict in verdicts.verdicts(gathered(folder))}


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


def test_what_was_asked_later_stands_beside_and_decides_nothing(tmp_path):
    folder, arm = synthetic.write(tmp_path / "docs", seeds=(2, 3)), LATER[0]
    report.write(layout(folder))
    before = json.loads((folder / "report.json").read_text())
    assert "-slow`" not in (folder / "README.md").read_text()
    later = {**synthetic.row(2, arm.name, (0.5,) * 7, 1000), "commit": "e" * 40}
    rows.append(rows.path_of(folder / "later", 2), later)
    report.write(layout(folder))
    after = json.loads((folder / "report.json").read_text())
    assert all(after[name] == before[name] for name in ("claims", "commit", "seeds"))
    assert arm.name in after["table 3"]
    assert "`-full-rank-slow`: the same at F-Spa-DIR's rate" in (folder / "README.md").read_text()
    asked = [one["values"] for one in after["beside"] if one["topic"].startswith("asked later")]
    assert [values.keys() for values in asked if values] == [{"2"}] * 4
    rows.path_of(folder / "later", 2).write_text(json.dumps({**later, "recipe": "f" * 16}) + "\n")
    with pytest.raises(RecipeError, match=f"{arm.name} has another recipe"):
        gathered(folder)


def test_a_repetition_decides_by_itself_and_its_rows_are_of_one_commit(tmp_path):
    folder = synthetic.write(tmp_path / "repeat")
    report.write(layout(folder, "repeat"))
    text = (folder / "README.md").read_text()
    assert text.count("**confirmed**") == 5
    assert f"**A repetition**, from nothing, by commit `{synthetic.COMMIT}`: 8 of 8 seeds" in text
    path = rows.path_of(folder / "rows", 5)
    path.write_text(path.read_text().replace(synthetic.COMMIT, "d" * 40))
    with pytest.raises(RecipeError, match=r"seed-5\.jsonl: F-base has another commit"):
        gathered(folder, "repeat")


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
