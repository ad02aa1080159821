"""`generate`: a clip of every prompt and seed, a manifest, and what another run adds."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests import standin
from vc2.evaluation import generate
from vc2.evaluation.__main__ import main
from vc2.evaluation.rows import read_scores
from vc2.evaluation.sets import read_manifest
from vc2.files.video import read_metadata, read_video
from vc2.metrics.metric import file_hash
from vc2.pipeline import TextToVideo

SMALL = ["--frames", "4", "--size", "32x32", "--steps", "2"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return standin.write(tmp_path_factory.mktemp("model") / "standin.safetensors")


@pytest.fixture
def command(checkpoint, tmp_path):
    (tmp_path / "suite.jsonl").write_text('{"id": "cat", "prompt": "a cat"}\n{"id": "dog", "prompt": "a dog"}\n')
    out = tmp_path / "set"
    return [
        "generate",
        "-o",
        str(out),
        "--suite",
        str(tmp_path / "suite.jsonl"),
        "--checkpoint",
        str(checkpoint),
        *SMALL,
    ]


def test_a_set_is_made_and_goes_on_and_is_scored(command, checkpoint, tmp_path, monkeypatch, capsys):
    out = tmp_path / "set"
    assert main(command) == 0
    assert sorted(path.name for path in out.iterdir()) == ["cat-0.mp4", "dog-0.mp4", "manifest.json"]
    assert read_video(out / "cat-0.mp4").shape == (4, 32, 32, 3)
    assert read_metadata(out / "dog-0.mp4")["prompt_text"]["prompt"] == "a dog"
    manifest = read_manifest(out)
    assert manifest.name == "set"
    assert manifest.checkpoint_hash == file_hash(checkpoint)
    assert manifest.suite_hash == file_hash(tmp_path / "suite.jsonl")
    assert manifest.settings["steps"] == 2
    assert manifest.seeds == [0]
    assert {"torch", "python"} <= manifest.versions.keys()
    assert json.loads((out / "manifest.json").read_text())["dirty"] in (True, False)

    # One that is there stays as it is; what is missing is made as it would have been.
    before = {name: (out / name).read_bytes() for name in ("cat-0.mp4", "dog-0.mp4")}
    (out / "dog-0.mp4").unlink()
    sampled = []
    original = TextToVideo.__call__
    monkeypatch.setattr(
        TextToVideo, "__call__", lambda self, p, s, *rest: sampled.append((p[0], s[0])) or original(self, p, s, *rest)
    )
    assert main([*command, "--seeds", "2"]) == 0
    assert sampled == [("a dog", 0), ("a cat", 1), ("a dog", 1)]
    assert {name: (out / name).read_bytes() for name in before} == before
    assert not np.array_equal(read_video(out / "cat-0.mp4"), read_video(out / "cat-1.mp4"))
    assert read_manifest(out).seeds == [0, 1]
    assert main(command) == 0  # fewer seeds take nothing back
    assert read_manifest(out).seeds == [0, 1]

    capsys.readouterr()
    assert main([*command, "--steps", "4"]) == 2
    assert "was begun with another settings" in capsys.readouterr().err

    assert main(["score", str(out), "--metrics", "noise", "--no-controls", "--strict"]) == 0
    assert {(row.prompt_id, row.seed) for row in read_scores(out / "scores.jsonl")} == {
        (name, seed) for name in ("cat", "dog") for seed in (0, 1)
    }


def test_processes_take_shares_and_who_comes_first_writes_the_manifest(command, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert main(command) == 0
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["dog-0.mp4", "manifest.json"]
    monkeypatch.setenv("RANK", "0")
    assert main([*command, "--count", "2"]) == 0
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["cat-0.mp4", "dog-0.mp4", "manifest.json"]


def test_interrupting_leaves_whole_clips(command, tmp_path, monkeypatch):
    original = generate.write_video

    def once(path, *rest):
        if path.name.startswith("dog"):
            raise KeyboardInterrupt
        return original(path, *rest)

    monkeypatch.setattr(generate, "write_video", once)
    assert main(command) == 130
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["cat-0.mp4", "manifest.json"]


def test_a_suite_that_changed_is_told(command, tmp_path, capsys):
    assert main([*command, "--count", "1"]) == 0
    (tmp_path / "suite.jsonl").write_text('{"id": "cat", "prompt": "another cat"}\n')
    capsys.readouterr()
    assert main(["score", str(tmp_path / "set"), "--metrics", "noise"]) == 2
    assert "has changed since" in capsys.readouterr().err
    assert main(command) == 2
    assert "was begun with another suite_hash" in capsys.readouterr().err


@pytest.mark.parametrize("rank", ["0", "1"])
def test_another_programs_clips_are_not_taken_for_its_own(command, tmp_path, capsys, monkeypatch, rank):
    """By no process, whichever of them would make that clip."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "cat-0.mp4").write_bytes(b"gen-2's")
    assert main(command) == 2
    assert "cat-0.mp4: there already, without a manifest.json, so another program's" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["cat-0.mp4"]
