"""`python -m vc2` as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from tests import standin
from vc2.__main__ import main
from vc2.pipeline import Settings, TextToVideo, override
from vc2.video_io import read_metadata, read_video

SMALL = ["--frames", "3", "--size", "32x24", "--steps", "2"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return standin.write(tmp_path_factory.mktemp("cli") / "standin.safetensors")


def test_prompt_to_file(checkpoint, tmp_path, capsys):
    path = tmp_path / "clip.mp4"
    assert main(["a cat", "-o", str(path), "--checkpoint", str(checkpoint), "--seed", "3", *SMALL]) == 0
    assert capsys.readouterr().out.strip() == str(path)
    assert read_video(path).shape == (3, 24, 32, 3)
    assert read_metadata(path)["prompt_text"] == {
        "prompt": "a cat", "seed": 3, "checkpoint": checkpoint.name, "width": 32, "height": 24, "frames": 3, "steps": 2,
        "guidance": 12.0, "eta": 1.0, "fps": 28, "negative": "",
    }  # fmt: skip


def test_prompt_file_is_shared_among_processes(checkpoint, tmp_path):
    """Two processes under accelerate launch make every clip once, and the same clips as one process."""
    (tmp_path / "prompts.txt").write_text("a cat\n\na dog\na fish\n")
    command = ["-m", "vc2", "--prompts", str(tmp_path / "prompts.txt"), "--checkpoint", str(checkpoint), "--format", "png", *SMALL]
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, *command, "-o", str(tmp_path / "two")], check=True, env=environment, capture_output=True)
    assert main([*command[2:], "-o", str(tmp_path / "one")]) == 0
    one, two = (sorted((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert [f.name for f in one] == [f.name for f in two]
    assert len(one) == 9
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True))


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
    ],
)
def test_wrong_arguments(checkpoint, tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    if "--checkpoint" not in arguments:
        arguments = [*arguments, "--checkpoint", str(checkpoint)]
    assert main(arguments) == 2
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_clip_depends_on_its_prompt_and_seed_alone(checkpoint):
    model = TextToVideo(checkpoint)
    settings = override(Settings(), width=32, height=24, frames=2, steps=2)
    together = model(["a cat", "a dog"], [1, 2], settings)
    alone = model(["a dog"], [2], settings)
    assert np.abs(together[1].astype(int) - alone[0].astype(int)).max() <= 1


def test_one_pass_or_two(checkpoint):
    """Guidance in one batch, or in two passes once memory has run out, is the same."""
    import torch

    from vc2.pipeline import Guided

    model = TextToVideo(checkpoint)
    cond, uncond = model.text(["a cat"]), model.text([""])
    x, t, fps = torch.randn(1, 4, 2, 4, 4), torch.tensor([500]), torch.tensor([28.0])

    class Small(torch.nn.Module):
        def forward(self, x, *rest):
            if len(x) > 1:
                raise torch.cuda.OutOfMemoryError("out of memory")
            return model.unet(x, *rest)

    with torch.no_grad():
        whole = Guided(model.unet, cond, uncond, fps, 12.0)(x, t)
        split = Guided(Small(), cond, uncond, fps, 12.0)
        assert torch.allclose(split(x, t), whole, atol=1e-3)
    assert not split.one_batch
