"""Step 0 from Stable Diffusion 2.1 is Stable Diffusion 2.1, frame by frame; all of it is taken, or none."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from tests.fixtures import fill_module
from vc2.files.checkpoint import UNET, CheckpointError
from vc2.networks.config import UNetConfig
from vc2.networks.unet import VideoUNet
from vc2.training.initialise import ldm_name, load_spatial, zero_outputs
from vc2.training.partition import temporal_names

MANIFEST = json.loads((Path(__file__).parents[1] / "fixtures" / "manifest.json").read_text())
# SD 2.1's shape at a tenth of its width.
NARROW = UNetConfig(model_channels=32, num_head_channels=16, context_dim=48)
ATTENTION = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3


def diffusers_unet(width: int, head_dim: int, context: int) -> UNet2DConditionModel:
    """diffusers' Stable Diffusion 2.1 (its `unet/config.json`), of any width."""
    widths = tuple(width * m for m in (1, 2, 4, 4))
    return UNet2DConditionModel(
        sample_size=64,
        block_out_channels=widths,
        attention_head_dim=[w // head_dim for w in widths],
        cross_attention_dim=context,
        use_linear_projection=True,
        down_block_types=ATTENTION[0],
        up_block_types=ATTENTION[1],
    )


@pytest.fixture(scope="module")
def reference():
    return fill_module(diffusers_unet(32, 16, 48)).eval()


def ldm(reference) -> dict[str, torch.Tensor]:
    """The reference's weights as Stability's file has them."""
    return {UNET + ldm_name(name): tensor for name, tensor in reference.state_dict().items()}


@pytest.mark.parametrize("layout", ["diffusers", "ldm", "ldm without prefix"])
@torch.no_grad()
def test_step_0_is_sd_2_1_on_every_frame(reference, layout, tmp_path):
    path = tmp_path / "sd.safetensors"
    state = reference.state_dict() if layout == "diffusers" else ldm(reference)
    if layout == "ldm without prefix":
        state = {name.removeprefix(UNET): t for name, t in state.items()}
    elif layout == "ldm":
        state |= {"first_stage_model.x": torch.zeros(1), "betas": torch.zeros(3)}
    save_file({name: t.contiguous() for name, t in state.items()}, path)
    torch.manual_seed(0)
    unet = zero_outputs(VideoUNet(NARROW)).train(False)
    load_spatial(unet, path)
    x, context, t = torch.randn(2, 4, 3, 16, 24), torch.randn(2, 77, 48), torch.tensor([17, 801])
    expected = torch.stack([reference(x[:, :, i], t, context).sample for i in range(3)], 2)
    for fps in (4, 28, 100):
        found = unet(x, t, context, torch.full((2,), fps))
        assert (found - expected).norm() / expected.norm() < 1e-5
    unet.init_attn[0].proj_out.weight.add_(
        0.01
    )  # the temporal modules are there, and silent only because their outputs are zero
    assert (unet(x, t, context, torch.full((2,), 28)) - expected).norm() / expected.norm() > 1e-4


def test_every_name_and_shape_of_the_full_size_fits():
    """686 of 686: theta_S of VideoCrafter2, from the manifest's SD 2.1 and from diffusers' names."""
    with torch.device("meta"):
        full = diffusers_unet(320, 64, 1024)
    translated = {UNET + ldm_name(name): list(t.shape) for name, t in full.state_dict().items()}
    assert translated == {name: list(shape) for name, shape in MANIFEST["sd21_unet"].items()}
    assert len(translated) == 686
    video = VideoUNet(UNetConfig.vc2(), device="meta")
    assert len(video.state_dict()) - len(temporal_names(video)) == 686
    assert len(temporal_names(video)) == 798


def test_theta_t_is_what_the_rule_on_official_names_says():
    """Prefix init_attn or fps_embedding; a temporal convolution; the transformer after a spatial one. 798 tensors of
    547.37 M, against 865.91 M.
    """
    rule = re.compile(
        r"init_attn\.|fps_embedding\.|.*\.temopral_conv\.|middle_block\.2\.|(input|output)_blocks\.\d+\.2\.(?!conv\.)"
    )
    video = VideoUNet(UNetConfig.vc2(), device="meta")
    state = video.state_dict()
    temporal = temporal_names(video)
    assert temporal == {name for name in state if rule.match(name)}
    assert sum(state[name].numel() for name in temporal) == pytest.approx(547.37e6, rel=1e-5)
    assert sum(t.numel() for name, t in state.items() if name not in temporal) == pytest.approx(865.91e6, rel=1e-5)
    names = {name.removeprefix(UNET) for name in MANIFEST["sd21_unet"]}
    moved = {re.sub(r"^(middle_block\.|output_blocks\.[58]\.)2\.", r"\g<1>3.", name) for name in names}
    assert moved == {name for name in state if name not in temporal}


def test_a_file_that_lacks_a_tensor_is_refused_and_nothing_is_loaded(reference, tmp_path):
    state = {name: t.contiguous() for name, t in ldm(reference).items()}
    gone = UNET + "middle_block.1.norm.weight"
    del state[gone]
    save_file(state, tmp_path / "sd.safetensors")
    unet = VideoUNet(NARROW)
    before = {name: t.clone() for name, t in unet.state_dict().items()}
    with pytest.raises(
        CheckpointError, match=r"685 of the 686 spatial tensors found.*Missing: middle_block\.1\.norm\.weight"
    ):
        load_spatial(unet, tmp_path / "sd.safetensors")
    assert all(torch.equal(t, before[name]) for name, t in unet.state_dict().items())


def test_another_model_is_refused(reference, tmp_path):
    save_file({name: t.contiguous() for name, t in ldm(reference).items()}, tmp_path / "sd.safetensors")
    with pytest.raises(CheckpointError, match=r"has shape .* expected"):
        load_spatial(
            VideoUNet(UNetConfig(model_channels=64, num_head_channels=32, context_dim=48)), tmp_path / "sd.safetensors"
        )
