"""What holds for the UNet whatever its weights: clips are independent, sizes are free, names are the official ones."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fixtures import fill_module, manifest, noise, relative_rms
from tests.standin import unet_config
from vc2.files.checkpoint import TEXT, UNET, VAE
from vc2.networks import slices
from vc2.networks.autoencoder import AutoencoderKL
from vc2.networks.config import AutoencoderConfig, TextConfig, UNetConfig, UnsupportedCheckpointError
from vc2.networks.hooks import Hooks
from vc2.networks.text import TextEncoder
from vc2.networks.unet import VideoUNet
from vc2.training.partition import is_temporal, temporal_names

PRESETS = {"vc2": UNetConfig.vc2(), "vc1_512": UNetConfig.vc1_512(), "vc1_1024": UNetConfig.vc1_1024()}


@pytest.fixture(scope="module", params=["vc2_tiny", "vc1_1024_tiny"])
def unet(request) -> VideoUNet:
    return fill_module(VideoUNet(unet_config(request.param)))


def inputs(b: int, t: int, h: int, w: int) -> tuple[torch.Tensor, ...]:
    return (
        noise("x", (b, 4, t, h, w)),
        torch.arange(b) * 300 + 1,
        noise("context", (b, 77, 64)),
        torch.arange(b) * 20 + 8,
    )


@settings(max_examples=12)
@given(st.integers(1, 3), st.integers(1, 24), st.integers(3, 9), st.integers(3, 9))
@torch.no_grad()
def test_clips_do_not_influence_one_another(b, t, h, w):
    """Any number of clips and frames, any size (odd ones too): f(cat[A, B]) == cat[f(A), f(B)]."""
    model = CACHED
    x, steps, context, fps = inputs(b, t, h, w)
    together = model(x, steps, context, fps)
    apart = torch.cat([model(x[i : i + 1], steps[i : i + 1], context[i : i + 1], fps[i : i + 1]) for i in range(b)])
    assert together.shape == x.shape
    assert relative_rms(together, apart) < 1e-5


CACHED = fill_module(VideoUNet(unet_config("vc2_tiny")))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_it_compiles_to_one_graph(checkpointing):
    """Nothing in the forward pass, what it carries and its hooks included, breaks torch.compile's graph."""
    model = fill_module(VideoUNet(unet_config("vc2_tiny")))
    model.gradient_checkpointing(checkpointing)
    torch._dynamo.reset()
    explained = torch._dynamo.explain(model)(*inputs(1, 3, 4, 4))
    assert (explained.graph_count, explained.graph_break_count) == (1, 0)


@torch.no_grad()
def test_the_feed_forward_compiles_for_sizes_that_are_not_known(monkeypatch):
    """As torch.compile takes them from the second size on; in slices here, as at full size."""
    block = CACHED.init_attn[0].transformer_blocks[0]
    monkeypatch.setattr(slices, "TOKENS", 0)
    monkeypatch.setattr(slices, "SLICE", 8 * 4 * block.norm3.normalized_shape[0] * 4 * 3)  # three rows of four tokens
    compiled = torch.compile(block._feed_forward, backend="eager", dynamic=True, fullgraph=True)
    for rows in (7, 5):
        x = noise("tokens", (rows, 4, block.norm3.normalized_shape[0]))
        expected = x + block.ff(block.norm3(x))
        assert relative_rms(compiled(x.clone()), expected) < 1e-6
        assert relative_rms(block._feed_forward(x.clone()), expected) < 1e-6


@torch.no_grad()
def test_conditions_for_each_frame(unet):
    """One timestep and one text a frame, all the same, equal one a clip; different ones do not."""
    x, steps, context, fps = inputs(2, 5, 4, 4)
    expected = unet(x, steps, context, fps)
    steps_each, context_each = steps[:, None].expand(2, 5), context[:, None].expand(2, 5, 77, 64)
    assert relative_rms(unet(x, steps_each, context_each, fps), expected) < 1e-5
    changed = steps_each.clone()
    changed[:, 2] += 100
    assert relative_rms(unet(x, changed, context, fps), expected) > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("each_frame", [False, True])
def test_several_prompts_for_each_clip(unet, each_frame):
    """As every clip with every prompt by itself; what comes before the text is computed once."""
    x, steps, _, fps = inputs(2, 3, 5, 6)
    context = noise("prompts", (6, 3, 7, 64) if each_frame else (6, 7, 64))
    if each_frame:
        steps = steps[:, None] + torch.arange(3)
    seen, block = [], unet.input_blocks[1][1].transformer_blocks[0]
    watched = [
        layer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[:-1].numel()))
        for layer in (block.attn1, block.attn2)
    ]
    found = unet(x, steps, context, fps)
    for watch in watched:
        watch.remove()
    expected = unet(x.repeat(3, 1, 1, 1, 1), steps.repeat(3, *(1,) * (steps.ndim - 1)), context, fps.repeat(3))
    assert relative_rms(found, expected) < 1e-5
    assert relative_rms(found[:2], found[2:4]) > 1e-3
    assert seen == [2 * 3 * 5 * 6, 3 * 2 * 3 * 5 * 6], "tokens"


@torch.no_grad()
def test_time_has_a_direction_and_fps_matters():
    """A clip played backwards is another clip to VideoCrafter2; another fps gives another answer."""
    x, steps, context, fps = inputs(1, 6, 4, 4)
    out = CACHED(x, steps, context, fps)
    assert relative_rms(CACHED(x.flip(2), steps, context, fps).flip(2), out) > 1e-3
    assert relative_rms(CACHED(x, steps, context, fps + 8), out) > 1e-3


