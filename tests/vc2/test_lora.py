"""LoRA files of every layout, synthetic but with the real names, counts and shapes."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.fixtures import fill_module, relative_rms
from tests.standin import unet_config
from vc2 import lora as command
from vc2.files import checkpoint, lora
from vc2.files.checkpoint import CheckpointError
from vc2.files.merge import merge
from vc2.networks.config import UNetConfig
from vc2.networks.unet import VideoUNet
from vc2.pipeline import Settings

CONFIG = unet_config("vc2_tiny")
LAYER = "input_blocks.1.1.transformer_blocks.0.attn1.to_q"


def pair(shape, rank, generator):
    """(up, down) of a layer's weight shape."""
    up = torch.randn(shape[0], rank, *(1,) * (len(shape) - 2), generator=generator)
    return up, torch.randn(rank, *shape[1:], generator=generator)


def turbo_list(config, rank=4):
    g = torch.Generator().manual_seed(0)
    return [t for shape in lora.adapted_modules(config).values() for t in pair(shape, rank, g)]


def layer_state(layer=LAYER, down_name="lora_A.weight", **changes):
    """A pair for one layer in ComfyUI's layout, with some of it changed."""
    given = {"down": torch.zeros(4, 32), "up": torch.zeros(32, 4)} | changes
    names = {"down": down_name, "up": "lora_B.weight", "alpha": "alpha"}
    return {f"diffusion_model.{layer}.{names[name]}": tensor for name, tensor in given.items()}


def test_turbos_counts_and_order():
    """575 modules and 1150 tensors, `time_cond_proj` at index 4."""
    modules = lora.adapted_modules(UNetConfig.vc2())
    assert len(modules) == 575
    assert list(modules)[4] == "time_cond_proj"
    assert modules["time_cond_proj"] == (320, 256)
    assert not any(name.startswith("init_attn.0.proj") for name in modules)  # Conv1d: not adapted


def test_turbos_list(tmp_path):
    content = turbo_list(CONFIG)
    torch.save(content, tmp_path / "unet_lora.pt")
    tensors = lora.load(tmp_path / "unet_lora.pt", CONFIG)
    assert len(tensors) == len(content)
    assert torch.equal(tensors["diffusion_model.time_cond_proj.lora_B.weight"], content[8])
    lora.save(tmp_path / "again.safetensors", tensors)
    again = lora.load(tmp_path / "again.safetensors", CONFIG)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)


def test_merge_adds_the_product():
    unet = fill_module(VideoUNet(CONFIG)).state_dict()
    g = torch.Generator().manual_seed(1)
    up, down = pair(tuple(unet[f"{LAYER}.weight"].shape), 4, g)
    name = f"diffusion_model.{LAYER}"
    tensors = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up, f"{name}.alpha": torch.tensor(8.0)}
    merged = merge(unet, tensors, 0.5)
    assert relative_rms(merged[f"{LAYER}.weight"], unet[f"{LAYER}.weight"] + 0.5 * 2 * up @ down) < 1e-6
    assert all(torch.equal(merged[n], unet[n]) for n in unet if n != f"{LAYER}.weight")


@pytest.mark.parametrize(
    ("prefix", "ends", "alpha"),
    [
        (
            "base_model.model.model.diffusion_model.",
            ("lora_A.weight", "lora_B.weight"),
            8.0,
        ),  # VADER: PEFT over the whole model
        ("base_model.model.", ("lora_A.default.weight", "lora_B.default.weight"), 8.0),
        ("diffusion_model.", ("lora_A.weight", "lora_B.weight"), None),
        ("diffusion_model.", ("lora_down.weight", "lora_up.weight"), None),
    ],
)
def test_dotted_layouts(tmp_path, prefix, ends, alpha):
    up, down = pair(lora.adapted_modules(CONFIG)[LAYER], 4, torch.Generator().manual_seed(0))
    save_file({f"{prefix}{LAYER}.{ends[0]}": down, f"{prefix}{LAYER}.{ends[1]}": up}, tmp_path / "x.safetensors")
    tensors = lora.load(tmp_path / "x.safetensors", CONFIG)
    assert torch.equal(tensors[f"diffusion_model.{LAYER}.lora_A.weight"], down)
    found = tensors.get(f"diffusion_model.{LAYER}.alpha")
    assert (None if found is None else float(found)) == alpha


def test_peft_alpha_from_its_configuration(tmp_path):
    up, down = pair(lora.adapted_modules(CONFIG)[LAYER], 4, torch.Generator().manual_seed(0))
    save_file(
        {f"base_model.model.{LAYER}.lora_A.weight": down, f"base_model.model.{LAYER}.lora_B.weight": up},
        tmp_path / "adapter_model.safetensors",
    )
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 32}))
    assert float(lora.load(tmp_path / "adapter_model.safetensors", CONFIG)[f"diffusion_model.{LAYER}.alpha"]) == 32


