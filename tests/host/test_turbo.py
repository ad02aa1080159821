"""LoRAs of other layouts and T2V-Turbo through a real ComfyUI."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from scripts.client import PromptError
from tests import standin
from tests.fixtures import fill_module, relative_rms
from tests.host import graphs
from tests.host.graphs import SAME
from tests.vc2.loras import turbo_list
from vc2.files import checkpoint, lora
from vc2.files.merge import merge
from vc2.networks.unet import VideoUNet
from vc2.pipeline import TextToVideo
from vc2.sampling import turbo

FRAMES, SIDE = 4, 4


@pytest.fixture(scope="module")
def model(server):
    return standin.write(server.base / "models" / "checkpoints" / "standin_turbo.safetensors")


@pytest.fixture(scope="module")
def turbo_lora(server):
    """As T2V-Turbo's, so small that the stand-in's epsilon stays an epsilon."""
    path = server.base / "models" / "loras" / "unet_lora.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save([0.05 * t for t in turbo_list(standin.unet_config("vc2_tiny"))], path)
    return path


def turbo_node(**changes):
    inputs = {"seed": 7, "steps": 4, "guidance": 7.5, "original_steps": 200, "motion_guidance": 0.05} | changes
    links = {"model": ["load", 0], "positive": ["condition", 0], "latent": ["latent", 0]}
    return graphs.node("VC2TurboSampler", **(links | inputs))


def graph_with(model, lora_name=None, clips=1, **changes):
    graph = graphs.base(model.name, FRAMES, 8 * SIDE, clips=clips, frames_per_clip=FRAMES) | {
        "sampler": turbo_node(**changes)
    }
    if lora_name:
        graph["lora"] = graphs.node("VC2LoadLoRA", model=["load", 0], lora_name=lora_name, strength=1.0)
        graph["sampler"]["inputs"]["model"] = ["lora", 0]
    return graph


def expected(unet, text, steps=4, original=200, guidance=7.5, motion=0.05):
    context = text([graphs.PROMPT])

    def denoise(x, t):
        with torch.no_grad():
            return unet(
                x, t, context, torch.tensor([28.0]), guidance=guidance, motion_guidance=motion if t[0] >= 700 else 0.0
            )

    def noise(seed_generator):
        return torch.randn(FRAMES, 4, SIDE, SIDE, generator=seed_generator).transpose(0, 1)[None]

    z = torch.Generator().manual_seed(8)
    out = turbo.sample(denoise, noise(torch.Generator().manual_seed(7)), steps, original, lambda _: noise(z))
    return out[0].transpose(0, 1)


@pytest.mark.parametrize(("steps", "original"), [(4, 200), (8, 50)])
def test_turbo_reproduces_ours_with_the_lora_merged(client, model, turbo_lora, steps, original):
    ours = TextToVideo(model)
    state = merge(
        {n: t.float() for n, t in checkpoint.load(model).unet.items()}, lora.load(turbo_lora, ours.unet.config)
    )
    unet = VideoUNet(dataclasses.replace(ours.unet.config, time_cond_proj_dim=256))
    unet.load_state_dict(state)
    found = graphs.run_for_latent(client, graph_with(model, turbo_lora.name, steps=steps, original_steps=original))
    assert relative_rms(found, expected(unet.eval(), ours.text, steps, original)) < 1e-3


@pytest.mark.parametrize("motion", [None, 256])
def test_turbo_v2_unet(client, server, model, motion):
    ours = TextToVideo(model)
    config = dataclasses.replace(ours.unet.config, time_cond_proj_dim=256, motion_cond_proj_dim=motion)
    unet = fill_module(VideoUNet(config)).half().float().eval()
    folder = server.base / "models" / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({n: t.half() for n, t in unet.state_dict().items()}, folder / f"turbo_v2_{motion}.pt")
    graph = graph_with(model)
    graph["unet"] = graphs.node("VC2LoadDiffusionModel", unet_name=f"turbo_v2_{motion}.pt", weight_dtype="default")
    graph["sampler"]["inputs"]["model"] = ["unet", 0]
    assert relative_rms(graphs.run_for_latent(client, graph), expected(unet, ours.text)) < 1e-3


def test_two_turbo_clips_in_a_batch_stay_two(client, model, turbo_lora):
    both = graphs.run_for_latent(client, graph_with(model, turbo_lora.name, clips=2, steps=1))
    alone = graphs.run_for_latent(client, graph_with(model, turbo_lora.name, steps=1))
    assert relative_rms(both[:FRAMES], alone) < SAME


def test_turbo_frames_that_are_not_whole_clips_are_refused(client, model, turbo_lora):
    graph = graph_with(model, turbo_lora.name)
    graph["latent"]["inputs"]["frames"], graph["condition"]["inputs"]["frames_per_clip"] = 12, 8
    with pytest.raises(PromptError, match="holds 12 frames, which are not whole clips of 8"):
        graphs.run_for_latent(client, graph)


def test_a_turbo_model_in_another_sampler_is_warned_of(client, server, model, turbo_lora):
    """Guided DDIM runs on it; what comes out is not what it was distilled for."""
    graph = graph_with(model, turbo_lora.name) | {"sampler": graphs.vc2_sampler(steps=1)}
    before = len(server.log)
    graphs.run_for_latent(client, graph)
    assert "VideoCrafter Turbo Sampler" not in server.log[before:]
    graph["sampler"]["inputs"]["model"] = ["lora", 0]
    graphs.run_for_latent(client, graph)
    assert "VideoCrafter Sampler: this model was distilled" in server.log[before:]
    assert "VideoCrafter Turbo Sampler" in server.log[before:]


def test_a_model_that_was_not_distilled_is_refused(client, model):
    with pytest.raises(PromptError, match="put Load VideoCrafter LoRA with T2V-Turbo's"):
        graphs.run_for_latent(client, graph_with(model))


def test_the_converted_file_in_the_stock_loader_is_the_same(client, server, model, turbo_lora):
    tensors = lora.load(turbo_lora, TextToVideo(model).unet.config)
    lora.save(turbo_lora.with_name("converted.safetensors"), tensors)
    stock = graph_with(model, "any")
    stock["lora"] = graphs.node(
        "LoraLoaderModelOnly", model=["load", 0], lora_name="converted.safetensors", strength_model=1.0
    )
    expected = graphs.run_for_latent(client, graph_with(model, turbo_lora.name))
    assert relative_rms(graphs.run_for_latent(client, stock), expected) < SAME


def test_a_lora_of_another_model_is_refused(client, server, model):
    from safetensors.torch import save_file

    save_file(
        {"lora_unet_down_blocks_0.lora_down.weight": torch.zeros(4, 4)},
        server.base / "models" / "loras" / "other.safetensors",
    )
    with pytest.raises(PromptError, match="is a LoRA for another network"):
        graphs.run_for_latent(client, graph_with(model, "other.safetensors"))
