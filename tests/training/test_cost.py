"""Costs are counted on the network itself; the figures to compare with are from the facts of the official model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vc2.networks.config import UNetConfig, as_config
from vc2.networks.unet import VideoUNet
from vc2.training import cost, counting
from vc2.training.estimate import estimate
from vc2.training.matrix import matrix
from vc2.training.recipe_files import load_recipe

RECIPES = Path(__file__).parents[2] / "training" / "recipes"


@pytest.fixture
def stored_counts():
    """As they are in the file, without what was counted since."""
    cost.stored_counts.cache_clear()
    return cost.stored_counts()


def test_the_paper_s_clip_costs_what_was_derived_for_it(stored_counts):
    """16 frames of 512x320, forward and backward, all learning: 37.7 TFLOP."""
    unet = VideoUNet(UNetConfig.vc2(), device="meta")
    counted = counting.count_flops(unet, 16, 40, 64)
    assert counted / 1e12 == pytest.approx(37.7, rel=0.01)
    assert counted == cost.sample_flops(load_recipe("F-base"), UNetConfig.vc2(), 16, again=False)


@pytest.mark.parametrize(
    ("name", "frames", "again"),
    [
        ("P-base", 1, True),
        ("F-Spa-LORA", 1, False),
        ("tiny/F-base", 16, False),
        ("tiny/base", 8, True),
        ("tiny/SD", 1, False),
        ("tiny/P-Temp-LORA", 1, False),
        ("tiny/your-images", 1, True),
    ],
)
def test_stored_counts_are_those_of_the_network(stored_counts, name, frames, again):
    """Where this fails after a change to the network, `python -m vc2.training.recount` counts anew."""
    recipe = load_recipe(name)
    config = as_config(UNetConfig, recipe.networks.unet)
    checkpointing = again and recipe.compute.gradient_checkpointing
    stored = stored_counts["unet"][cost.unet_key(recipe, config, frames, checkpointing)]
    assert counting.count_sample(recipe, config, frames, checkpointing) == stored


def test_the_autoencoder_s_stored_count_is_its_own(stored_counts):
    assert stored_counts["autoencoder"] == {"512x320": counting.count_encoding(512, 320)}


def test_what_comes_with_the_package_is_not_counted_again(stored_counts, monkeypatch, tmp_path):
    """Which takes most of a minute. What is not stored is counted."""
    monkeypatch.setattr(counting, "FlopCounterMode", None)
    monkeypatch.chdir(tmp_path)
    assert len(matrix(RECIPES)) > 11
    assert len(matrix(RECIPES / "tiny")) > 11
    with pytest.raises(TypeError):
        cost.a100_hours(load_recipe("F-base", ["data.width=64", "data.height=64"]))


@pytest.mark.parametrize(
    "change",
    [
        "learn.part=temporal",
        "learn={part: spatial, how: lora}",
        "learn={part: spatial, how: lora, rank: 8}",
        "diffusion.image_temporal=full",
        "data.clips=null",
        "data.width=128",
        "networks.unet.num_res_blocks=2",
    ],
)
def test_a_count_is_of_its_recipe_alone(change):
    """Whatever changes the count is part of what it is stored under."""
    recipe = load_recipe("tiny/base", ["init.unet=elsewhere"])
    other = load_recipe("tiny/base", ["init.unet=elsewhere", change])

    def key(recipe, checkpointing=False):
        return cost.unet_key(recipe, as_config(UNetConfig, recipe.networks.unet), 1, checkpointing)

    assert key(other) != key(recipe)
    assert key(recipe, checkpointing=True) != key(recipe)


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
