"""LoRA files of every layout, synthetic but with the real names, counts and shapes."""

from __future__ import annotations

import logging

import pytest
import torch
from safetensors.torch import save_file

from tests.vc2.loras import CONFIG, LAYER, pair, turbo_list
from vc2.files import lora
from vc2.files.checkpoint import CheckpointError
from vc2.networks.config import UNetConfig


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
