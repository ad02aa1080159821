"""What is said of speed and memory follows from what was counted and measured."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from bench import (
    around,
    cards,
    cases,
    changes,
    counted,
    few_steps,
    few_steps_report,
    machine,
    performance,
    performance_report,
    plots,
    tables,
    winograd,
    workloads,
)

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
    for name in ("performance.md", *(f"performance/{plot}.svg" for plot in ("cpu", "few_steps_8", "few_steps_16"))):
        assert (tmp_path / name).read_text(encoding="utf-8") == (ROOT / "docs" / name).read_text(encoding="utf-8"), name


@pytest.mark.slow
@pytest.mark.parametrize("what", counted.STEPS)
def test_what_is_counted_is_of_this_code(what):
    """Where this fails, `python -m bench.counted` counts anew."""
    rows = json.loads((ROOT / "docs" / "performance" / "counted.json").read_text())["rows"]
    (kept,) = (row for row in rows if (row["version"], row["what"]) == ("now", what))
    found = json.loads(json.dumps(vars(counted.STEPS[what].count())))
    assert {name: kept[name] for name in found} == found


def test_a_case_that_is_measured_again_takes_the_place_of_its_row(tmp_path):
    path = tmp_path / "rows.json"
    for rows in ([{"case": 1, "found": 1}, {"case": 2, "found": 1}], [{"case": 1, "found": 2}]):
        performance.keep(path, rows, {"commit": "x"})
    kept = {row["case"]: row["found"] for row in json.loads(path.read_text())["rows"]}
    assert kept == {1: 2, 2: 1}


def test_a_report_names_machine_versions_commits_and_days():
    facts = {"machine": "a machine", "system": "Linux", "versions": {"torch": "2.11"}, "commit": "abc"}
    rows = [{"facts": facts}, {"facts": facts | {"commit": "def", "day": "2026-11-30"}}, {"facts": facts}]
    assert tables.machines(rows) == "- a machine (Linux); torch 2.11; commits abc, def (2026-11-30)"
    assert machine.facts(torch.device("cpu")).keys() >= {"day", "cores", *facts}


def test_a_machine_that_slows_down_slows_both():
    times = {"ours": [1.0, 2.0, 4.0], "official": [2.0, 4.0, 8.0]}
    assert machine.ratio(times, "ours", "official") == 0.5


def test_of_few_steps_the_cheapest_that_is_good_enough_is_named():
    def row(what, cost, picture, right, error=0.1):
        return {"kind": what.split(",")[0], "what": what, "cost": cost, "picture": picture, "right": right} | {
            "error": error,
            "frames": 8,
            "count": 20,
        }

    rows = [
        row("DDIM, 25 steps", 25.0, 10.0, 0.9, error=0.0),
        row("DDIM, 10 steps", 10.0, 10.9, 0.9),
        row("DDIM, 5 steps", 5.0, 12.4, 0.95),
        row("DDIM, 4 steps", 4.0, 12.4, 0.75),
        row("EasyCache, threshold 0.2, 25 steps", 9.0, 12.6, 1.0),
        row("LazyCache, threshold 0.2, 25 steps", 8.0, 11.1, 1.0),
    ]
    said = " ".join(few_steps_report.choice(rows).split())
    assert said.startswith("For a draft of 8 frames choose **DDIM, 5 steps** (5.0 passes): ")
    assert "The other ways take for that: LazyCache, threshold 0.2 (8.0). " in said
    assert "at most a tenth further off: DDIM, 10 steps (10.0). " in said
    assert said.endswith("one clip being 5%, with: DDIM, 4 steps (75%).")
    two_fewer = [r | {"right": 0.8} if r["what"] == "DDIM, 4 steps" else r for r in rows]
    assert "choose **DDIM, 4 steps** (4.0 passes): " in few_steps_report.choice(two_fewer)
    turbo = row("T2V-Turbo, 4 steps", 2.0, 12.0, 0.9, error=None)
    said = few_steps_report.choice([*rows, turbo]).replace("\n", " ")
    assert "choose **T2V-Turbo, 4 steps** (2.0 passes) or, without its LoRA, **DDIM, 5 steps** (5.0 passes)" in said
    assert few_steps_report.choice([turbo]) == ""
    for k, some in enumerate(rows):
        some["label"] = str(k)
    said = " ".join(few_steps_report.against_fewer_steps(rows).split())
    assert "EasyCache at 0 of 1 thresholds and LazyCache at 0 of 1 thresholds" in said
    assert "nearer than with all steps" not in said
    rows[-1] |= {"cost": 10.0, "right": 0.9, "error": 0.05}
    assert "LazyCache at 0 of 1 thresholds" in " ".join(few_steps_report.against_fewer_steps(rows).split())
    rows[-1]["error"] = 0.1  # as DDIM with 10 steps, and pictures further off
    rows[-2]["picture"] = 9.9
    said = " ".join(few_steps_report.against_fewer_steps(rows).split())
    assert "EasyCache at 0 of 1 thresholds and LazyCache at 1 of 1 thresholds" in said
    assert "than with all steps (10.0) have: EasyCache, threshold 4 (9.9);" in said


@pytest.mark.parametrize("kinds", [["LazyCache"], ["T2V-Turbo"], ["DDIM", "EasyCache"]])
def test_what_is_measured_of_few_steps_begins_with_that_which_errors_are_against(kinds):
    class Host:
        model = None

        def __getattr__(self, name):
            return lambda *args: name

    found = [kind for kind, _ in few_steps.ways(Host(), kinds)]
    assert list(dict.fromkeys(found)) == (kinds if kinds[0] != "LazyCache" else ["DDIM", "LazyCache"])
    assert found.count("DDIM") == {"LazyCache": 1, "T2V-Turbo": 0, "DDIM": 1 + len(few_steps.FEWER)}[kinds[0]]


def test_a_name_has_one_colour_in_all_panels_and_labels_keep_apart():
    near = [(1.0, 10.0, "first"), (1.0, 10.0, "second"), (9.0, 100.0, "third")]
    panels = [plots.Panel("a", {"x": near, "y": near}, log=True), plots.Panel("b", {"y": near}), plots.Panel("c", {})]
    root = ElementTree.fromstring(plots.panels("title", "passes", panels))
    svg = "{http://www.w3.org/2000/svg}"
    of_x, *of_y = (line.get("stroke") for line in root.iter(f"{svg}polyline"))
    assert of_x != of_y[0]
    assert len(set(of_y)) == 1
    assert len(of_y) == 2
    places = [(float(t.get("x")), float(t.get("y"))) for t in root.iter(f"{svg}text") if t.get("class") == "among"]
    assert len(places) > 6
    assert all(abs(x - a) > 8 or abs(y - b) > 8 for (x, y), (a, b) in combinations(places, 2))


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (torch.nn.Conv3d(5, 3, (3, 1, 1), padding=(1, 0, 0)), (2, 5, 8, 2, 3)),
        (torch.nn.Conv3d(5, 3, (3, 1, 1), padding=(1, 0, 0)), (2, 5, 7, 2, 3)),
        (torch.nn.Conv2d(5, 3, 3, padding=1), (2, 5, 8, 12)),
        (torch.nn.Conv2d(5, 3, 3, padding=1, stride=2), (2, 5, 8, 12)),
    ],
    ids=["over time", "frames that do not fit", "of pixels", "stride"],
)
def test_a_convolution_by_winograd_is_the_convolution(layer, size):
    x = torch.randn(size, generator=torch.Generator().manual_seed(0))
    expected = layer(x)
    layer.__class__ = winograd.by_winograd(type(layer))
    torch.testing.assert_close(layer(x), expected, atol=1e-4, rtol=1e-4)


CASE = cases.Case("UNet forward", "fifth", 16, 128, 128, "bf16")


def test_a_case_that_was_not_measured_says_so():
    measured = {"case": vars(CASE), "seconds": {"ours": [1.0], "official": [2.0]}, "difference": 0.01, "peak": None}
    longer = cases.Case("UNet forward", "fifth", 64, 128, 128, "bf16")
    head, _, *lines = performance_report.compared([measured], [longer, CASE]).splitlines()
    assert "peak" not in head  # nobody measured it
    assert lines == [
        "| UNet forward | fifth | 16 of 128x128 | bf16 | 2.00 s | 1.00 s | 0.50x | 0.50 to 0.50 |  | 1.0e-02 |",
        "| UNet forward | fifth | 64 of 128x128 | bf16 | not measured | not measured |  |  |  |  |",
    ]
    on_a_gpu = performance_report.compared([measured | {"peak": 2**21}], [longer]).splitlines()
    assert len({line.count("|") for line in on_a_gpu}) == 1
    assert "| 2 MiB |" in on_a_gpu[2]


def test_the_goal_is_of_fp32_whichever_row_comes_first():
    def row(precision, ours):
        case = vars(cases.Case("UNet forward", "full", 16, 128, 128, precision))
        return {"case": case, "seconds": {"ours": [ours], "official": [10.0], "products": [4.0]}}

    assert "is reached on this processor: 0.60x" in performance_report.forward_goal(
        [row("bf16", 9), row("fp32", 6)], []
    )
    assert "**not reached**: 0.80x" in performance_report.forward_goal([row("bf16", 1), row("fp32", 8)], [])
    assert performance_report.forward_goal([row("bf16", 1)], []) == ""
    way = {"what": "Linears by MKL, at full width", "seconds": {"ours": [2.0], "changed": [3.0]}}
    said = " ".join(performance_report.forward_goal([row("fp32", 6)], [way]).split())
    assert "it would be some 0.90x, and missed." in said


def test_what_is_narrower_is_held_against_fp32():
    row = {"case": vars(CASE), "from_fp32": {"ours": 0.02, "official": 0.03}}
    said = " ".join(performance_report.narrower([row]).split())
    assert said.endswith("as this: UNet forward, fifth width, 2.0e-02 and 3.0e-02.")
    assert performance_report.narrower([{"case": vars(CASE), "from_fp32": None}, {"case": vars(CASE)}]) == ""


@pytest.mark.slow
def test_every_listed_case_can_be_measured():
    """Each workload and precision of the lists, made small; without the official code, which nobody need have."""
    networks = workloads.Networks("fifth", torch.device("cpu"), with_official=False)
    small = {"network": "fifth", "frames": 2, "width": 64, "height": 64, "compiled": False}
    listed = dict.fromkeys(
        replace(case, **small, steps=min(case.steps, 2)) for case in (*cases.ON_A_CPU, *cases.ON_A_GPU)
    )
    assert {case.workload for case in listed} == set(cases.WORKLOADS)
    for case in listed:
        row = workloads.measure(case, networks, rounds=1)
        assert set(row.seconds) == {"ours", "products"}
        assert row.difference is None
        assert row.from_fp32 is None  # nobody to hold it beside


def test_loading_is_told_by_stage_and_as_a_whole():
    cost = {"seconds": 2.0, "programs": 1.0, "system": 0.5, "pages": 1000.0}
    rounds = [{**cost, "seconds": seconds} for seconds in (3.0, 5.0, 4.0)]
    found = performance_report.loading([{"what": "now", "stages": {"copied": cost}, "rounds": rounds}])
    assert found.splitlines()[2:] == [
        "| now | copied | 2.0 s | 1.0 s | 0.5 s | 1,000 |  |",
        "| now | **all** | 4.0 s | 1.0 s | 0.5 s | 1,000 | 3.0 to 5.0 s |",
    ]


@pytest.mark.slow
def test_ways_beside_a_pass_compute_the_same():
    """Two of those that take little: what is compared is ours and the other way, of the same inputs."""
    networks = workloads.Networks("fifth", torch.device("cpu"), with_official=False)
    for what in ("guided step: nothing shared by both prompts", "decoding frame by frame"):
        way = around.BESIDE[what]
        found = changes.measured(way.works(way.case, networks), networks.device, rounds=1)
        assert 0 < found["difference"] < 1e-3, what
        assert len(found["seconds"]["changed"]) == 1
    assert around.count_nothing_shared().peak > counted.STEPS["guided step, 512x320"].count().peak