@pytest.fixture
def adapter(tmp_path):
    """Reads a PEFT adapter of two layers, of rank 16 and 4, by a configuration: their scales alpha / rank."""
    layers = {LAYER: 16, LAYER.replace("attn1.to_q", "attn2.to_v"): 4}
    shapes, state = lora.adapted_modules(CONFIG), {}
    for layer, rank in layers.items():
        up, down = pair(shapes[layer], rank, torch.Generator().manual_seed(0))
        prefix = f"base_model.model.model.diffusion_model.{layer}"
        state |= {f"{prefix}.lora_A.weight": down, f"{prefix}.lora_B.weight": up}
    save_file(state, tmp_path / "adapter_model.safetensors")

    def read(config):
        (tmp_path / "adapter_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        tensors = lora.load(tmp_path / "adapter_model.safetensors", CONFIG)
        return [float(tensors[f"diffusion_model.{layer}.alpha"]) / rank for layer, rank in layers.items()]

    return read


@pytest.mark.parametrize(
    ("config", "scales"),
    [
        ({}, [0.5, 2]),
        ({"lora_alpha": 16}, [1, 4]),
        ({"lora_alpha": 16, "use_rslora": True}, [4, 8]),
        ({"lora_alpha": 16, "use_rslora": False, "alpha_pattern": None, "peft_type": "LORA"}, [1, 4]),
        ({"lora_alpha": 16, "init_lora_weights": True}, [1, 4]),
        ({"lora_alpha": 16, "alpha_pattern": {"to_q": 32}}, [2, 4]),
        ({"lora_alpha": 16, "alpha_pattern": {"attn2.to_v": 2, "o_q": 99}}, [1, 0.5]),
        ({"alpha_pattern": {f"^model.diffusion_model.{LAYER}": 4, "^to_v": 99}, "use_rslora": True}, [1, 4]),
        ({"lora_alpha": 8, "rank_pattern": {"to_q": 16}, "r": 4}, [0.5, 2]),
    ],
)
def test_pefts_scales(adapter, config, scales):
    assert adapter(config) == scales


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ("{", "is not a PEFT adapter configuration"),
        ("[" * 100_000, "is not a PEFT adapter configuration"),
        ("[1]", "it holds no JSON object"),
        ({"lora_alpha": float("nan")}, "alpha must be a finite number, found nan"),
        ({"lora_alpha": "16"}, "alpha must be a finite number, found '16'"),
        ({"alpha_pattern": {"to_q": True}}, "alpha must be a finite number, found True"),
        ({"alpha_pattern": [1]}, r"alpha_pattern must be a JSON object, found \[1\]"),
        ({"alpha_pattern": {"(a+)+$": 1}}, "alpha_pattern has the regular expression"),
        ({"use_dora": True}, "use_dora is True; only plain LoRA is supported"),
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is True"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4'"),
    ],
)
def test_peft_configurations_that_cannot_be_honoured(adapter, config, complaint):
    with pytest.raises(CheckpointError, match=rf"adapter_config\.json.*{complaint}"):
        adapter(config)


def test_alphas_of_other_types(tmp_path):
    """Some write them as integers, or as vectors of one."""
    for alpha in (torch.tensor(8), torch.full((1,), 8.0)):
        save_file(layer_state(alpha=alpha), tmp_path / "x.safetensors")
        found = lora.load(tmp_path / "x.safetensors", CONFIG)[f"diffusion_model.{LAYER}.alpha"]
        assert (found.shape, float(found)) == ((), 8)


def test_vaders_count():
    """198 attention projections to_q, to_k, to_v of VideoCrafter2."""
    names = [n for n in lora.adapted_modules(UNetConfig.vc2()) if n.rsplit(".", 1)[-1] in ("to_q", "to_k", "to_v")]
    assert len(names) == 198


