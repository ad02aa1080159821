"""Suites, sets of clips, and the file of rows."""

from __future__ import annotations

import json
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest

from vc2.evaluation import controls, rows, suites
from vc2.evaluation.judge import judge
from vc2.evaluation.rows import Score
from vc2.evaluation.sets import Manifest, clips_of, read_manifest, split
from vc2.metrics.metric import Clip
from vc2.training.sources import world

SCORE = Score("a", "x-0.mp4", "00", "x", 0, "noise", 1.5, "ok", "numpy 2", None, "as decoded")


# Suites


def test_the_miniatures_suite_is_its_world():
    suite = suites.load("miniature")
    assert len(suite.prompts) == 96
    assert len({prompt.prompt for prompt in suite.prompts}) == 96
    assert len(suite.hash) == 64
    few = suite.first(24).prompts
    assert len({prompt.scene["colour"] for prompt in few}) == len(world.COLOURS)
    assert len({prompt.scene["direction"] for prompt in few}) == 4


@pytest.mark.parametrize("frames", [8, 16])
def test_ground_truth_is_what_the_prompt_says(frames):
    for prompt in suites.load("miniature").prompts[::19]:
        truth = controls.ground_truth(prompt, frames)
        assert truth.frames.shape == (frames, 64, 64, 3)
        assert truth.fps == frames
        verdict = judge(truth.frames)
        assert {"colour": verdict.colour, "shape": verdict.shape, "direction": verdict.direction} == prompt.scene
        assert prompt.prompt == "a {colour} {shape} moving {direction}".format(**prompt.scene)
    assert controls.ground_truth(suites.Prompt("x", "a cat"), 16) is None


def test_suites_of_others(tmp_path):
    (tmp_path / "prompt700.txt").write_text("a cat\n\na dog runs\n", encoding="utf-8-sig")
    assert [(p.id, p.prompt) for p in suites.load(str(tmp_path / "prompt700.txt")).prompts] == [
        ("0000", "a cat"),
        ("0001", "a dog runs"),
    ]
    tree = {
        "videos": [{"video_id": "video1", "split": "train"}, {"video_id": "video7010", "split": "test"}],
        "sentences": [
            {"video_id": "video7010", "caption": "a car", "sen_id": 8},
            {"video_id": "video1", "caption": "not this", "sen_id": 2},
            {"video_id": "video7010", "caption": "a red car", "sen_id": 9},
            {"video_id": "video7011", "caption": "a cook", "sen_id": 1},
        ],
    }
    tree["videos"].append({"video_id": "video7011", "split": "test"})
    (tmp_path / "test.json").write_text(json.dumps(tree))
    expected = [("video7010-0", "a car"), ("video7011-0", "a cook"), ("video7010-1", "a red car")]
    assert [(p.id, p.prompt) for p in suites.load(str(tmp_path / "test.json")).prompts] == expected
    (tmp_path / "test.csv").write_text(
        "key,video_id,sentence\nret0,video7010,a car\nret1,video7010,a red car\nret2,video7011,a cook\n"
    )
    assert [(p.id, p.prompt) for p in suites.load(str(tmp_path / "test.csv")).prompts] == expected


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("x.jsonl", '{"id": "a"}\n', "line 1 must be"),
        ("x.jsonl", '{"id": "a/b", "prompt": "c"}\n', "'a/b' cannot name a file"),
        ("x.jsonl", '{"id": "a", "prompt": "c"}\n{"id": "a", "prompt": "d"}\n', "more than one prompt has the id 'a'"),
        ("x.jsonl", '{"id": "a", "prompt": "c"}\n{"id": "a-1", "prompt": "d"}\n', "'a-1' is another's with a seed"),
        ("x.jsonl", "\n", "no prompts in it"),
        ("x.csv", "a,b\n1,2\n", "expected the columns video_id and sentence, found a, b"),
        ("x.json", "{}", "cannot be read as a suite"),
        ("x.doc", "a cat", "a suite is one of .jsonl, .txt, .json, .csv"),
    ],
)
def test_what_is_no_suite_is_told(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=says):
        suites.load(str(tmp_path / name))


def test_a_scene_is_of_our_own_world_alone(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"id": "a", "prompt": "a cook", "scene": {"scene": "kitchen"}}\n')
    [prompt] = suites.load(str(tmp_path / "x.jsonl")).prompts
    assert controls.ground_truth(prompt, 16) is None


def test_a_suite_that_is_not_there():
    with pytest.raises(ValueError, match=r"no such suite.*miniature"):
        suites.load("evalcrafter")


# Sets


@pytest.mark.parametrize(
    ("stem", "known", "expected"),
    [
        ("red-circle-3", {"red-circle"}, ("red-circle", 3)),
        ("video7010-1", {"video7010-1"}, ("video7010-1", None)),
        ("video7010-1-0", {"video7010-1"}, ("video7010-1", 0)),
        ("0007", {"0007"}, ("0007", None)),
        ("a cat", {"0007"}, (None, None)),
        ("other-3", {"0007"}, (None, None)),
        ("other-3", (), ("other", 3)),
    ],
)
def test_names_of_clips(stem, known, expected):
    assert split(stem, known) == expected


