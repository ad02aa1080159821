"""Which rows a folder of clips gets, and what is measured again."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from tests.evaluation.scoring import PROMPTS, Brightness, Spread, scoring, statuses, values
from vc2.evaluation import suites
from vc2.evaluation.rows import read_scores
from vc2.evaluation.scoring import Scoring
from vc2.evaluation.sets import clips_of
from vc2.files.video import write_video
from vc2.metrics.registry import METRICS
from vc2.training.sources import world


def test_every_clip_and_its_controls_have_rows_that_tell_all(clips):
    metric = Brightness()
    outcomes = scoring(clips).run([metric])
    rows = read_scores(clips / "scores.jsonl")
    assert Counter((row.metric, row.control) for row in rows) == {
        (name, control): 3
        for name in ("brightness", "colourless")
        for control in (None, "frozen", "shuffled", "ground truth")
    }
    assert outcomes == {"ok": 12, "skipped": 12}
    assert statuses(clips, "colourless") == {"skipped: the clip has no such number"}
    first = next(row for row in rows if row.metric == "brightness" and row.control is None)
    assert (first.set, first.clip, first.prompt_id, first.seed) == (
        "other",
        f"{first.prompt_id}-0.mp4",
        first.prompt_id,
        0,
    )
    assert len(first.clip_hash) == 64
    assert "comfyui-videocrafter2" in first.implementation
    assert first.preprocessing == "frames as decoded"
    assert first.weights is first.n is None
    assert values(clips, "brightness") == pytest.approx(values(clips, "brightness", "shuffled"))
    truth = values(clips, "brightness", "ground truth")
    assert set(truth) == set(PROMPTS)
    ground = np.mean(world.BACKGROUND)
    assert all(ground < value < 60 for value in truth.values())
    assert set(metric.asked) == {prompt.prompt for prompt in PROMPTS.values()}


def test_controls_are_what_they_are_called(clips):
    scoring(clips).run([METRICS["freeze"], METRICS["flicker"]])
    assert set(values(clips, "freeze", "frozen").values()) == {1.0}
    assert set(values(clips, "freeze").values()) == set(values(clips, "freeze", "ground truth").values()) == {0.0}
    ours, shuffled = values(clips, "flicker"), values(clips, "flicker", "shuffled")
    assert all(shuffled[name] != ours[name] for name in ours)
    assert set(values(clips, "flicker", "frozen").values()) == {0.0}


def test_what_was_measured_is_not_measured_again_and_what_is_new_is(clips):
    metric = Brightness()
    scoring(clips).run([metric])
    written = (clips / "scores.jsonl").read_bytes()
    metric.asked.clear()
    assert scoring(clips).run([metric]) == {"ok": 12, "skipped": 12}
    assert metric.asked == []
    assert (clips / "scores.jsonl").read_bytes() == written
    # One clip is made anew, one library is.
    name = next(iter(PROMPTS))
    write_video(clips / f"{name}-0.mp4", [np.full((64, 64, 3), 200, np.uint8)] * 6, 8)
    scoring(clips).run([metric])
    assert metric.asked == [PROMPTS[name].prompt] * 3
    assert values(clips, "brightness")[f"{name}-0.mp4"] == pytest.approx(200, abs=2)
    metric.asked.clear()
    metric.preprocessing = "another"
    scoring(clips, controls=False).run([metric])
    assert len(metric.asked) == 3


def test_a_stopped_run_keeps_what_it_has(clips):
    class Stopping(Brightness):
        def measure(self, clip):
            if len(self.asked) == 5:
                raise KeyboardInterrupt
            return super().measure(clip)

    stopping, metric = Stopping(), Brightness()
    with pytest.raises(KeyboardInterrupt):
        scoring(clips).run([stopping])
    with open(clips / "scores.jsonl", "a") as file:
        file.write('{"set": "oth')  # as a killed one leaves it
    scoring(clips).run([metric])
    assert len(metric.asked) == 12 - 5


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("raise", "failed: KeyError: 'odd'"),
        ("nan", "failed: it came out as nan"),
        ("not applicable", "skipped: no face is in it"),
    ],
)
def test_what_cannot_be_measured_is_told_and_what_failed_is_tried_again(clips, how, status):
    metric = Brightness()
    metric.fails = how
    outcomes = scoring(clips, controls=False).run([metric])
    assert statuses(clips, "brightness") == {status}
    assert outcomes[status.partition(":")[0]] >= 3
    metric.fails, metric.asked = "", []
    scoring(clips, controls=False).run([metric])
    assert len(metric.asked) == (0 if status.startswith("skipped") else 3)


def test_a_broken_clip_fails_and_the_others_are_measured(clips):
    broken = clips / f"{next(iter(PROMPTS))}-0.mp4"
    broken.write_bytes(b"not a video")
    outcomes = scoring(clips).run([Brightness(), Spread()])
    assert outcomes["failed"] == 6
    failed = [row for row in read_scores(clips / "scores.jsonl") if row.status.startswith("failed")]
    assert {row.clip for row in failed} == {broken.name}
    assert all("cannot be read as a video" in row.status for row in failed)
    assert statuses(clips, "spread") == {"skipped: 2 of at least 3 clips that it takes"}


def test_a_prompt_that_changed_is_measured_again(clips):
    metric = Brightness()
    scoring(clips, controls=False).run([metric])
    others = {name: suites.Prompt(name, "something else") for name in PROMPTS}
    again = Scoring("other", clips_of(clips, others), others, clips / "scores.jsonl", controls=False)
    again.run([metric])
    assert metric.asked[3:] == ["something else"] * 3


def test_rows_are_json_for_everyone(clips):
    scoring(clips, controls=False).run([Brightness()])
    lines = (clips / "scores.jsonl").read_text().splitlines()
    assert list(json.loads(lines[0])) == [
        *("set", "clip", "clip_hash", "prompt_id", "seed", "metric", "value", "status", "implementation", "weights"),
        *("preprocessing", "control", "n", "prompt", "reference"),
    ]
