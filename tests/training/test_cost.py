"""Costs are counted on the network itself; the figures to compare with are from the facts of the official model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.live_bytes import LiveBytes
from vc2.networks.config import UNetConfig, as_config
from vc2.networks.unet import VideoUNet
from vc2.training import cost, counting
from vc2.training.cards import Card
from vc2.training.check import USED, describe, proposals
from vc2.training.errors import RecipeError
from vc2.training.estimate import estimate, memory, propose
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
        pytest.param("F-Spa-LORA", 1, False, marks=pytest.mark.slow),
        pytest.param("tiny/F-base", 16, False, marks=pytest.mark.slow),
        ("tiny/base", 8, True),
        ("tiny/SD", 1, False),
        ("tiny/P-Temp-LORA", 1, False),
        pytest.param("tiny/your-images", 1, True, marks=pytest.mark.slow),
    ],
)
def test_stored_counts_are_those_of_the_network(stored_counts, name, frames, again):
    """Where this fails after a change to the network, `python -m vc2.training.recount` counts anew."""
    recipe = load_recipe(name)
    config = as_config(UNetConfig, recipe.networks.unet)
    once, *levels = stored_counts["unet"][cost.unet_key(recipe, config, frames)]
    assert counting.count_sample(recipe, config, frames) == [once, *levels]
    if name.startswith("tiny"):  # and they are what the network itself takes, checkpointed or not
        unet = counting.network(recipe, config)
        unet.gradient_checkpointing(again)
        size = (frames, recipe.data.height // 8, recipe.data.width // 8, recipe.diffusion.image_temporal)
        assert counting.count_flops(unet, *size) == once + again * sum(levels)


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

    def key(recipe):
        return cost.unet_key(recipe, as_config(UNetConfig, recipe.networks.unet), 1)

    assert key(other) != key(recipe)


def test_checkpointing_costs_a_forward_pass_more_and_mfu_does_not_count_it():
    narrow = (
        "networks.unet={model_channels: 64, num_head_channels: 16, context_dim: 64, num_res_blocks: 1,"
        " attention_resolutions: [4]}"
    )

    def checkpointed(where: str):
        return load_recipe(RECIPES / "F-base.yaml", [narrow, f"compute.gradient_checkpointing={where}"])

    def flops(where: str) -> float:
        recipe = checkpointed(where)
        return cost.sample_flops(recipe, cost.unet_config(recipe), 16)

    found, without = estimate(checkpointed("true")), estimate(checkpointed("false"))
    assert 1.2 < found.flops / found.model_flops < 4 / 3
    assert without.flops == without.model_flops == found.model_flops
    assert without.flops < flops("[0, 2]") < found.flops == flops("[0, 1, 2, 3]")
    assert flops("[0, 2]") + flops("[1, 3]") == found.flops + without.flops
    with pytest.raises(RecipeError, match=r"this network has levels 0 to 3, found \[1, 4\]"):
        flops("[1, 4]")


def test_lora_learns_3_32_million_parameters():
    recipe = load_recipe(RECIPES / "F-Spa-LORA.yaml", ["init.unet=null", "init.sd=elsewhere"])
    unet = counting.network(recipe, UNetConfig.vc2())
    learning = [p for p in unet.parameters() if p.requires_grad]
    assert len(learning) == 2 * 128
    assert sum(p.numel() for p in learning) == pytest.approx(3.32e6, rel=0.002)


SMALL = UNetConfig(
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_resolutions=(2,),
    num_head_channels=16,
    context_dim=64,
)


def test_activations_are_those_that_are_kept():
    """Against the memory that a real forward pass takes."""
    layers = counting.kept_activations(VideoUNet(SMALL, device="meta"), 8, 16, 16, bf16=False)
    counted = sum(layer.whole for layer in layers)
    unet, kept = VideoUNet(SMALL), {}
    weights = {p.untyped_storage().data_ptr() for p in unet.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (tensor, storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        unet(torch.randn(1, 4, 8, 16, 16), torch.zeros(1), torch.randn(1, 77, 64), torch.zeros(1))
    real = sum(size for _, size in kept.values())
    assert counted == pytest.approx(real, rel=0.1)
    assert counting.peak(layers, (0, 1)) < 0.5 * counted


def live_peak(unet: VideoUNet, levels: tuple[int, ...], frames: int, height: int, width: int) -> int:
    """Bytes, beside weights and gradients, of a forward and a backward pass, counted operation by operation."""
    device = next(unet.parameters()).device
    unet.gradient_checkpointing(levels)
    for p in unet.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    with torch.device(device):
        x, context, t = (
            torch.ones(1, 4, frames, height, width),
            torch.ones(1, 77, unet.config.context_dim),
            torch.ones(1),
        )
    with LiveBytes() as live:
        unet(x, t, context, t).sum().backward()
    return live.peak


@pytest.mark.parametrize("levels", [(), (0,), (1,), (0, 1)])
def test_the_peak_is_that_of_a_real_step(levels):
    layers = counting.kept_activations(VideoUNet(SMALL, device="meta"), 8, 16, 16, bf16=False)
    real = live_peak(VideoUNet(SMALL), levels, 8, 16, 16)
    assert 0.9 * real < counting.peak(layers, levels) < 1.25 * real


@pytest.mark.parametrize("levels", [(), (0,)])
def test_the_peak_is_that_of_a_step_at_full_size(levels):
    """Which no device computes here."""
    unet = VideoUNet(UNetConfig.vc2(), device="meta")
    layers = counting.kept_activations(unet, 16, 40, 64, bf16=False)
    unet.use_attention(counting._fused_attention, counting._fused_attention)
    assert counting.peak(layers, levels) == pytest.approx(live_peak(unet, levels, 16, 40, 64), rel=0.06)


def test_bf16_keeps_products_in_it_and_norms_in_float32():
    """By the operations that CUDA's autocast rounds: so less than in float32, and more than half of it."""
    unet = VideoUNet(SMALL, device="meta")
    whole, half = (
        sum(layer.whole for layer in counting.kept_activations(unet, 8, 16, 16, bf16)) for bf16 in (False, True)
    )
    assert 0.55 * whole < half < 0.8 * whole