@torch.no_grad()
def test_bypassing_the_temporal_layers_leaves_frames_alone():
    x, steps, context, fps = inputs(1, 3, 4, 4)
    together = CACHED(x, steps, context, fps, temporal="bypass")
    # init_attn is temporal too, so every frame must come out as if it were alone.
    apart = torch.cat([CACHED(x[:, :, i : i + 1], steps, context, fps, temporal="bypass") for i in range(3)], 2)
    assert relative_rms(together, apart) < 1e-5


@pytest.mark.parametrize("name", PRESETS)
def test_full_size_names_and_shapes(name):
    """On the meta device every network has exactly the tensors of the official checkpoint."""
    official = manifest()[name]
    for prefix, module in (
        (UNET, VideoUNet(PRESETS[name], device="meta")),
        (VAE, AutoencoderKL(device="meta")),
        (TEXT, TextEncoder(device="meta")),
    ):
        expected = {key.removeprefix(prefix): tuple(shape) for key, shape in official.items() if key.startswith(prefix)}
        assert {key: tuple(t.shape) for key, t in module.state_dict().items()} == expected


@pytest.mark.parametrize("name", PRESETS)
def test_family_is_told_from_names_and_shapes(name):
    official = {key: torch.empty(shape, device="meta") for key, shape in manifest()[name].items()}
    unet = {key.removeprefix(UNET): t for key, t in official.items() if key.startswith(UNET)}
    vae = {key.removeprefix(VAE): t for key, t in official.items() if key.startswith(VAE)}
    assert UNetConfig.from_state_dict(unet) == PRESETS[name]
    assert AutoencoderConfig.from_state_dict(vae) == AutoencoderConfig(resolution=512)


@pytest.mark.parametrize("case", ["vc2_tiny", "vc2_base_narrow", "vc1_512_tiny", "vc1_1024_tiny"])
def test_config_survives_its_own_state_dict(case):
    config = unet_config(case)
    found = UNetConfig.from_state_dict(VideoUNet(config, device="meta").state_dict())
    # The order of attention_resolutions means nothing, and without relative positions no tensor tells the length
    # trained at.
    assert set(found.attention_resolutions) == set(config.attention_resolutions)
    assert (found.channel_mult, found.num_head_channels, found.family) == (
        config.channel_mult,
        config.num_head_channels,
        config.family,
    )
    VideoUNet(found, device="meta").load_state_dict(VideoUNet(config, device="meta").state_dict(), strict=True)


def test_sd21_is_told_apart():
    with pytest.raises(UnsupportedCheckpointError, match="Stable Diffusion image UNet"):
        UNetConfig.from_state_dict(
            {
                key.removeprefix(UNET): torch.empty(shape, device="meta")
                for key, shape in manifest()["sd21_unet"].items()
            }
        )


def test_partition_of_the_official_unet():
    """theta_T has 798 tensors, 547.37 M; theta_S has 686, 865.91 M, and they are SD 2.1's."""
    unet = VideoUNet(UNetConfig.vc2(), device="meta")
    temporal = temporal_names(unet)
    sizes = {name: p.numel() for name, p in unet.named_parameters()}
    assert len(temporal) == 798
    assert round(sum(sizes[n] for n in temporal) / 1e6, 2) == 547.37
    assert len(sizes) - len(temporal) == 686
    assert round(sum(n for name, n in sizes.items() if name not in temporal) / 1e6, 2) == 865.91
    assert is_temporal(unet, "init_attn.0.norm.weight")
    assert not is_temporal(unet, "time_embed.0.weight")


@torch.no_grad()
def test_hooks_see_and_change_every_skip():
    class Louder(Hooks):
        seen: list[str] = []

        def input(self, index, h):
            self.seen.append(f"in {index}")
            return h, h

        def output(self, index, h, skip):
            self.seen.append(f"out {index}")
            return h, 2 * skip

    x, steps, context, fps = inputs(1, 2, 4, 4)
    assert relative_rms(CACHED(x, steps, context, fps, hooks=Hooks()), CACHED(x, steps, context, fps)) < 1e-6
    assert relative_rms(CACHED(x, steps, context, fps, hooks=Louder()), CACHED(x, steps, context, fps)) > 1e-3
    assert Louder.seen == [f"in {i}" for i in range(4)] + [f"out {i}" for i in range(4)]


def test_gradient_checkpointing_changes_nothing():
    config = unet_config("vc2_tiny")
    x, steps, context, fps = inputs(1, 3, 4, 4)
    gradients = []
    for on in (False, True):
        model = fill_module(VideoUNet(config)).eval()
        model.gradient_checkpointing(on)
        model(x, steps, context, fps).square().sum().backward()
        gradients.append(model.input_blocks[1][0].in_layers[2].weight.grad)
    assert relative_rms(gradients[1], gradients[0]) < 1e-5


def test_wrong_inputs_are_named():
    x, steps, context, fps = inputs(1, 2, 4, 4)
    with pytest.raises(ValueError, match=r"\[B, C, T, H, W\]"):
        CACHED(x[0], steps, context, fps)
    with pytest.raises(ValueError, match="32 wide but this model takes 64"):
        CACHED(x, steps, context[..., :32], fps)
    with pytest.raises(ValueError, match="one context for each of the 2 clips, or several for each, found 3"):
        CACHED(*inputs(2, 2, 4, 4)[:2], noise("three", (3, 77, 64)))
    with pytest.raises(ValueError, match="GroupNorm"):
        UNetConfig(model_channels=48)
    with pytest.raises(ValueError, match=r"UNetConfig\.channel_mult must name at least one level"):
        UNetConfig(channel_mult=[])
    with pytest.raises(ValueError, match=r"UNetConfig\.num_res_blocks must be positive, found 0"):
        UNetConfig(num_res_blocks=0)
    with pytest.raises(ValueError, match=r"TextConfig\.heads must be positive, found 0"):
        TextConfig(heads=0)