def test_kohya_with_a_text_encoder(tmp_path, caplog):
    up, down = pair(lora.adapted_modules(CONFIG)[LAYER], 4, torch.Generator().manual_seed(0))
    stem = "lora_unet_" + LAYER.replace(".", "_")
    te = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    state = {
        f"{stem}.lora_down.weight": down,
        f"{stem}.lora_up.weight": up,
        f"{stem}.alpha": torch.tensor(2.0),
        f"{te}.alpha": torch.tensor(2.0),
    }
    save_file(state, tmp_path / "x.safetensors")
    with caplog.at_level(logging.WARNING):
        tensors = lora.load(tmp_path / "x.safetensors", CONFIG)
    assert float(tensors[f"diffusion_model.{LAYER}.alpha"]) == 2
    assert "1 tensor for the text encoder left out" in caplog.text


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {"diffusion_model.nowhere.lora_A.weight": torch.zeros(4, 8)},
            "is a LoRA for another network: it has nothing for any layer of this model .diffusion_model.nowhere",
        ),
        (
            layer_state() | {"diffusion_model.nowhere.lora_A.weight": torch.zeros(4, 8)},
            r"1 of 3 tensors belong to no layer of this model \(diffusion_model.nowhere",
        ),
        (
            {f"diffusion_model.blocks.{i}.self_attn.q.lora_A.weight": torch.zeros(4, 8) for i in range(30)},
            "is a LoRA for another network: it has nothing for",
        ),
        ({"double_blocks.0.img_attn.proj.weight": torch.zeros(4)}, "is Flux, not a LoRA: it has nothing for"),
        ({"lora_te_layers_0_fc1.alpha": torch.tensor(1.0)}, "is a LoRA for the text encoder alone"),
        ({f"diffusion_model.{LAYER}.lora_A.weight": torch.zeros(4, 64)}, "lora_B.weight is missing"),
        ({f"diffusion_model.{LAYER}.lora_B.weight": torch.zeros(32, 4)}, "lora_A.weight is missing"),
        ({f"diffusion_model.{LAYER}.diff": torch.zeros(3, 3)}, "has shape .3, 3., expected"),
        (
            {
                f"diffusion_model.{LAYER}.lora_A.weight": torch.zeros(4, 5),
                f"diffusion_model.{LAYER}.lora_B.weight": torch.zeros(64, 4),
            },
            "has shape",
        ),
        ({"model.weight": torch.zeros(1)}, r"holds no LoRA: it has nothing .*\(model\.weight\)"),
        (layer_state(down=torch.zeros(0, 32), up=torch.zeros(32, 0)), "has shape .0, 32., as no weights have"),
        (layer_state(down=torch.tensor(1.0)), r"lora_A\.weight has shape \(\), expected"),
        (layer_state(up=torch.tensor(1.0)), r"lora_B\.weight has shape \(\), expected"),
        (layer_state(alpha=torch.ones(4)), r"alpha has shape \(4,\), expected a single number"),
        (layer_state(alpha=torch.tensor(torch.nan)), "alpha holds numbers that are not finite"),
        (layer_state(down=torch.zeros(4, 32, dtype=torch.int64)), "lora_A.weight holds int64 numbers"),
        ({f"diffusion_model.{LAYER}.alpha": torch.tensor(1.0)}, "lora_A.weight is missing"),
        ({f"diffusion_model.{LAYER}.diff_b": torch.tensor(1.0)}, "expected none, for this layer has no bias"),
        ({f"diffusion_model.{LAYER}.diff_b": torch.zeros(32)}, "expected none, for this layer has no bias"),
        (layer_state("input_blocks.1.0.in_layers.0"), "has no matrix to which a LoRA could be added"),
        # Modules that only hold others.
        (layer_state("input_blocks.1"), "it has nothing for any layer of this model"),
        (layer_state("input_blocks.1.1.transformer_blocks.0.attn1"), "it has nothing for any layer"),
        (layer_state(LAYER) | layer_state(LAYER, "lora_down.weight"), "is there twice, by two names"),
        (
            {
                f"diffusion_model.{LAYER}.lora_A.weight": torch.zeros(4, 32),
                f"diffusion_model.{LAYER}.lora_B.weight": torch.zeros(32, 4).index_fill(0, torch.tensor(9), torch.nan),
            },
            "lora_B.weight holds numbers that are not finite",
        ),
        ({f"diffusion_model.{LAYER}.diff": torch.full((32, 32), torch.inf)}, "diff holds numbers that are not finite"),
    ],
)
def test_files_that_do_not_fit(tmp_path, state, message):
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=message):
        lora.load(tmp_path / "x.safetensors", CONFIG)


def test_a_list_of_another_length(tmp_path):
    torch.save(turbo_list(CONFIG)[:-2], tmp_path / "unet_lora.pt")
    with pytest.raises(CheckpointError, match="is a list of"):
        lora.load(tmp_path / "unet_lora.pt", CONFIG)


def test_merge_adds_plain_changes():
    """`.diff` to the weight, `.diff_b` to the bias, both times the strength; what the model lacks counts as zero."""
    unet = fill_module(VideoUNet(CONFIG)).state_dict()
    layer = "input_blocks.1.0.in_layers.2"
    weight, bias = torch.randn_like(unet[f"{layer}.weight"]), torch.randn_like(unet[f"{layer}.bias"])
    new = torch.randn(64, 256)
    changes = {f"{layer}.diff": weight, f"{layer}.diff_b": bias, "time_cond_proj.diff": new}
    merged = merge(unet, {f"diffusion_model.{name}": change for name, change in changes.items()}, 0.5)
    assert torch.allclose(merged[f"{layer}.weight"], unet[f"{layer}.weight"] + 0.5 * weight)
    assert torch.allclose(merged[f"{layer}.bias"], unet[f"{layer}.bias"] + 0.5 * bias)
    assert torch.allclose(merged["time_cond_proj.weight"], 0.5 * new)
    assert all(torch.equal(merged[n], unet[n]) for n in unet if not n.startswith(layer))


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
