"""PEFT's configuration of an adapter: its scales, and what cannot be honoured."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from tests.vc2.loras import CONFIG, LAYER, pair
from vc2.files import lora
from vc2.files.checkpoint import CheckpointError


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
