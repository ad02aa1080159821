"""LoRA: the right layers, nothing at first, and what is trained is what is saved, merged and added."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from tests.fixtures import fill_module, relative_rms
from vc2.files import checkpoint
from vc2.files import lora as files
from vc2.files.merge import merge
from vc2.networks.config import UNetConfig
from vc2.networks.unet import VideoUNet
from vc2.training import lora
from vc2.training.errors import RecipeError
from vc2.training.loop import Trainer
from vc2.training.partition import mark_what_learns, temporal_names, untouched_by_images
from vc2.training.recipe_sections import Diffusion, Learn

NARROW = UNetConfig(
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_resolutions=(2,),
    num_head_channels=16,
    context_dim=48,
)


def inputs():
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(1, 4, 3, 8, 8, generator=generator),
        torch.tensor([500]),
        torch.randn(1, 77, 48, generator=generator),
        torch.tensor([8]),
    )


@pytest.fixture
def unet():
    return fill_module(VideoUNet(NARROW)).eval()


def test_full_size_targets():
    full = VideoUNet(UNetConfig.vc2(), device="meta")
    assert len(lora.targets(full, "spatial")) == 128
    temporal = lora.targets(full, "temporal", no_convolutions=True)
    assert {name.split(".")[-1] for name in temporal} == {"to_v", "0", "proj", "2", "proj_in", "proj_out"}
    assert not [name for name in temporal if name.endswith((".to_q", ".to_k"))]
    convs = set(lora.targets(full, "temporal")) - set(temporal)
    assert len(convs) == 4 * sum(".conv1.2.weight" in name for name in full.state_dict())
    names = temporal_names(full)
    assert all(f"{name}.weight" in names for name in [*temporal, *convs])
    assert set(lora.targets(full, "all")) == {*lora.targets(full, "spatial"), *temporal, *convs}
    assert lora.targets(full, "temporal", no_transformers=True, no_convolutions=True) == []


@pytest.mark.parametrize("part", ["spatial", "temporal", "all"])
@torch.no_grad()
def test_trained_saved_merged_and_patched_are_one(unet, part, tmp_path):
    plain = unet(*inputs())
    state = {name: t.clone() for name, t in unet.state_dict().items()}
    names = lora.targets(unet, part)
    lora.inject(unet, part, rank=4)
    assert relative_rms(unet(*inputs()), plain) < 1e-5  # B is zero; what is added to has another layout in memory
    learning = {name: p for name, p in unet.named_parameters() if p.requires_grad}
    assert len(learning) == 2 * len(names)
    assert all(".adapter." in name for name in learning)
    generator = torch.Generator().manual_seed(1)
    for p in learning.values():
        p.copy_(0.05 * torch.randn(p.shape, generator=generator))
    trained = unet(*inputs())
    assert relative_rms(trained, plain) > 1e-3
    path = files.save(tmp_path / "lora.safetensors", lora.to_file(unet.state_dict()))
    merged = VideoUNet(NARROW).eval()
    merged.load_state_dict(merge(state, files.load(path, NARROW)))
    assert relative_rms(merged(*inputs()), trained) < 1e-5


def test_on_single_images_every_adapter_gets_a_gradient(unet):
    """A temporal LoRA on q and k alone would learn nothing from them: with one frame their gradient is exactly zero."""
    lora.inject(unet, "temporal", rank=4, no_convolutions=True)
    for name, p in unet.named_parameters():
        if name.endswith("lora_B.weight"):
            torch.nn.init.normal_(p, std=0.1)
    x, t, context, fps = inputs()
    unet(x[:, :, :1], t, context, fps, temporal="identity").square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in unet.parameters() if p.requires_grad)


@pytest.mark.parametrize("temporal", ["identity", "full", "bypass"])
def test_what_images_cannot_teach(temporal):
    """Exactly these have no gradient, but for rounding (in double precision, to tell it apart). 64 channels: with one a
    group the norm would hide biases.
    """
    unet = fill_module(VideoUNet(dataclasses.replace(NARROW, model_channels=64))).double()
    x, t, context, fps = (tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs())
    eps = unet(x[:, :, :1], t, context, fps, temporal=temporal)
    (eps * torch.randn(eps.shape, generator=torch.Generator().manual_seed(5), dtype=eps.dtype)).sum().backward()
    largest = {name: 0.0 if p.grad is None else float(p.grad.abs().max()) for name, p in unet.named_parameters()}
    assert {name for name, g in largest.items() if g < 1e-11 * max(largest.values())} == untouched_by_images(
        unet, temporal
    )


def test_a_lora_of_images_alone_has_no_temporal_queries():
    """Named or not: nothing would teach them."""
    learn = Learn(part="all", how="lora", rank=2, targets=("q", "v"))
    unet = VideoUNet(NARROW)
    mark_what_learns(unet, SimpleNamespace(learn=learn, diffusion=Diffusion(), image_only=True))
    learning = {name for name, p in unet.named_parameters() if p.requires_grad}
    temporal = {name for name in learning if name in temporal_names(unet)}
    assert any(".to_v." in name for name in temporal)
    assert not any(".to_q." in name for name in temporal)
    assert any(".to_q." in name for name in learning - temporal)


@pytest.mark.parametrize("part", ["spatial", "temporal", "all"])
@torch.no_grad()
def test_every_kind_of_layer_and_any_alpha_is_saved_as_it_was_trained(part, tmp_path):
    """The product counts alpha / rank, while it trains and in the file."""
    recipe = SimpleNamespace(
        learn=Learn(part=part, how="lora", rank=4, alpha=1.0, targets=("q", "k", "v", "out", "ff", "proj", "conv")),
        diffusion=Diffusion(),
        image_only=False,
    )
    unet = fill_module(VideoUNet(NARROW)).eval()
    state = {name: t.clone() for name, t in unet.state_dict().items()}
    mark_what_learns(unet, recipe)
    learning = {name: p for name, p in unet.named_parameters() if p.requires_grad}
    generator = torch.Generator().manual_seed(1)
    for p in learning.values():
        p.copy_(0.05 * torch.randn(p.shape, generator=generator))
    trained = unet(*inputs())
    path = files.save(tmp_path / "lora.safetensors", lora.to_file(unet.state_dict(), recipe.learn.alpha))
    tensors = files.load(path, NARROW)
    assert {float(tensor) for name, tensor in tensors.items() if name.endswith(".alpha")} == {1.0}
    merged = VideoUNet(NARROW).eval()
    merged.load_state_dict(merge(state, tensors))
    assert relative_rms(merged(*inputs()), trained) < 1e-5
    at_rank = VideoUNet(NARROW).eval()
    at_rank.load_state_dict(merge(state, lora.to_file({name: p for name, p in learning.items()})))
    assert relative_rms(at_rank(*inputs()), trained) > 1e-2


def test_a_recipe_names_the_layers_that_get_an_adapter(unet):
    def named(*kinds: str, part: str = "all", **left_out: bool) -> set[str]:
        return {name.rsplit(".", 1)[-1] for name in lora.targets(unet, part, kinds=kinds, **left_out)}

    assert named("q", "v") == {"to_q", "to_v"}
    assert named("ff") == {"proj", "2"}
    assert named("proj", part="spatial") == {"proj_in", "proj_out"}
    spatial, temporal = (lora.targets(unet, part, kinds=("conv",)) for part in ("spatial", "temporal"))
    names = temporal_names(unet)
    assert spatial
    assert temporal
    assert all(name.endswith(("in_layers.2", "out_layers.3")) and f"{name}.weight" not in names for name in spatial)
    assert all(f"{name}.weight" in names for name in temporal)
    # On single images temporal q and k cannot learn, whatever a recipe names.
    assert lora.targets(unet, "temporal", kinds=("q", "k"), no_queries=True) == []
    assert lora.targets(unet, "spatial", kinds=("q",), no_queries=True)


def test_what_only_a_lora_has_is_refused_elsewhere():
    with pytest.raises(ValueError, match="alpha and targets are of a LoRA, and how is direct"):
        Learn(alpha=8, targets=("q",))
    with pytest.raises(ValueError, match="'q', 'k', 'v', 'out', 'ff', 'proj' or 'conv'"):
        Learn(how="lora", targets=("to_q",))


def test_a_lora_beside_eight_bits_learns_what_it_learns_beside_floats(recipe, folder, start):
    """The frozen Linears are rounded to a byte, the exported files are not."""
    pytest.importorskip("bitsandbytes")
    settings = {"init": {"unet": start}, "learn": {"part": "spatial", "how": "lora", "rank": 2}, "steps": 4}
    settings |= {"optimizer": {"lr": 0.01, "warmup": 0}, "diffusion": {"dropout": 0.0}}
    for precision in ("fp32", "bf16"):
        losses = {}
        for frozen in ("float", "int8"):
            compute, run = {"precision": precision, "frozen": frozen}, folder.parent / f"{precision}-{frozen}"
            trainer = Trainer(recipe(**settings, compute=compute), run)
            batches = trainer.objective.batches(0, 0, 1)
            losses[frozen] = [trainer.train_step(next(batches))["loss"] for _ in range(4)]
        linears = [m for m in trainer.network.modules() if isinstance(m, torch.nn.Linear)]
        assert {m.weight.dtype for m in linears if not m.weight.requires_grad} == {torch.int8}
        assert losses["int8"] != losses["float"]
        assert losses["int8"] == pytest.approx(losses["float"], rel=0.01)
    trainer.export()
    before, after = checkpoint.load(start).unet, checkpoint.load(run / "model.safetensors").unet
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".attn" in name for name in changed)
    with pytest.raises(RecipeError, match=r"compute\.frozen int8 is for LoRA"):
        recipe(compute={"frozen": "int8"})