@pytest.mark.parametrize(("name", "processes"), [("F-base", 32), ("F-Spa-DIR", 8), ("your-images", 1)])
def test_the_recipes_are_what_is_proposed_for_their_card(name, processes):
    """Stage 1 and 2 for an A100 with 80 GB, your-images for 24 GB; what fits is computed once."""
    recipe, room = load_recipe(name), 0.9e9 * (24 if name == "your-images" else 80)
    needs = estimate(recipe)
    best = propose(recipe, needs, room, processes)
    assert best.recipe.compute == recipe.compute
    assert best.bytes == memory(recipe, needs, processes) < room
    assert best.a100_hours == needs.a100_hours
    if name == "F-base":
        assert best.a100_hours == pytest.approx(3706, abs=1)
        twice = load_recipe(name, ["compute.gradient_checkpointing=true"])
        assert cost.a100_hours(twice) == pytest.approx(4544, abs=1)


def test_less_memory_computes_more_again_at_fewer_samples_at_once():
    recipe = load_recipe("F-Spa-LORA")
    needs, hours, sizes = estimate(recipe), [], []
    for gigabytes in (80, 40, 24, 16, 8, 6):
        best = propose(recipe, needs, 0.9e9 * gigabytes, 8)
        assert best.bytes <= 0.9e9 * gigabytes
        hours.append(best.a100_hours)
        sizes.append((best.recipe.compute.gradient_checkpointing, best.recipe.compute.micro_batch))
    assert hours == sorted(hours)
    assert sizes[:5] == [(False, None), (False, 16), (False, 8), ((0,), 8), ((0, 1), 8)]
    assert all(micro is None or micro >= 8 for _, micro in sizes)  # images that occupy a GPU
    assert propose(recipe, needs, 4e9, 8) is None


def test_a_recipe_that_fits_is_told_to_and_what_is_proposed_is_what_differs():
    """And where nothing fits the least is told."""
    lines = list(describe(load_recipe("tiny/your-images"), 1, Card(24.0, 0.0)))
    assert lines[-1].startswith("24 GB: fits as it is, about ")
    needs = estimate(load_recipe("tiny/your-images"))

    def size(*changes: str) -> float:
        """GB."""
        return memory(load_recipe("tiny/your-images", list(changes)), needs) / 1e9

    def advice(gigabytes: float, *changes: str) -> list[str]:
        """On a card with so many for the run."""
        recipe = load_recipe("tiny/your-images", list(changes))
        return [line.split(": ", 1)[1] for line in proposals(recipe, needs, Card(gigabytes / USED, 0.0), 1)]

    enough = 1.01 * size()
    [line] = advice(enough)
    assert line.startswith(f"fits as it is, about {size():.2g} GB a process of {enough:.2g} that may be used")
    assert "compute." not in line
    assert [line] == advice(enough, "compute.micro_batch=4") == advice(enough, "compute.gradient_checkpointing=[]")
    [line] = advice(0.99 * size())
    assert line.startswith("does not fit as it is, about ")
    assert "; proposed: compute.gradient_checkpointing=[0]; about " in line
    for change in ("compute.micro_batch=2", "compute.gradient_checkpointing=true"):
        fits, better = advice(enough, change)
        assert fits.startswith("fits as it is")
        back = change.replace("2", "null").replace("true", "false")
        assert better.startswith(f"makes more of the card: {back}; about ")
    frugal = ("compute.gradient_checkpointing=true", "compute.micro_batch=1")
    [line] = advice(1.01 * size(*frugal))
    assert f"; proposed: {' '.join(frugal)}; about " in line
    with pytest.raises(RecipeError, match=f"The least is {size(*frugal):.2g} GB, with {' '.join(frugal)}, for which a"):
        advice(0.99 * size(*frugal))
