"""`python -m vc2` as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests import standin
from vc2.__main__ import device_of, main
from vc2.files.video import read_metadata, read_video
from vc2.pipeline import Guided, Settings, TextToVideo, override
from vc2.sampling import turbo

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
    command = [
        "-m",
        "vc2",
        "--prompts",
        str(tmp_path / "prompts.txt"),
        "--checkpoint",
        str(checkpoint),
        "--format",
        "png",
        *SMALL,
    ]
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
        (["a cat", "-o", "x.mp4", "--save-fps", "0"], "--save-fps must be positive, found 0"),
        (["a cat", "-o", "x.mp4", "--save-fps", "nan"], "--save-fps must be positive, found nan"),
        (["a cat", "-o", "x.mp4", "--eta", "1.5"], "eta must be between 0 and 1, found 1.5"),
        (["a cat", "-o", "x.mp4", "--guidance", "-1"], "guidance must be a number from 0, found -1"),
        (["a cat", "-o", "x.mp4", "--fps", "inf"], "fps must be a number from 0, found inf"),
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


@pytest.mark.parametrize(("asked", "found"), [("cuda", "cuda:3"), ("cuda:1", "cuda:1"), ("cpu", "cpu"), ("mps", "mps")])
def test_every_process_takes_its_own_gpu(asked, found):
    """`--device cuda` under accelerate launch."""
    assert device_of(asked, local_rank=3) == found


def test_a_turbo_model_is_sampled_as_one(tmp_path, caplog):
    """In four steps of its own, its guidance as a condition, whatever the negative prompt and eta."""
    config = replace(standin.unet_config("vc2_tiny"), time_cond_proj_dim=256)
    path = standin.write(tmp_path / "turbo.safetensors", config=config)
    with caplog.at_level("INFO"):
        model = TextToVideo(path)
    assert "T2V-Turbo model" in caplog.text
    assert (model.settings.steps, model.settings.guidance, model.settings.fps) == (4, 7.5, 16)
    settings = override(model.settings, width=32, height=24, frames=2)
    found = model(["a cat"], [5], settings)

    context, generator = model.text(["a cat"]), torch.Generator().manual_seed(5)

    def noise(_=0):
        return torch.randn(1, 4, 2, 3, 4, generator=generator)

    def denoise(x, t):
        return model.unet(
            x, t, context, torch.tensor([16.0]), guidance=7.5, motion_guidance=0.05 if t[0] >= 700 else 0.0
        )

    with torch.no_grad():
        expected = model.decode(turbo.sample(denoise, noise(), 4, step_noise=noise))
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
    assert np.array_equal(model(["a cat"], [5], override(settings, negative="a dog", eta=0.0)), found)
    assert not np.array_equal(model(["a cat"], [5], override(settings, guidance=12.0)), found)


def test_a_clip_depends_on_its_prompt_and_seed_alone(checkpoint):
    model = TextToVideo(checkpoint)
    settings = override(Settings(), width=32, height=24, frames=2, steps=2)
    together = model(["a cat", "a dog"], [1, 2], settings)
    alone = model(["a dog"], [2], settings)
    assert np.abs(together[1].astype(int) - alone[0].astype(int)).max() <= 1


def test_one_pass_or_two(checkpoint):
    """Guidance in one batch, or in two passes once memory has run out, is the same."""
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
