"""`python -m vc2.lora` as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.fixtures import fill_module
from tests.vc2.loras import CONFIG, turbo_list
from vc2 import lora as command
from vc2.files import checkpoint, lora
from vc2.files.merge import merge
from vc2.networks.unet import VideoUNet
from vc2.pipeline import Settings


@pytest.fixture
def folder(tmp_path):
    """`model.safetensors` and a LoRA for it, `unet_lora.pt`."""
    sampling = {"width": 64, "fps": 8, "steps": 25, "guidance": 4.0, "of_another_version": True}
    unet = fill_module(VideoUNet(CONFIG)).state_dict()
    checkpoint.save(tmp_path / "model.safetensors", unet=unet, metadata={"sampling": json.dumps(sampling)})
    torch.save(turbo_list(CONFIG), tmp_path / "unet_lora.pt")
    return tmp_path


def run(folder, *arguments):
    """The command's exit status; arguments that name files are files in the folder."""
    return command.main([str(folder / a) if a.endswith((".pt", ".safetensors")) else a for a in arguments])


def test_the_command_converts_and_merges(folder):
    model = ("--model", "model.safetensors")
    assert run(folder, "unet_lora.pt", "out.safetensors", *model) == 0
    assert len(load_file(folder / "out.safetensors")) == 2 * len(lora.adapted_modules(CONFIG))
    assert run(folder, "unet_lora.pt", "merged.safetensors", *model, "--merge") == 0
    merged = checkpoint.load(folder / "merged.safetensors")
    assert merged.config.time_cond_proj_dim == 256
    assert merged.config.family == "T2V-Turbo"
    assert not merged.schedule.rescaled
    assert Settings.of(merged.metadata, distilled=True) == Settings(
        width=64, fps=8, steps=4, guidance=7.5
    )  # not the undistilled model's steps
    assert json.loads(merged.metadata["sampling"]) == {"width": 64, "fps": 8, "of_another_version": True}
    assert run(folder, "unet_lora.pt", "out.pt") == 2
    assert run(folder, "none.pt", "o.safetensors") == 2


@pytest.mark.parametrize("strength", [None, 0.5])
def test_the_command_merges_at_a_strength(folder, strength):
    options = [] if strength is None else ["--strength", str(strength)]
    assert run(folder, "unet_lora.pt", "m.safetensors", "--model", "model.safetensors", "--merge", *options) == 0
    base = checkpoint.load(folder / "model.safetensors").unet
    expected = merge(base, lora.load(folder / "unet_lora.pt", CONFIG), strength or 1.0)
    found = checkpoint.load(folder / "m.safetensors").unet
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["out.safetensors", "--strength", "0.5"], "--strength needs --merge"),
        (["out.safetensors", "--merge"], "--merge needs --model"),
        (
            ["out.safetensors", "--model", "model.safetensors", "--merge", "--strength", "nan"],
            "finite number, found nan",
        ),
        (
            ["out.safetensors", "--model", "model.safetensors", "--merge", "--strength", "inf"],
            "finite number, found inf",
        ),
        (["model.safetensors", "--model", "model.safetensors", "--merge"], "model.safetensors exists already"),
        (["unet_lora.pt/x.safetensors", "--model", "model.safetensors"], "unet_lora.pt is not a folder"),
        (["out.safetensors"], "For a LoRA of another model, give its checkpoint with --model"),
    ],
)
def test_the_command_refuses(folder, monkeypatch, capsys, caplog, arguments, complaint):
    """In one plain line, before the model is read, and everything is left as it was."""
    monkeypatch.setattr(checkpoint, "load", lambda *_: pytest.fail("it read the model"))
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert run(folder, "unet_lora.pt", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert complaint in error
    assert error.count("\n") == 1
    assert not caplog.records
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_the_hint_at_the_model_is_for_those_who_gave_none(folder, capsys):
    torch.save(turbo_list(CONFIG)[:-2], folder / "short.pt")
    assert run(folder, "short.pt", "out.safetensors", "--model", "model.safetensors") == 2
    assert "--model" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("model.safetensors", None, "holds the weights of a model (a VideoCrafter checkpoint), not a LoRA"),
        ("page.safetensors", "<!doctype html>", "it is a web page; download the file"),
        ("notes.pt", "Für später: das LoRA", "is a text file, not weights (it starts with 'Für später: das LoRA')"),
        ("pointer.safetensors", "version https://git-lfs.github.com/spec/v1", "`git lfs pull` fetches"),
        ("adapter.safetensors", {"transformer.blocks.0.to_q.lora_A.weight": torch.zeros(4, 8)}, "for another network"),
    ],
)
def test_what_is_no_lora_is_said_to_be_none(folder, capsys, name, content, complaint):
    """In one line that names the file; a checkpoint of another size would not help."""
    if isinstance(content, str):
        (folder / name).write_text(content, encoding="utf-8")
    elif content:
        save_file(content, folder / name)
    assert run(folder, name, "out.safetensors") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {folder / name} ")
    assert complaint in error
    assert error.count("\n") == 1
    assert "--model" not in error
    assert not (folder / "out.safetensors").exists()


def test_a_folder_is_no_lora_file(folder, capsys):
    (folder / "adapter.pt").mkdir()
    assert run(folder, "adapter.pt", "out.safetensors") == 2
    assert "adapter.pt is a folder; name the file in it" in capsys.readouterr().err


def test_a_model_is_replaced_where_that_is_asked_for(folder):
    arguments = ["unet_lora.pt", "model.safetensors", "--model", "model.safetensors", "--merge", "--overwrite"]
    assert run(folder, *arguments) == 0
    assert checkpoint.load(folder / "model.safetensors").config.family == "T2V-Turbo"


def test_an_interrupt_while_torch_is_imported_is_no_traceback(tmp_path):
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt")
    process = subprocess.run(
        [sys.executable, "-m", "vc2.lora", "unet_lora.pt", str(tmp_path / "out.safetensors")],
        cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (process.returncode, process.stderr) == (130, "interrupted; nothing half-written is left\n")
