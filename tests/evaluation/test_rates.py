"""The learning rates of the paper in miniature: how they were chosen, and that the pages and recipes say so."""

from __future__ import annotations

import math

import pytest

from tests.evaluation import synthetic
from tests.evaluation.synthetic import layout
from vc2.evaluation import verify
from vc2.evaluation.miniature import arms, rates, report, rows
from vc2.evaluation.miniature.rates import GRID
from vc2.training.errors import RecipeError
from vc2.training.sources.paper_world import world_hash


def test_the_comparison_of_rates_is_in_the_report_and_verified(tmp_path):
    folder = synthetic.write(tmp_path / "docs", seeds=())
    losses = [{"arm": "F-Spa-DIR", "rate": rate, "seed": 0, "loss": 0.1 + abs(rate - 1e-3)} for rate in GRID[1:-1]]
    rows.append(folder / "rates.jsonl", *losses)
    report.write(layout(folder))
    assert (
        "| F-Spa-DIR | 0.10097 | 0.10090 | 0.10070 | **0.10000** | 0.10200 | 0.10900 |\n"
        in (folder / "README.md").read_text()
    )
    rows.append(folder / "rates.jsonl", {**losses[0], "arm": "F-Spa-LORA"})
    assert "README.md:" in verify.difference(folder)
    report.write(layout(folder))
    assert "| F-Spa-LORA | **0.10097** |  |  |  |  |  |\n" in (folder / "README.md").read_text()


def test_the_page_that_is_fixed_shows_the_rates_that_were_compared():
    fixed = (arms.DOCS / "expectations.md").read_text()
    compared = rows.read(arms.RATES)
    assert "\n".join(f"  {line}" for line in rates.table(compared)) in fixed
    chosen = {
        name: arms.Place(arms.ROOT, arms.ENCODERS).recipe(arm, 0).optimizer.lr for name, arm in arms.BY_NAME.items()
    }
    losses = {(row["arm"], row["rate"]): row["loss"] for row in compared}
    for way in rates.WAYS.values():
        summed = {rate: sum(losses.get((arm, rate), math.inf) for arm in way.arms) for rate in GRID}
        assert {chosen[arm] for arm in way.arms} == {min(summed, key=lambda rate: summed[rate])}


def test_rates_wait_for_the_pilot_and_are_asked_for_once(tmp_path, monkeypatch):
    place = arms.Place(tmp_path, tmp_path / "encoders.safetensors")
    monkeypatch.setattr(rates, "fingerprints", lambda path: {"text": "a"})
    with pytest.raises(RecipeError, match="is not there yet; run the pilot first"):
        rates.compare(place, tmp_path / "rates.jsonl", 0)
    shared = {"seed": 0, "world": world_hash(), "encoders": {"text": "a"}}
    for way in rates.WAYS.values():
        for arm in way.arms:
            at = GRID.index(way.start) - 1  # the lowest lies one below where the walk begins
            for step in (-1, 0, 1, 2):
                row = {"arm": arm, "rate": GRID[at + step], **shared, "loss": abs(step)}
                rows.append(tmp_path / "rates.jsonl", {**row, "encoders": {"text": "b"}, "loss": 0}, row)
    assert rates.compare(place, tmp_path / "rates.jsonl", 0) == {"direct": 3e-5, "LoRA": 1e-3}


@pytest.mark.parametrize(("best", "start"), [(1e-3, 1e-4), (1e-5, 1e-4), (3e-4, 3e-4), (3e-2, 3e-3)])
def test_rates_are_walked_downhill_until_both_neighbours_are_worse(best, start):
    asked: set[float] = set()

    def loss(rate: float) -> float:
        asked.add(rate)
        return abs(math.log(rate / best))

    assert rates.lowest(loss, start) == best
    first, last = sorted((GRID.index(best), GRID.index(start)))
    assert asked == set(GRID[max(first - 1, 0) : last + 2])  # those between, and one beyond on either side
