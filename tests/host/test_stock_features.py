"""Stock nodes that change how the model is sampled or what it weighs: they work as they do for any image model."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from tests import standin
from tests.fixtures import relative_rms
from tests.host.graphs import SAME, base, ksampler, node, run_for_latent, vc2_sampler
from vc2.files import checkpoint

TINY = "vc2-tiny.safetensors"


@pytest.fixture(scope="module")
def narrow(server):
    return standin.write(server.base / "models" / "checkpoints" / "stock.safetensors").name


def choices(client, kind: str, name: str) -> list[str]:
    return client.object_info()[kind]["input"]["required"][name][0]


@pytest.mark.slow
def test_every_stock_sampler_runs(client):
    """They see the rescale through model_sampling: clips have the contrast that the trained miniature's have."""
    spread = {}
    for name in choices(client, "KSampler", "sampler_name"):
        # Eight steps of the normal schedule are too few for third-order SDE solvers, whatever the model; exponential
        # ones are not.
        graph = base(TINY, frames=2, size=64, fps=16) | {
            "sampler": ksampler(sampler_name=name, scheduler="exponential", steps=8, cfg=3.0)
        }
        latent = run_for_latent(client, graph)
        assert torch.isfinite(latent).all(), name
        spread[name] = float(latent.std())
    assert {name: value for name, value in spread.items() if not 0.4 < value < 1.6} == {}


def test_every_stock_scheduler_runs(client, narrow):
    for name in choices(client, "KSampler", "scheduler"):
        graph = base(narrow) | {"sampler": ksampler(scheduler=name, steps=3)}
        assert torch.isfinite(run_for_latent(client, graph)).all(), name


LINEAR = "input_blocks.1.1.transformer_blocks.0.attn1.to_q"
CONVOLUTION = "input_blocks.1.0.temopral_conv.conv2.3"  # temporal, three-dimensional


def lora_files(
    state: dict[str, torch.Tensor], rank: int = 4
) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """One change of a Linear and of a temporal convolution: in each layout that stock loaders take, and merged."""
    generator = torch.Generator().manual_seed(0)
    files: dict[str, dict[str, torch.Tensor]] = {"kohya": {}, "lora_AB": {}, "diff": {}}
    merged = dict(state)
    for name in (LINEAR, CONVOLUTION):
        weight = state[f"{name}.weight"].float()
        down = 0.3 * torch.randn(rank, *weight.shape[1:], generator=generator)
        up = 0.3 * torch.randn(weight.shape[0], rank, *(1,) * (weight.ndim - 2), generator=generator)
        change = (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
        kohya = "lora_unet_" + name.replace(".", "_")
        files["kohya"] |= {
            f"{kohya}.lora_down.weight": down,
            f"{kohya}.lora_up.weight": 2 * up,
            f"{kohya}.alpha": torch.tensor(rank / 2),
        }
        files["lora_AB"] |= {f"diffusion_model.{name}.lora_A.weight": down, f"diffusion_model.{name}.lora_B.weight": up}
        files["diff"] |= {f"diffusion_model.{name}.diff": change}
        merged[f"{name}.weight"] = weight + change
    return files, merged


def test_loras_in_every_stock_layout_equal_merged_weights(client, server, narrow):
    """LoraLoaderModelOnly takes spatial and temporal weights alike, and nothing is reported as not loaded."""
    whole = checkpoint.load(server.base / "models" / "checkpoints" / narrow)
    files, merged = lora_files(whole.unet)
    checkpoint.save(
        server.base / "models" / "diffusion_models" / "merged.safetensors", unet=merged, schedule=whole.schedule
    )
    graph = base(narrow) | {"sampler": ksampler(steps=3)}
    plain = run_for_latent(client, graph)
    graph["other"] = node("VC2LoadDiffusionModel", unet_name="merged.safetensors", weight_dtype="fp32")
    expected = run_for_latent(client, graph | {"sampler": ksampler(steps=3, model=["other", 0])})
    assert relative_rms(plain, expected) > 0.01
    for layout, tensors in files.items():
        folder = server.base / "models" / "loras"
        folder.mkdir(exist_ok=True)
        save_file(tensors, folder / f"{layout}.safetensors")
        graph["lora"] = node(
            "LoraLoaderModelOnly", model=["load", 0], lora_name=f"{layout}.safetensors", strength_model=1.0
        )
        found = run_for_latent(client, graph | {"sampler": ksampler(steps=3, model=["lora", 0])})
        # The patched weights are rounded to the file's half precision.
        assert relative_rms(found, expected) < 2e-3, layout
    assert "lora key not loaded" not in server.log
    # The MODEL that the LoRA was put on is as it was.
    assert relative_rms(run_for_latent(client, graph | {"sampler": ksampler(steps=3)}), plain) < SAME


DOWNSCALE = {
    "block_number": 1,
    "downscale_factor": 2.0,
    "start_percent": 0.0,
    "end_percent": 0.5,
    "downscale_after_skip": True,
    "downscale_method": "bicubic",
    "upscale_method": "bicubic",
}


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("FreeU_V2", {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}),
        ("PerturbedAttentionGuidance", {"scale": 3.0}),
        ("SelfAttentionGuidance", {"scale": 0.5, "blur_sigma": 2.0}),
        ("UNetCrossAttentionMultiply", {"q": 1.2, "k": 1.1, "v": 0.9, "out": 1.1}),
        ("UNetSelfAttentionMultiply", {"q": 1.2, "k": 1.1, "v": 0.9, "out": 1.1}),
        ("PatchModelAddDownscale", DOWNSCALE),
    ],
)
def test_block_patches_take_effect(client, narrow, kind, inputs):
    graph = base(narrow, size=64) | {"sampler": ksampler(steps=2)}
    plain = run_for_latent(client, graph)
    graph["patch"] = node(kind, model=["load", 0], **inputs)
    patched = run_for_latent(client, graph | {"sampler": ksampler(steps=2, model=["patch", 0])})
    assert torch.isfinite(patched).all()
    assert relative_rms(patched, plain) > 1e-3


