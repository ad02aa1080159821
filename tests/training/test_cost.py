"""Costs are counted on the network itself; the figures to compare with are from the facts of the official model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vc2.networks.config import UNetConfig
from vc2.networks.unet import VideoUNet
from vc2.training import counting
from vc2.training.estimate import estimate
from vc2.training.recipe_files import load_recipe

RECIPES = Path(__file__).parents[2] / "training" / "recipes"


def test_the_paper_s_clip_costs_what_was_derived_for_it():
    """16 frames of 512x320, forward and backward, all learning: 37.7 TFLOP."""
    unet = VideoUNet(UNetConfig.vc2(), device="meta")
    assert counting.count_flops(unet, 16, 40, 64) / 1e12 == pytest.approx(37.7, rel=0.01)


def test_checkpointing_costs_a_forward_pass_more_and_mfu_does_not_count_it():
    recipe = load_recipe(
        RECIPES / "F-base.yaml", ["networks.unet={model_channels: 64, num_head_channels: 16, context_dim: 64}"]
    )
    found = estimate(recipe)
    assert 1.2 < found.flops / found.model_flops < 4 / 3
    without = estimate(
        load_recipe(
            RECIPES / "F-base.yaml", [f"networks.unet={recipe.networks.unet}", "compute.gradient_checkpointing=false"]
        )
    )
    assert without.flops == without.model_flops == found.model_flops


def test_lora_learns_3_32_million_parameters():
    recipe = load_recipe(RECIPES / "F-Spa-LORA.yaml", ["init.unet=null", "init.sd=elsewhere"])
    unet = counting.network(recipe, UNetConfig.vc2())
    learning = [p for p in unet.parameters() if p.requires_grad]
    assert len(learning) == 2 * 128
    assert sum(p.numel() for p in learning) == pytest.approx(3.32e6, rel=0.002)


def test_activations_are_those_that_are_kept():
    """Against the memory that a real forward pass takes."""
    config = UNetConfig(
        model_channels=32,
        channel_mult=(1, 2),
        num_res_blocks=1,
        attention_resolutions=(2,),
        num_head_channels=16,
        context_dim=64,
    )
    counted = counting.saved_bytes(VideoUNet(config, device="meta"), 8, 16, 16, bf16=False)
    unet, kept = VideoUNet(config), {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if not isinstance(tensor, torch.nn.Parameter):
            kept[storage.data_ptr()] = (tensor, storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        unet(torch.randn(1, 4, 8, 16, 16), torch.zeros(1), torch.randn(1, 77, 64), torch.zeros(1))
    real = sum(size for _, size in kept.values())
    assert counted == pytest.approx(real, rel=0.1)
    checkpointed = VideoUNet(config, device="meta")
    for module in checkpointed.modules():
        if hasattr(module, "use_checkpoint"):
            module.use_checkpoint = True
    assert counting.saved_bytes(checkpointed, 8, 16, 16, bf16=False) < 0.5 * counted
