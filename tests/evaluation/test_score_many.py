"""Metrics of many clips: of all at once, against a reference, and made of other metrics' means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.scoring import Brightness, Spread, scoring, statuses, values
from vc2.evaluation.rows import current, read_scores
from vc2.evaluation.sets import clips_of
from vc2.files.video import write_video
from vc2.metrics.metric import Composite, Measure
from vc2.metrics.registry import METRICS


class Double(Composite):
    name = "double"
    measures = (Measure("double", "twice the brightness", "neither"),)
    parts = ("brightness",)

    def measure(self, means):
        return {"double": 2 * means["brightness"]}


def test_a_corpus_metric_sees_all_clips_once(clips):
    metric = Spread()
    scoring(clips).run([metric])
    (row,) = (r for r in read_scores(clips / "scores.jsonl") if r.metric == "spread" and r.control is None)
    assert (row.clip, row.prompt_id, row.seed, row.n) == (None, None, None, 3)
    assert row.value == pytest.approx(np.mean(list(_brightness(clips).values())), rel=0.1)
    assert metric.looked == 12
    scoring(clips).run([metric])
    assert metric.looked == 12  # its features are on disk
    assert (clips / "scores.jsonl").read_text().count('"spread"') == 4


def _brightness(clips: Path) -> dict:
    scoring(clips, controls=False).run([Brightness()])
    return values(clips, "brightness")


def test_a_distance_takes_a_reference_of_as_many(clips, tmp_path):
    metric = Spread(needs_reference=True)
    scoring(clips, controls=False).run([metric])
    assert statuses(clips, "spread") == {"skipped: it needs --reference"}
    few = [clip.path for clip in clips_of(clips)][:2]
    scoring(clips, controls=False, reference=few).run([metric])
    assert "skipped: the reference has 2 of at least 3 clips that it takes" in statuses(clips, "spread")
    scoring(clips, controls=False, reference=[clip.path for clip in clips_of(clips)]).run([metric])
    (found,) = (row for row in read_scores(clips / "scores.jsonl") if row.metric == "spread" and row.value is not None)
    assert found.value == 0
    assert found.reference.startswith(f"{clips.name}, 3 of 3 clips, ")
    assert metric.looked == 3


def test_too_few_clips_are_not_looked_at(clips):
    metric = Spread()
    metric.least = 4
    scoring(clips).run([metric])
    assert metric.looked == 0
    assert statuses(clips, "spread") == {"skipped: 3 of at least 4 clips that it takes"}


def test_a_composite_is_made_of_means_and_stands_beside_its_parts(clips):
    scoring(clips).run([Double()])
    assert statuses(clips, "double") == {"skipped: brightness not measured"}
    scoring(clips).run([Brightness(), Double()])
    mean = np.mean(list(values(clips, "brightness").values()))
    made = [
        r for r in read_scores(clips / "scores.jsonl") if r.metric == "double" and r.status == "ok" and not r.control
    ]
    assert made[0].value == pytest.approx(2 * mean)
    assert made[0].n == 3


def test_what_was_asked_for_last_counts_also_where_it_was_there_before(clips):
    """Another way to prepare frames, another reference, and back again."""
    metric, distance = Brightness(), Spread(needs_reference=True)
    first, *others = (clip.path for clip in clips_of(clips))
    write_video(clips.parent / "bright-0.mp4", [np.full((64, 64, 3), 250, np.uint8)] * 6, 8)
    references = [first, *others], [clips.parent / "bright-0.mp4", *others]
    found = []
    for way, reference in zip(("one", "other", "one"), (*references, references[0]), strict=True):
        metric.preprocessing = way
        scoring(clips, controls=False, reference=reference).run([metric, distance])
        scores = current(read_scores(clips / "scores.jsonl"))
        assert {row.preprocessing for row in scores if row.metric == "brightness"} == {way}
        found += [row.value for row in scores if row.metric == "spread"]
    assert len(metric.asked) == 6
    assert found[0] == found[2] == 0 != found[1]


def test_a_distance_stays_where_its_reference_is_left_out(clips):
    metric = Spread(needs_reference=True)
    scoring(clips, controls=False, reference=[clip.path for clip in clips_of(clips)]).run([metric])
    scoring(clips, controls=False).run([metric])
    (row,) = current(read_scores(clips / "scores.jsonl"))
    assert row.value == 0


def test_evalcrafters_fits():
    """By hand, and the cap that its own table exceeds."""
    temporal = METRICS["evalcrafter_compat.temporal"]
    best = {"clip_temporal": 1.0, "raft_warping_error": 0.0, "face_consistency": 1.0}
    assert temporal.measure(best)["evalcrafter_compat.temporal"] == pytest.approx(66.3, abs=0.1)
    motion = METRICS["evalcrafter_compat.motion"]
    figures = {"action": 0.5, "motion_amplitude": 1.0, "raft_flow": 2.0}
    assert motion.measure(figures)["evalcrafter_compat.motion"] == pytest.approx(64.88 - 4.105 - 6.70 - 52.59 * 0.02)
    frozen = motion.measure(dict.fromkeys(figures, 0.0))["evalcrafter_compat.motion"]
    assert frozen == 64.88 > motion.measure(figures)["evalcrafter_compat.motion"]
    assert "frozen" in motion.warning
    visual = METRICS["evalcrafter_compat.visual"]
    parts = {"dover.evalcrafter_aesthetic": 50.0, "dover.evalcrafter_technical": 100.0, "inception_score": 20.0}
    expected = 43.54 + 15.02 * 0.5 + 14.44 - 6.91 * 0.2
    assert visual.measure(parts)["evalcrafter_compat.visual"] == pytest.approx(expected)
    text = METRICS["evalcrafter_compat.text_video"]
    nothing = dict.fromkeys(text.parts, 0.0)
    assert text.measure(nothing)["evalcrafter_compat.text_video"] == pytest.approx(-30.68 + 1.86 + 113.43)