@pytest.mark.parametrize("kind", ["EasyCache", "LazyCache"])
def test_caches_with_threshold_zero_change_nothing(client, narrow, kind):
    if kind == "EasyCache" and client.comfyui_version < (0, 3, 75):
        pytest.skip("EasyCache of this ComfyUI mixes up conditions of several frames, with every model")
    graph = base(narrow) | {"sampler": ksampler(steps=6)}
    plain = run_for_latent(client, graph)
    for threshold, same in ((0.0, True), (3.0, False)):
        graph["cache"] = node(
            kind, model=["load", 0], reuse_threshold=threshold, start_percent=0.0, end_percent=1.0, verbose=False
        )
        found = run_for_latent(client, graph | {"sampler": ksampler(steps=6, model=["cache", 0])})
        assert (relative_rms(found, plain) < SAME) == same


def test_temporal_guidance_beside_a_cache(client, narrow):
    """EasyCache keeps passes by the condition's id; the guidance's own pass must not be taken for the prompt's.

    This threshold skips no step.
    """
    graph = base(narrow) | {"guided": node("VC2TemporalGuidance", model=["load", 0], scale=1.5)}
    graph["cache"] = node(
        "EasyCache", model=["guided", 0], reuse_threshold=1e-6, start_percent=0.0, end_percent=1.0, verbose=False
    )
    for cfg in (1.0, 4.0):
        expected = run_for_latent(client, graph | {"sampler": ksampler(steps=6, cfg=cfg, model=["guided", 0])})
        found = run_for_latent(client, graph | {"sampler": ksampler(steps=6, cfg=cfg, model=["cache", 0])})
        assert relative_rms(found, expected) < SAME


@pytest.mark.parametrize("sampler", [ksampler, vc2_sampler])
@pytest.mark.parametrize("empty", [False, True])
def test_inpainting_keeps_what_is_masked_out(client, narrow, sampler, empty):
    """SetLatentNoiseMask: the unmasked part of every frame is the source's, be it a clip or an empty latent."""
    graph = base(narrow, size=64) | {"source": ksampler(steps=2)}
    origin = "latent" if empty else "source"
    source = run_for_latent(client, graph, origin)
    graph["left"] = node("SolidMask", value=1.0, width=32, height=64)
    graph["none"] = node("SolidMask", value=0.0, width=64, height=64)
    graph["mask"] = node("MaskComposite", destination=["none", 0], source=["left", 0], x=0, y=0, operation="add")
    graph["masked"] = node("SetLatentNoiseMask", samples=[origin, 0], mask=["mask", 0])
    link = {"latent_image" if sampler is ksampler else "latent": ["masked", 0]}
    found = run_for_latent(client, graph | {"sampler": sampler(steps=4, seed=9, **link)})
    assert torch.allclose(found[..., 4:], source[..., 4:], atol=1e-4)
    assert float((found[..., :4] - source[..., :4]).std()) > 0.1


@pytest.mark.parametrize(
    ("choice", "dtype", "least", "most"),
    [
        ("fp32", "float32", 0, SAME),
        ("fp16", "float16", 0, SAME),
        ("bf16", "bfloat16", 2e-3, 0.03),
        ("fp8_e4m3fn", "float8_e4m3fn", 0.03, 0.3),
        ("fp8_e5m2", "float8_e5m2", 0.08, 0.6),
    ],
)
def test_weight_dtypes(client, server, narrow, choice, dtype, least, most):
    """Weights are kept in every precision; those coarser than the file's change the clip, by as much as they are."""
    graph = base(narrow) | {"sampler": ksampler(steps=3, cfg=2.0)}
    plain, before = run_for_latent(client, graph), len(server.log)
    graph["load"]["inputs"]["weight_dtype"] = choice
    assert least <= relative_rms(run_for_latent(client, graph), plain) < most
    assert f"model weight dtype torch.{dtype}," in server.log[before:]
