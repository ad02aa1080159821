"""Our networks, schedule and sampler against the official code's outputs, on weights that follow from their names."""

import pytest
import torch

from tests.fixtures import cases, fill_module, noise, relative_rms, tensor
from vc2.networks.autoencoder import AutoencoderKL
from vc2.networks.text import TextEncoder
from vc2.networks.unet import VideoUNet
from vc2.sampling import ddim
from vc2.sampling.schedule import NoiseSchedule

TOLERANCE = 1e-4


def by_name(kind):
    return pytest.mark.parametrize("case", cases(kind), ids=lambda case: case["name"])


def unet(name: str) -> VideoUNet:
    return fill_module(VideoUNet(next(c["config"] for c in cases("unet") if c["name"] == name)))


@by_name("unet")
@torch.no_grad()
def test_unet(case):
    model = unet(case["name"])
    assert len(model.state_dict()) == case["keys"]
    assert sum(p.numel() for p in model.parameters()) == case["params"]
    b, t, h, w = (case["shape"][k] for k in "bthw")
    x = noise(f"{case['name']}.x", (b, 4, t, h, w))
    context = noise(f"{case['name']}.context", (b, 77, case["config"]["context_dim"]))
    out = model(x, torch.tensor(case["timesteps"]), context, torch.tensor(case["fps"]))
    assert relative_rms(out, tensor(f"unet.{case['name']}.out")) < TOLERANCE


@by_name("ddim")
@torch.no_grad()
def test_ddim(case):
    model, tag = unet(case["unet"]), f"ddim.{case['name']}"
    b, t, h, w = (case["shape"][k] for k in "bthw")
    shape, text = (b, 4, t, h, w), (b, 77, model.config.context_dim)
    cond, uncond = noise(f"{tag}.cond", text), noise(f"{tag}.uncond", text)
    fps = torch.full((b,), case["fps"])
    schedule = NoiseSchedule(case["scale_b"] if case["use_scale"] else None)
    assert ddim.ddim_timesteps(case["steps"]) == case["timesteps"]

    def denoise(x, t):
        eps, eps_uncond = model(x, t, cond, fps), model(x, t, uncond, fps)
        return eps_uncond + case["cfg"] * (eps - eps_uncond)

    out = ddim.sample(
        denoise,
        noise(f"{tag}.x_T", shape),
        schedule,
        case["steps"],
        case["eta"],
        lambda k: noise(f"{tag}.step{k}", shape),
    )
    assert relative_rms(out, tensor(f"{tag}.out")) < TOLERANCE


def test_schedule_and_q_sample():
    schedule = NoiseSchedule()
    assert relative_rms(schedule.alphas_cumprod, tensor("schedule.alphas_cumprod")) < 1e-6
    assert relative_rms(schedule.scale, tensor("schedule.scale")) < 1e-6
    expected, t = tensor("q.x_t"), torch.tensor(cases("q_sample")[0]["t"])
    found = schedule.add_noise(noise("q.x0", expected.shape), noise("q.noise", expected.shape), t)
    assert relative_rms(found, expected) < TOLERANCE


@by_name("vae")
@torch.no_grad()
def test_autoencoder(case):
    vae = fill_module(AutoencoderKL(case["ddconfig"]))
    moments, decoded = tensor(f"vae.{case['name']}.moments"), tensor(f"vae.{case['name']}.decoded")
    x = noise(f"vae.{case['name']}.x", (2, 3, *case["hw"])).clamp(-1, 1)
    z = noise(f"vae.{case['name']}.z", (2, 4, *moments.shape[2:]))
    assert relative_rms(vae.encode(x), moments) < TOLERANCE
    assert relative_rms(vae.decode(z), decoded) < TOLERANCE


@by_name("text")
@torch.no_grad()
def test_text_encoder(case):
    encoder = fill_module(TextEncoder(case["text_cfg"]))
    assert torch.equal(encoder.tokenize(case["prompts"]), tensor(f"text.{case['name']}.tokens"))
    assert relative_rms(encoder(case["prompts"]), tensor(f"text.{case['name']}.out")) < TOLERANCE
