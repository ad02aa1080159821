"""`python -m vc2` as a user runs it."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys

import pytest

from tests.vc2.conftest import SMALL
from vc2.__main__ import main
from vc2.files.video import read_metadata, read_video
from vc2.pipeline import TextToVideo


def test_prompt_to_file(checkpoint, tmp_path, capsys):
    path = tmp_path / "clip.mp4"
    assert main(["a cat", "-o", str(path), "--checkpoint", str(checkpoint), "--seed", "3", *SMALL]) == 0
    assert capsys.readouterr().out.strip() == str(path)
    assert read_video(path).shape == (3, 24, 32, 3)
    assert read_metadata(path)["prompt_text"] == {
        "prompt": "a cat", "seed": 3, "checkpoint": checkpoint.name, "width": 32, "height": 24, "frames": 3, "steps": 2,
        "guidance": 12.0, "eta": 1.0, "fps": 28, "negative": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-o", "x.mp4"], "either a prompt or --prompts"),
        (["a cat", "-o", "x.avi"], "cannot write .avi"),
        (["a cat", "-o", "x.mp4", "--size", "big"], "WIDTHxHEIGHT"),
        (["a cat", "-o", "x.mp4", "--size", "30x32"], "width must be a positive multiple of 8, found 30"),
        (["a cat", "-o", "x.mp4", "--frames", "0"], "frames must be at least 1"),
        (["a cat", "-o", "x.mp4", "--steps", "0"], "between 1 and 1000"),
        (["a cat", "-o", "x.mp4", "--checkpoint", "absent.ckpt"], "absent.ckpt"),
        (["--prompts", "absent.txt", "-o", "x"], "no such prompt file"),
        (["a cat", "-o", "x.mp4", "--save-fps", "0"], "--save-fps must be positive, found 0"),
        (["a cat", "-o", "x.mp4", "--save-fps", "nan"], "--save-fps must be positive, found nan"),
        (["a cat", "-o", "x.mp4", "--eta", "1.5"], "eta must be between 0 and 1, found 1.5"),
        (["a cat", "-o", "x.mp4", "--guidance", "-1"], "guidance must be a number from 0, found -1"),
        (["a cat", "-o", "x.mp4", "--fps", "inf"], "fps must be a number from 0, found inf"),
        (["a cat", "-o", "x.mp4", "--seed", "-1"], "--seed must be between 0 and 2^64 - 1, found -1"),
        (["a cat", "-o", "x.mp4", "--seed", str(2**64)], "--seed must be between 0 and 2^64 - 1, found 18446744073709"),
        (["a cat", "-o", "x.mp4", "--format", "gif"], "--format gif contradicts the ending of x.mp4"),
    ],
)
def test_wrong_arguments(checkpoint, tmp_path, monkeypatch, capsys, arguments, says):
    """They are told before anything is sampled."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(TextToVideo, "__call__", lambda *_: pytest.fail("it sampled"))
    if "--checkpoint" not in arguments:
        arguments = [*arguments, "--checkpoint", str(checkpoint)]
    assert main(arguments) == 2
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_steps_that_ran_are_recorded(checkpoint, tmp_path, caplog):
    """DDIM runs 8 for 7; both are written down, for 8 asked for would be another clip."""
    command = ["a cat", "-o", str(tmp_path / "clip.mp4"), "--checkpoint", str(checkpoint), "--frames", "1"]
    with caplog.at_level("INFO"):
        assert main([*command, "--size", "32x24", "--steps", "7"]) == 0
    recorded = read_metadata(tmp_path / "clip.mp4")["prompt_text"]
    assert (recorded["steps"], recorded["steps_run"]) == (7, 8)
    assert "7 steps do not divide 1000: DDIM runs 8" in caplog.text


def test_a_name_that_the_console_cannot_show(checkpoint, tmp_path):
    """Windows' consoles and pipes have code pages; the clip is made, and its name told as far as it can be."""
    arguments = ["ein Bär", "-o", str(tmp_path / "ein_Bär_猫.mp4"), "--checkpoint", str(checkpoint), *SMALL]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    process = subprocess.run(
        [sys.executable, "-m", "vc2", *arguments], env=environment, capture_output=True, check=False
    )
    assert process.returncode == 0, process.stderr.decode("cp1252")
    assert process.stdout.decode("cp1252").strip().endswith(r"ein_Bär_\u732b.mp4")
    assert (tmp_path / "ein_Bär_猫.mp4").is_file()


def test_the_version_is_the_installed_ones(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"comfyui-videocrafter2 {importlib.metadata.version('comfyui-videocrafter2')}\n"


def test_a_missing_miniature_is_explained(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vc2.__main__.TINY", tmp_path / "vc2-tiny.safetensors")
    assert main(["a cat", "-o", str(tmp_path / "clip.mp4")]) == 2
    assert "vc2-tiny.safetensors is missing: the miniature comes with a git checkout" in capsys.readouterr().err
