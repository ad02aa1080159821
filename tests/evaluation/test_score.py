"""`score`: which rows a folder of clips gets, what is measured again, and what is told."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from vc2.evaluation import suites
from vc2.evaluation.__main__ import main
from vc2.evaluation.rows import read_scores
from vc2.evaluation.scoring import Scoring
from vc2.evaluation.sets import clips_of
from vc2.files.video import write_video
from vc2.metrics.metric import Clip, ClipMetric, Composite, CorpusMetric, Measure, NotApplicableError
from vc2.metrics.registry import METRICS
from vc2.training.sources import world

PROMPTS = {p.id: p for p in suites.load("miniature").prompts[:3]}


@pytest.fixture
def clips(tmp_path) -> Path:
    """A folder of another model's clips: three prompts of the miniature's suite, of which it shows what it likes."""
    folder = tmp_path / "other model"
    rng = np.random.default_rng(0)
    for number, name in enumerate(PROMPTS):
        frames = np.full((6, 64, 64, 3), 40 + 20 * number, np.uint8)
        for i, frame in enumerate(frames):
            frame[20:40, 10 + 3 * i : 30 + 3 * i] = rng.integers(100, 255, 3)
        write_video(folder / f"{name}-0.mp4", list(frames), 8)
    return folder


class Brightness(ClipMetric):
    """Counts how often it is asked."""

    name = "brightness"
    measures = (Measure("brightness", "mean", "neither"), Measure("colourless", "never there", "neither"))
    asked: list[str]
    fails = ""

    def __init__(self):
        self.asked = []

    def measure(self, clip: Clip) -> dict[str, float]:
        self.asked.append(clip.prompt)
        if self.fails == "raise":
            raise KeyError("odd")
        if self.fails == "nan":
            return {"brightness": float("nan")}
        if self.fails == "not applicable":
            raise NotApplicableError("no face is in it")
        return {"brightness": float(clip.frames.mean())}


class Spread(CorpusMetric):
    name = extractor = "spread"
    measures = (Measure("spread", "of means", "lower"),)
    least = 3

    def __init__(self, needs_reference: bool = False):
        self.needs_reference = needs_reference
        self.looked = 0

    def features(self, clip: Clip) -> np.ndarray:
        self.looked += 1
        return clip.frames.mean((1, 2))[:, :1].astype(float)

    def measure(self, features, reference) -> dict[str, float]:
        gap = np.concatenate(reference).mean() if reference else 0
        return {"spread": float(np.concatenate(features).mean() - gap)}


class Double(Composite):
    name = "double"
    measures = (Measure("double", "twice the brightness", "neither"),)
    parts = ("brightness",)

    def measure(self, means):
        return {"double": 2 * means["brightness"]}


def scoring(clips: Path, **how) -> Scoring:
    return Scoring("other", clips_of(clips, PROMPTS), PROMPTS, clips / "scores.jsonl", **how)


def values(clips: Path, metric: str, control: str | None = None) -> dict[str | None, float | None]:
    found = read_scores(clips / "scores.jsonl")
    return {row.clip: row.value for row in found if row.metric == metric and row.control == control}


def statuses(clips: Path, metric: str, control: str | None = None) -> set[str]:
    return {r.status for r in read_scores(clips / "scores.jsonl") if r.metric == metric and r.control == control}


# Rows


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


# Metrics of many clips


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
    assert [
        v for v in (r.value for r in read_scores(clips / "scores.jsonl") if r.metric == "spread") if v is not None
    ] == [0]
    assert metric.looked == 3


def test_too_few_clips_are_not_looked_at(clips):
    metric = Spread()
    metric.least = 4
    scoring(clips).run([metric])
    assert metric.looked == 0
    assert statuses(clips, "spread") == {"skipped: 3 of at least 4 clips that it takes"}


def test_a_prompt_that_changed_is_measured_again(clips):
    metric = Brightness()
    scoring(clips, controls=False).run([metric])
    others = {name: suites.Prompt(name, "something else") for name in PROMPTS}
    again = Scoring("other", clips_of(clips, others), others, clips / "scores.jsonl", controls=False)
    again.run([metric])
    assert metric.asked[3:] == ["something else"] * 3


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


# The command


def test_the_command_on_another_models_clips(clips, tmp_path, caplog):
    (clips / "unknown.mp4").write_bytes((clips / f"{next(iter(PROMPTS))}-0.mp4").read_bytes())
    out = tmp_path / "all.jsonl"
    command = ["score", str(clips), "--suite", "miniature", "--metrics", "noise,fvd", "-o", str(out), "--no-controls"]
    assert main(command) == 0
    assert "no prompt of miniature goes with unknown.mp4" in caplog.text
    found = read_scores(out)
    assert {row.set for row in found} == {"other model"}
    assert [(row.metric, row.clip is None, row.status[:30]) for row in found if row.status != "ok"] == [
        ("fvd", True, "skipped: needs i3d_torchscript"),
    ]
    assert sum(row.metric == "noise" for row in found) == 4
    assert main([*command, "--strict"]) == 1
    assert main(["score", str(clips), "--metrics", "noise", "-o", str(out), "--no-controls", "--strict"]) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["score", "nowhere"], "nowhere: no such folder of clips"),
        (["score", ".", "--metrics", "beauty"], "there is no metric 'beauty'; there are sharpness"),
        (["score", ".", ".", "--name", "x"], "--name is of one set"),
        (["score", ".", "--weights", "nowhere"], "no such folder"),
        (["doctor", "--weights", "nowhere"], "no such folder"),
        (["generate", "-o", "x", "--seeds", "0"], "--seeds must be at least 1"),
        (["generate", "-o", "x", "--suite", "nowhere"], "no such suite"),
        (["generate", "-o", "x", "--checkpoint", "nowhere"], "no such checkpoint"),
    ],
)
def test_what_the_user_can_put_right(arguments, says, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


def test_list_and_doctor_know_every_metric(capsys, weights):
    (weights / "i3d_torchscript.pt").touch()
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n    {name}: " in listed for metric in METRICS.values() for name in metric.measure_names())
    assert "supplement's Table 1 (MSR-VTT" in listed
    assert "a frozen clip has the best" in listed
    assert main(["doctor"]) == 0
    table = {line.split("  ")[0].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert "not found" not in table["fvd"]
    assert "not found: ViT-B-32.pt not in" in table["clip"]
    assert set(METRICS) <= set(table)


def test_a_library_that_is_missing_is_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    reason = METRICS["flow"].available()
    assert reason == "opencv-python-headless not installed (pip install comfyui-videocrafter2[evaluation-extra])"


def test_rows_are_json_for_everyone(clips):
    scoring(clips, controls=False).run([Brightness()])
    lines = (clips / "scores.jsonl").read_text().splitlines()
    assert list(json.loads(lines[0])) == [
        *("set", "clip", "clip_hash", "prompt_id", "seed", "metric", "value", "status", "implementation", "weights"),
        *("preprocessing", "control", "n", "prompt"),
    ]
