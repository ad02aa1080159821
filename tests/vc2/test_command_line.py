"""`python -m vc2` as a user runs it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import standin
from vc2.__main__ import device_of, main, read_prompts
from vc2.files.checkpoint import CheckpointError
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
    command = ["--prompts", str(tmp_path / "prompts.txt"), "--checkpoint", str(checkpoint), "--format", "png", *SMALL]
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
        "-m",
        "vc2",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, *command, "-o", str(tmp_path / "two")], check=True, env=environment, capture_output=True)
    assert main([*command, "-o", str(tmp_path / "one")]) == 0
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


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with a few files in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "three.txt").write_text("a cat\na dog\na fish\n")
    (tmp_path / "x.mp4").mkdir()
    (tmp_path / "done").mkdir()
    for name in ("clip.mp4", "photo_00412.png", "done/0001.mp4", "done/0002_00000.png"):
        (tmp_path / name).write_text("somebody else's")
    return tmp_path


def contents(folder):
    return {path.relative_to(folder): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["a cat", "-o", "x.mp4", "--overwrite"], "x.mp4 is a folder"),
        (["a cat", "-o", "x.mp4", "--skip-existing"], "x.mp4 is a folder"),
        (["a cat", "-o", "clip.mp4/b.mp4"], "clip.mp4 is not a folder"),
        (["a cat", "-o", "clip.mp4"], "clip.mp4 exists already; choose another name, or add --overwrite"),
        (["a cat", "-o", "photo.png"], "photo_00412.png exists already"),
        (["--prompts", "three.txt", "-o", "clip.mp4"], "clip.mp4 is not a folder"),
        (["--prompts", "three.txt", "-o", "done"], "0001.mp4 exists already"),
        (["--prompts", "three.txt", "-o", "done", "--format", "png"], "0002_00000.png exists already"),
    ],
)
def test_the_output_is_checked_before_the_weights_are_read(folder, monkeypatch, capsys, arguments, complaint):
    monkeypatch.setattr(TextToVideo, "__init__", lambda *_: pytest.fail("it read the weights"))
    before = contents(folder)
    assert main([*arguments, "--checkpoint", "absent.ckpt"]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert ".writing" not in error
    assert contents(folder) == before


def test_overwriting_is_asked_for(checkpoint, folder, monkeypatch, capsys):
    sampling = ["--checkpoint", str(checkpoint), *SMALL, "--overwrite"]
    before = contents(folder)
    assert main(["a cat", "-o", "clip.mp4", *sampling]) == 0
    assert len(read_video(folder / "clip.mp4")) == 3
    assert main(["--prompts", "three.txt", "-o", "done", *sampling]) == 0
    assert {path for path, content in contents(folder).items() if before.get(path, "") != content} == {
        Path("clip.mp4"), *(Path("done") / f"000{n}.mp4" for n in range(3)),
    }  # fmt: skip
    # What is left beyond the new clip is told before sampling, too: then its length is known.
    monkeypatch.setattr(TextToVideo, "__call__", lambda *_: pytest.fail("it sampled"))
    assert main(["a cat", "-o", "photo.png", *sampling]) == 2
    assert "photo_00412.png would mix with the new clip's 3 frames" in capsys.readouterr().err


@pytest.mark.parametrize(("format", "missing"), [("mp4", ["0000.mp4", "0002.mp4"]), ("png", ["0000_", "0001_"])])
def test_a_folder_is_completed(checkpoint, folder, format, missing):
    """What is there is left, and what is not is as in a folder that was made in one go."""
    command = ["--prompts", "three.txt", "--format", format, "--checkpoint", str(checkpoint), *SMALL, "--seed", "5"]
    assert main([*command, "-o", "whole"]) == 0
    before = contents(folder / "done")
    assert main([*command, "-o", "done", "--skip-existing"]) == 0
    whole, after = contents(folder / "whole"), contents(folder / "done")
    assert after == before | {path: whole[path] for path in whole if path.name.startswith(tuple(missing))}


def test_a_process_completes_its_own_share(folder, monkeypatch, caplog):
    """The shares do not move by what is there, which another process may be adding to; nor are weights read in vain."""
    monkeypatch.setattr(TextToVideo, "__init__", lambda *_: pytest.fail("it read the weights"))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with caplog.at_level("INFO"):
        assert main(["--prompts", "three.txt", "-o", "done", "--skip-existing"]) == 0
    assert "1 of 1 clip there already, and left alone" in caplog.text


def test_leaving_and_replacing_contradict(folder, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["a cat", "-o", "clip.mp4", "--skip-existing", "--overwrite"])
    assert "not allowed with argument" in capsys.readouterr().err


def test_a_process_asks_for_its_own_files_only(checkpoint, folder, monkeypatch):
    """Another one may have written some of its own before this one asks."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    command = ["--prompts", "three.txt", "-o", "done", "--checkpoint", str(checkpoint), *SMALL]
    (folder / "done" / "0002_00000.png").unlink()
    assert main([*command, "--format", "mp4"]) == 0  # 0000 and 0002; 0001 is there already
    assert sorted(path.name for path in (folder / "done").iterdir()) == ["0000.mp4", "0001.mp4", "0002.mp4"]


def test_the_steps_that_ran_are_recorded(checkpoint, tmp_path, caplog):
    """DDIM runs 8 for 7; both are written down, for 8 asked for would be another clip."""
    command = ["a cat", "-o", str(tmp_path / "clip.mp4"), "--checkpoint", str(checkpoint), "--frames", "1"]
    with caplog.at_level("INFO"):
        assert main([*command, "--size", "32x24", "--steps", "7"]) == 0
    recorded = read_metadata(tmp_path / "clip.mp4")["prompt_text"]
    assert (recorded["steps"], recorded["steps_run"]) == (7, 8)
    assert "7 steps do not divide 1000: DDIM runs 8" in caplog.text


