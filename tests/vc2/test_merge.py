"""What merging a LoRA adds to a model."""

from __future__ import annotations

import torch

from tests.fixtures import fill_module, relative_rms
from tests.vc2.loras import CONFIG, LAYER, pair
from vc2.files.merge import merge
from vc2.networks.unet import VideoUNet


def test_merge_adds_the_product():
    unet = fill_module(VideoUNet(CONFIG)).state_dict()
    g = torch.Generator().manual_seed(1)
    up, down = pair(tuple(unet[f"{LAYER}.weight"].shape), 4, g)
    name = f"diffusion_model.{LAYER}"
    tensors = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up, f"{name}.alpha": torch.tensor(8.0)}
    merged = merge(unet, tensors, 0.5)
    assert relative_rms(merged[f"{LAYER}.weight"], unet[f"{LAYER}.weight"] + 0.5 * 2 * up @ down) < 1e-6
    assert all(torch.equal(merged[n], unet[n]) for n in unet if n != f"{LAYER}.weight")


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