def test_a_folder_of_another_model(tmp_path):
    for name in ("0001.mp4", "0000-4.WEBM", "note.txt", "extra.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "dir.mp4").mkdir()
    found = clips_of(tmp_path, ["0000", "0001"])
    assert [(c.path.name, c.prompt_id, c.seed) for c in found] == [
        ("0000-4.WEBM", "0000", 4),
        ("0001.mp4", "0001", None),
        ("extra.mp4", None, None),
    ]
    assert read_manifest(tmp_path) is None
    with pytest.raises(ValueError, match="no such folder"):
        clips_of(tmp_path / "none")
    with pytest.raises(ValueError, match="holds no clips"):
        clips_of(tmp_path / "dir.mp4")


def test_a_manifest_comes_back(tmp_path):
    manifest = Manifest("a", "m.ckpt", "00", "miniature", "11", [0], {"steps": 4}, 10, "cpu", "float32", "ab-dirty", {})
    tree = manifest.json()
    assert tree["commit"] == "ab"
    assert tree["dirty"] is True
    (tmp_path / "manifest.json").write_text(json.dumps(tree))
    assert read_manifest(tmp_path) == manifest
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="is no manifest"):
        read_manifest(tmp_path)


# Controls


def test_frozen_and_shuffled():
    clip = Clip(np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8), 10, "x")
    assert (controls.frozen(clip).frames == 0).all()
    for digest in ("0" * 64, "1" * 64, "abcdef12" * 8):
        shuffled = controls.shuffled(clip, digest)
        order = shuffled.frames[:, 0, 0, 0].tolist()
        assert sorted(order) == list(range(6)) != order
        assert (controls.shuffled(clip, digest).frames == shuffled.frames).all()
        assert controls.shuffled(replace(clip, frames=clip.frames[:2]), digest).frames[:, 0, 0, 0].tolist() == [1, 0]


# Rows


def test_rows_are_appended_whole_and_a_torn_one_is_dropped(tmp_path):
    path = tmp_path / "deep" / "scores.jsonl"
    assert rows.read_scores(path) == []
    rows.append_scores(path, [SCORE, replace(SCORE, metric="blur")])
    with open(path, "a") as file:
        file.write('{"set": "a", "clip": "torn')
    assert [row.metric for row in rows.read_scores(path)] == ["noise", "blur"]
    rows.append_scores(path, [replace(SCORE, metric="jerk")])
    assert [row.metric for row in rows.read_scores(path)] == ["noise", "blur", "jerk"]
    assert path.read_bytes().count(b"\n") == 3


def test_a_long_torn_line_goes_wholly(tmp_path):
    path = tmp_path / "scores.jsonl"
    path.write_bytes(b"x" * 10_000)  # nothing is whole
    rows.append(path, {"a": 1})
    assert rows.read(path) == [{"a": 1}]
    with open(path, "a") as file:
        file.write("y" * 10_000)
    rows.append(path, {"a": "z\u2028" * 3000}, {"a": 2})  # a line separator of Unicode ends no line
    assert [row["a"] for row in rows.read(path)] == [1, "z\u2028" * 3000, 2]


def test_of_rows_with_one_key_the_last_counts(tmp_path):
    failed = replace(SCORE, value=None, status="failed: once")
    rows.append_scores(tmp_path / "s.jsonl", [failed, replace(SCORE, set="b"), SCORE])
    assert rows.read_scores(tmp_path / "s.jsonl") == [replace(SCORE, set="b"), SCORE]


def test_what_tables_are_made_of():
    """A clip that was made anew, a metric that was installed meanwhile, another that was not."""
    gone = {"clip": None, "value": None, "prompt_id": None, "seed": None, "status": "skipped: no library"}
    old, new = replace(SCORE, value=1.0), replace(SCORE, clip_hash="11", value=2.0)
    absent, present = replace(SCORE, metric="fvd", **gone), replace(SCORE, metric="flow")
    frozen = replace(SCORE, control="frozen", value=3.0)
    scores = [old, replace(present, **gone), absent, frozen, new, present]
    assert rows.current(scores) == [new, absent, frozen, present]


def test_a_value_is_a_number_and_only_with_ok():
    for wrong in ({"value": None}, {"status": "skipped: x"}, {"value": float("nan")}):
        with pytest.raises(ValueError, match="noise of x-0"):
            replace(SCORE, **wrong)


def test_other_rows_are_told(tmp_path):
    rows.append(tmp_path / "s.jsonl", {"arm": "x"})
    with pytest.raises(ValueError, match="other rows than scores"):
        rows.read_scores(tmp_path / "s.jsonl")


def _write(path, name):
    for k in range(20):
        rows.append(path, {"who": name, "k": k})


def test_processes_append_together(tmp_path):
    path, context = tmp_path / "s.jsonl", get_context("fork")
    processes = [context.Process(target=_write, args=(path, name)) for name in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert sorted((row["who"], row["k"]) for row in rows.read(path)) == [(n, k) for n in "ab" for k in range(20)]
