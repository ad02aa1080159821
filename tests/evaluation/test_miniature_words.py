"""Sentences of the report that depend on what came out: they say so where it did, and are silent where it did not."""

from __future__ import annotations

import json
import re

import pytest

from tests.evaluation import synthetic
from tests.evaluation.synthetic import PAPER, gathered, layout
from vc2.evaluation.miniature import report, rows
from vc2.evaluation.miniature.findings import Findings
from vc2.evaluation.miniature.verdicts import verdicts
from vc2.evaluation.miniature.words import Words

# F begins with better motion and loses more of it, and more of its defects, to spatial LoRA.
OTHERWISE = {
    **PAPER,
    "P-base": (0.6, 0.9, 0.9, 0.25, 0.3, 0.9, 0.0),
    "P-Spa-LORA": (0.65, 0.4, 0.1, 0.25, 0.8, 0.9, 0.5),
    "F-Spa-LORA": (0.6, 0.2, 0.4, 0.4, 0.8, 0.9, 0.5),
    "F-Temp-LORA-full": (0.5, 0.5, 0.1, 0.7, 0.4, 0.9, 0.5),
    "P-Spa-LORA-sham": (0.9, 0.9, 1.0, 0.2, 0.0, 0.1, 1.0),
}


@pytest.fixture(scope="module")
def otherwise(tmp_path_factory):
    folder = synthetic.write(tmp_path_factory.mktemp("otherwise") / "docs", OTHERWISE)
    report.write(layout(folder))
    return folder


def flat(folder) -> str:
    return " ".join((folder / "README.md").read_text().split(" ")).replace("\N{NO-BREAK SPACE}", " ")


def of(folder) -> Words:
    found = gathered(folder)
    return Words(found.seeds, verdicts(found), Findings.of(found.seeds))


def test_where_the_paper_is_right_recipe_and_reason_hold(paper):
    text = flat(paper)
    arrow = "\N{RIGHTWARDS ARROW}"
    assert re.search(
        rf"what it promises: defect 0\.[89]\d {arrow} 0\.[01]\d, held-out pairs right 3\d % {arrow} [89]\d %", text
    )
    assert "ties picture and motion closer together (claims 1 and 2), shows here too. No person" in text
    for other in (
        "refuted here",
        "moves better here too",
        "to blame",
        "turns around",
        "hardly two findings",
        "lost what it knew",
    ):
        assert other not in text, other
    assert text.count(": as claimed") == 10
    assert text.count("<details>") == text.count("</details>") > 5


def test_where_the_reason_fails_the_recipe_may_hold(otherwise):
    text = flat(otherwise)
    assert "does here what it promises" in text
    assert "(claims 1 and 2), is not what happens here: see which of their parts" in text
    assert "**refuted here, by 1a**" in text
    assert "**refuted here, by 2a**" in text
    assert "0 of 8: the other way" in text
    assert "So compared, F-Spa-LORA moves better here too" in text
    assert re.search(r"F-base follows direction words in 9\d % of its clips and P-base in 2\d %", text)
    assert "1a and 2a look at the same two models" in text
    assert "**2b turns around** where pictures also pass the temporal convolutions: F-Temp-LORA keeps 0.1" in text
    assert "nothing: P-Spa-LORA-sham has lost what it knew" in text
    assert "turned the sign of 1a is not known." in text


def test_before_eight_seeds_nothing_is_said_to_be_decided(tmp_path):
    folder = synthetic.write(tmp_path / "docs", OTHERWISE, seeds=(2, 3, 4))
    report.write(layout(folder))
    text = flat(folder)
    assert "(claims 1 and 2), is not decided before 8 seeds" in text
    assert "corrected p for the claim" not in text
    assert "hardly two findings" not in text  # of three seeds


def test_what_was_asked_later_answers_what_it_was_asked(otherwise, tmp_path):
    folder = synthetic.write(tmp_path / "docs", OTHERWISE, seeds=(2, 3, 4))
    for seed in (2, 3, 4):
        for name, motion in (("F-Spa-LORA-slow", 0.32), ("P-Spa-LORA-slow", 0.7), ("F-Spa-LORA-full-rank-slow", 0.6)):
            row = synthetic.row(seed, name, (motion, 0.4, 0.4, 0.4, 0.8, 0.9, 0.5), 1000)
            rows.append(rows.path_of(folder / "later", seed), row)
    words = of(folder)
    assert words.slower().startswith("It was the rate: with LoRA at 1e-3, asked later, 1a is +0.2")
    assert words.layers_or_rank().startswith("It ends far from F-Spa-DIR")
    assert words.from_p() == ""
    assert "is not known" in of(otherwise).slower()
    for seed in (3, 4):
        rows.path_of(folder / "later", seed).unlink()
    assert of(folder).slower().startswith("Whether it was the rate is open")
    assert of(folder).slower().endswith("in a single seed.")


@pytest.mark.parametrize(
    ("motions", "says"),
    [
        (
            (0.7, 0.7, 0.7),
            " *Its second stage needs the full base*: begun from P-base instead, motion error changes by +0.",
        ),
        ((0.05, 0.05, 0.05), " *Its second stage does better without the full base*: begun from P-base instead"),
        ((0.1, 0.8, 0.3), " *Whether its second stage needs the full base is open*: begun from P-base instead"),
        ((0.7,), ""),
    ],
)
def test_the_recipe_is_held_against_the_other_base(tmp_path, motions, says):
    folder = synthetic.write(tmp_path / "docs", PAPER, seeds=(2, 3, 4))
    for seed, motion in zip((2, 3, 4), motions, strict=False):
        row = synthetic.row(seed, "P-Spa-DIR", (motion, *PAPER["F-Spa-DIR"][1:]), 1000)
        rows.append(rows.path_of(folder / "later", seed), row)
    found = of(folder).from_p()
    assert found.startswith(says)
    assert bool(found) == bool(says)
    assert found in of(folder).in_short()


def test_a_difference_that_nobody_can_see_is_said_to_be_one(tmp_path):
    table = {**PAPER, "F-Spa-Temp-DIR": (0.34, *PAPER["F-Spa-DIR"][1:])}
    folder = synthetic.write(tmp_path / "docs", table)
    for path in (folder / "rows").iterdir():  # averaging changes more than that
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for row in lines:
            if (row["arm"], row["weights"]) == ("F-Spa-DIR", "raw"):
                row["motion_error"] = [min(1.0, error + 0.2) for error in row["motion_error"]]
        path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    words = of(folder)
    _, note = words.notes(3)
    assert "where leaving averaging away changes F-Spa-DIR by +0.2" in note
    assert ("not that it could be seen" in note) == (words.decided[2].verdict == "confirmed")


def test_models_of_no_seed_have_no_words(tmp_path):
    words = of(synthetic.write(tmp_path / "docs", seeds=()))
    assert [words.notes(claim) for claim in range(1, 6)] == [[]] * 5
    assert words.rank_correlations() == ""