def test_prompt_files_are_utf_8(tmp_path, capsys):
    (tmp_path / "marked.txt").write_text("\ufeffa cat\n\nein Bär\n", encoding="utf-8")
    assert read_prompts(tmp_path / "marked.txt") == ["a cat", "ein Bär"]
    for encoding in ("utf-16", "latin-1"):
        (tmp_path / "other.txt").write_text("ein Bär", encoding=encoding)
        assert main(["--prompts", str(tmp_path / "other.txt"), "-o", str(tmp_path / "clips")]) == 2
        assert f"{tmp_path / 'other.txt'} is not UTF-8 text" in capsys.readouterr().err


def test_what_is_cut_from_a_prompt_is_told(checkpoint, tmp_path, caplog):
    """A prompt has 75 tokens of its own; start and end take two."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(f"{'cat ' * 75}\n{'dog ' * 75}a fish\n")
    command = ["--prompts", str(prompts), "-o", str(tmp_path), "--checkpoint", str(checkpoint), *SMALL]
    with caplog.at_level("WARNING"):
        assert main([*command, "--negative", "bird " * 76]) == 0
    assert [record.getMessage() for record in caplog.records] == [
        'the prompt "bird bird bird bird bird bird bird bird ..." has over 77 tokens; its end is not read: bird',
        'the prompt "dog dog dog dog dog dog dog dog dog dog ..." has over 77 tokens; its end is not read: a fish',
    ]


def test_half_precision_on_a_cpu_is_told(checkpoint, caplog):
    with caplog.at_level("INFO"):
        assert TextToVideo(checkpoint).dtype == torch.float32
    assert "computing in fp32" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        TextToVideo(checkpoint, dtype=torch.float32)
    assert "fp32" not in caplog.text


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float64])
def test_precisions_that_nothing_computes_in(tmp_path, dtype):
    """They are for storing."""
    model = TextToVideo(standin.write(tmp_path / "x.safetensors", dtype=dtype))
    assert model.dtype == torch.float32
    assert np.ptp(model(["a cat"], [1], override(Settings(), width=32, height=24, frames=1, steps=1))) > 0


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


@pytest.mark.parametrize(
    ("sampling", "complaint"),
    [
        ("{", "is not JSON"),
        ("[1]", r"must be a JSON object, found \[1\]"),
        ('{"steps": "50"}', "must hold steps as int, found '50'"),
        ('{"steps": true}', "must hold steps as int, found True"),
        ('{"guidance": null}', "must hold guidance as float, found None"),
        ('{"negative": 3}', "must hold negative as str, found 3"),
        ("null", "must be a JSON object, found None"),
        ("[" * 100_000, "is not JSON"),
        ('{"steps": ' + "9" * 5000 + "}", "is not JSON"),
        ('{"fps": NaN}', "must hold a fps that can be sampled, found nan"),
        ('{"guidance": -1e999}', "must hold a guidance that can be sampled, found -inf"),
        ('{"frames": 1000000000}', "must hold a frames that can be sampled, found 1000000000"),
    ],
)
def test_damaged_recommendations_are_named(checkpoint, tmp_path, sampling, complaint):
    save_file(load_file(checkpoint), tmp_path / "odd.safetensors", metadata={"sampling": sampling})
    with pytest.raises(CheckpointError, match=rf"odd\.safetensors: the metadata 'sampling' {complaint}"):
        TextToVideo(tmp_path / "odd.safetensors")


def test_recommendations_are_taken():
    recommended = {"steps": 25, "fps": 8, "guidance": 4.5, "negative": "blur", "of_another_version": [1]}
    settings = Settings.of({"sampling": json.dumps(recommended)})
    assert settings == Settings(steps=25, fps=8, guidance=4.5, negative="blur")


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_what_fp16_cannot_hold_is_decoded_in_fp32(checkpoint, caplog, dtype):
    model = TextToVideo(checkpoint)
    # The first layer's numbers are too large for fp16; the norm after it takes the factor out again.
    model.vae.decoder.conv_in.weight.mul_(1e4)
    z = torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(0)) * 10
    expected = model.decode(z)
    model.vae.to(dtype)
    assert np.abs(model.decode(z).astype(int) - expected).max() <= 2  # its weights have been through fp16
    assert expected.std() > 1
    told = ["the autoencoder's numbers left what fp16 can hold; decoding in fp32"]
    assert caplog.messages == (told if dtype == torch.float16 else [])


def test_latents_that_are_not_finite_are_an_error(checkpoint):
    model = TextToVideo(checkpoint)
    model.unet.out[2].bias.fill_(torch.inf)
    with pytest.raises(RuntimeError, match="the UNet's numbers left what fp32 can hold; expected finite latents"):
        model(["a red circle moving right"], [0], replace(model.settings, steps=1, frames=2))


def test_one_pass_or_two(checkpoint):
    """Guidance in one batch, or in two passes once memory has run out, is the same."""
    model = TextToVideo(checkpoint)
    cond, uncond = model.text(["a cat", "a dog"]), model.text(["", ""])
    x, t, fps = torch.randn(2, 4, 2, 4, 4), torch.tensor([500, 20]), torch.tensor([28.0, 8.0])

    class Small(torch.nn.Module):
        def forward(self, x, *rest):
            if len(x) > 2:
                raise torch.cuda.OutOfMemoryError("out of memory")
            return model.unet(x, *rest)

    with torch.no_grad():
        whole = Guided(model.unet, cond, uncond, fps, 12.0)(x, t)
        split = Guided(Small(), cond, uncond, fps, 12.0)
        assert torch.allclose(split(x, t), whole, atol=1e-3)
    assert not split.one_batch
