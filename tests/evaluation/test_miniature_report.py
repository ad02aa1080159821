"""The page of the paper in miniature: it follows from the rows, and says how the claims stand."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.evaluation import synthetic
from tests.evaluation.synthetic import gathered, layout
from vc2.evaluation import verify
from vc2.evaluation.miniature import __main__ as command
from vc2.evaluation.miniature import clips, report, rows, verdicts
from vc2.evaluation.miniature.arms import ROWS
from vc2.evaluation.rate import results
from vc2.evaluation.rate import votes as cast
from vc2.evaluation.rate.session import Entry, Pair, Session
from vc2.evaluation.rate.votes import Vote
from vc2.evaluation.rows import Score, append_scores
from vc2.training.errors import RecipeError


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
    begins, ends = "of its 5 claims, as put for a drawn world, ", ", over 8 training seeds"
    assert verdicts.in_a_sentence(found, decided) == f"{begins}5 confirmed (1, 2, 3, 4, 5){ends}"
    parts = tuple(replace(part, p_against=p) for part, p in zip(decided[2].parts, (0.5, 0.004), strict=True))
    refuted = replace(decided[2], verdict="refuted", parts=parts)
    first = [replace(decided[0], verdict="untestable"), replace(decided[1], verdict="undecided"), refuted]
    mixed = [*first, *decided[3:]]
    sentence = f"{begins}2 confirmed (4, 5), 1 refuted (3 by its part 3b), 1 undecided (2), 1 untestable (1){ends}"
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
        Pair(f"{first}{i}", f"p{i}", "", 2, *(Entry(name, f"{name}{i}", f"{name}{i}", "t") for name in (first, second)))
        for first, second in clips.MEETINGS
        for i in range(10)
    )
    session = Session(clips.RATED, tuple(clips.RATED), clips.QUESTIONS, 0, pairs)
    session.save(votes)
    report.write(layout(folder))
    assert "Nobody has voted yet" in (folder / "README.md").read_text()
    assert verify.difference(folder) == ""
    for i in range(10):
        winner, both = ("F-base" if i < 2 else "F-Spa-DIR"), ("F-base", "F-Spa-DIR")
        cast.add(votes / "votes.jsonl", Vote(i, "ada", "visual", f"F-base{i}", f"p{i}", *both, "left", winner, 1.0, ""))
    how = ("defect", "ok", "judge", None, "none")
    append_scores(
        votes / "rows.jsonl",
        [
            Score(name, f"{name}{i}", f"{name}{i}", f"p{i}", 2, how[0], value, *how[1:])
            for i in range(10)
            for name, value in (("F-base", 0.9), ("F-Spa-DIR", 0.1))
        ],
    )
    results.write(votes)
    report.write(layout(folder))
    assert "10 blind votes of 1 rater " in (folder / "README.md").read_text()
    assert "| visual | defect | 80 % [49, 94] | 10 |" in (folder / "README.md").read_text()
    assert verify.difference(folder) == ""
    (votes / "votes.jsonl").write_text("")
    assert "votes/results.json:" in verify.difference(folder)
    replace(session, pairs=pairs[1:]).save(votes)
    with pytest.raises(RecipeError, match="holds votes on other pairs"):
        report.write(layout(folder))


def test_numbers_are_whole_and_finite(paper):
    tree = json.loads((paper / "report.json").read_text(), parse_constant=lambda text: pytest.fail(text))
    assert [claim["verdict"] for claim in tree["claims"]] == ["confirmed"] * 5
    assert tree["seeds"] == list(range(2, 10))


def test_the_command_refuses_rows_that_do_not_belong_here(tmp_path, monkeypatch, capsys):
    folder = synthetic.write(tmp_path / "docs" / "miniature", seeds=(2,))
    monkeypatch.chdir(tmp_path)
    assert command.main(["report"]) == 0
    assert "1 finished seeds: docs/miniature/README.md" in capsys.readouterr().out
    path = rows.path_of(folder / "rows", 2)
    path.write_text(path.read_text().replace('"world": "', '"world": "0'))
    assert command.main(["report"]) == 2
    assert "another world" in capsys.readouterr().err
