"""What is said of speed and memory follows from what was counted and measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench import cards, machine, performance, performance_report

ROOT = Path(__file__).parent.parent


def test_the_readme_says_what_is_counted():
    """Where this fails, `python -m bench.cards` writes it anew."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Which card\n")[1].split("\n## ")[0]
    assert section.strip() == cards.text().strip()


def test_a_larger_card_takes_more_and_a_larger_picture_fewer():
    model = cards.weights()
    small, large = (cards.most_frames(8, size, model) for size in cards.SIZES)
    assert small > large
    assert cards.most_frames(12, cards.SIZES[1], model) > large
    assert model == pytest.approx(2.83e9, rel=0.01)


def test_the_report_is_that_of_its_rows(tmp_path):
    """Where this fails, `python -m bench.performance --report` writes it anew."""
    shutil.copytree(ROOT / "docs" / "performance", tmp_path / "performance")
    performance_report.write(tmp_path)
    for name in ("performance.md", "performance/cpu.svg", "performance/few_steps.svg"):
        assert (tmp_path / name).read_text() == (ROOT / "docs" / name).read_text(), name


def test_a_case_that_is_measured_again_takes_the_place_of_its_row(tmp_path):
    path = tmp_path / "rows.json"
    for rows in ([{"case": 1, "found": 1}, {"case": 2, "found": 1}], [{"case": 1, "found": 2}]):
        performance.keep(path, rows, {"commit": "x"})
    kept = {row["case"]: row["found"] for row in json.loads(path.read_text())["rows"]}
    assert kept == {1: 2, 2: 1}


def test_a_machine_that_slows_down_slows_both():
    times = {"ours": [1.0, 2.0, 4.0], "official": [2.0, 4.0, 8.0]}
    assert machine.ratio(times, "ours", "official") == 0.5
