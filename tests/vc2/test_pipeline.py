"""What a checkpoint's pipeline computes: by which settings, in which precision, in one pass or two."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import standin
from vc2.files.checkpoint import CheckpointError
from vc2.networks.autoencoder import SCALE_FACTOR
from vc2.pipeline import Guided, Settings, TextToVideo, decoded, override
from vc2.sampling import turbo


def test_half_precision_on_a_cpu_is_told(checkpoint, caplog):
    with caplog.at_level("INFO"):
        assert TextToVideo(checkpoint).dtype == torch.float32
    assert "computing in fp32" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        TextToVideo(checkpoint, dtype=torch.float32)
    assert "fp32" not in caplog.text


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float64])
def test_precisions_that_nothing_computes_in(tmp_path, dtype):
    """They are for storing."""
    model = TextToVideo(standin.write(tmp_path / "x.safetensors", dtype=dtype))
    assert model.dtype == torch.float32
    assert np.ptp(model(["a cat"], [1], override(Settings(), width=32, height=24, frames=1, steps=1))) > 0


@pytest.mark.parametrize(
    ("sampling", "complaint"),
    [
        ("{", "is not JSON"),
        ("[1]", r"must be a JSON object, found \[1\]"),
        ('{"steps": "50"}', "must hold steps as int, found '50'"),
        ('{"steps": true}', "must hold steps as int, found True"),
        ('{"guidance": null}', "must hold guidance as float, found None"),
        ('{"negative": 3}', "must hold negative as str, found 3"),
        ("null", "must be a JSON object, found None"),
        ("[" * 100_000, "is not JSON"),
        ('{"steps": ' + "9" * 5000 + "}", "is not JSON"),
        ('{"fps": NaN}', "must hold a fps that can be sampled, found nan"),
        ('{"guidance": -1e999}', "must hold a guidance that can be sampled, found -inf"),
        ('{"frames": 1000000000}', "must hold a frames that can be sampled, found 1000000000"),
    ],
)
def test_damaged_recommendations_are_named(checkpoint, tmp_path, sampling, complaint):
    save_file(load_file(checkpoint), tmp_path / "odd.safetensors", metadata={"sampling": sampling})
    with pytest.raises(CheckpointError, match=rf"odd\.safetensors: the metadata 'sampling' {complaint}"):
        TextToVideo(tmp_path / "odd.safetensors")


def test_recommendations_are_taken():
    recommended = {"steps": 25, "fps": 8, "guidance": 4.5, "negative": "blur", "of_another_version": [1]}
    settings = Settings.of({"sampling": json.dumps(recommended)})
    assert settings == Settings(steps=25, fps=8, guidance=4.5, negative="blur")


def test_a_turbo_model_is_sampled_as_one(tmp_path, caplog):
    """In four steps of its own, its guidance as a condition, whatever the negative prompt and eta."""
    config = replace(standin.unet_config("vc2_tiny"), time_cond_proj_dim=256)
    path = standin.write(tmp_path / "turbo.safetensors", config=config)
    with caplog.at_level("INFO"):
        model = TextToVideo(path)
    assert "T2V-Turbo model" in caplog.text
    assert (model.settings.steps, model.settings.guidance, model.settings.fps) == (4, 7.5, 16)
    settings = override(model.settings, width=32, height=24, frames=2)
    found = model(["a cat"], [5], settings)

    context, generator = model.text(["a cat"]), torch.Generator().manual_seed(5)

    def noise(_=0):
        return torch.randn(1, 4, 2, 3, 4, generator=generator)

    def denoise(x, t):
        return model.unet(
            x, t, context, torch.tensor([16.0]), guidance=7.5, motion_guidance=0.05 if t[0] >= 700 else 0.0
        )

    with torch.no_grad():
        expected = model.decode(turbo.sample(denoise, noise(), 4, step_noise=noise))
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
    assert np.array_equal(model(["a cat"], [5], override(settings, negative="a dog", eta=0.0)), found)
    assert not np.array_equal(model(["a cat"], [5], override(settings, guidance=12.0)), found)


def test_a_clip_depends_on_its_prompt_and_seed_alone(checkpoint):
    model = TextToVideo(checkpoint)
    settings = override(Settings(), width=32, height=24, frames=2, steps=2)
    together = model(["a cat", "a dog"], [1, 2], settings)
    alone = model(["a dog"], [2], settings)
    assert np.abs(together[1].astype(int) - alone[0].astype(int)).max() <= 1


def test_texts_are_encoded_once_each_and_in_one_pass(checkpoint):
    model, batches = TextToVideo(checkpoint), []
    encode = model.text.forward
    model.text.forward = lambda texts: (batches.append(list(texts)), encode(texts))[1]
    small = override(Settings(), width=32, height=24, frames=1, steps=1)
    clips = model(["a cat", "a dog", "a cat"], [1, 1, 1], small)
    assert batches == [["a cat", "a dog", ""]]
    assert np.abs(clips[0].astype(int) - clips[2].astype(int)).max() <= 1
    assert np.abs(clips[0].astype(int) - clips[1].astype(int)).max() > 1


@pytest.mark.parametrize(
    ("height", "width", "together"), [(40, 64, [1] * 5), (64, 64, [1] * 5), (32, 32, [4, 1]), (8, 8, [5])]
)
def test_as_many_frames_are_decoded_at_once_as_make_one_of_512x512(height, width, together):
    """Latent pixels; in the autoencoder's own precision."""
    seen = []

    class Small(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones((), dtype=torch.bfloat16))

        def decode(self, z):
            seen.append((len(z), z.dtype))
            return z[:, :3] * self.weight

    z = torch.randn(4, 5, height, width, generator=torch.Generator().manual_seed(0))
    frames = decoded(Small(), z)
    assert seen == [(count, torch.bfloat16) for count in together]
    torch.testing.assert_close(frames, (z / SCALE_FACTOR).transpose(0, 1)[:, :3], atol=0, rtol=2**-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_what_fp16_cannot_hold_is_decoded_in_fp32(checkpoint, caplog, dtype):
    model = TextToVideo(checkpoint)
    # The first layer's numbers are too large for fp16; the norm after it takes the factor out again.
    model.vae.decoder.conv_in.weight.mul_(1e4)
    z = torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(0)) * 10
    expected = model.decode(z)
    model.vae.to(dtype)
    assert np.abs(model.decode(z).astype(int) - expected).max() <= 2  # its weights have been through fp16
    assert expected.std() > 1
    told = ["the autoencoder's numbers left what fp16 can hold; decoding in fp32"]
    assert caplog.messages == (told if dtype == torch.float16 else [])


def test_latents_that_are_not_finite_are_an_error(checkpoint):
    model = TextToVideo(checkpoint)
    model.unet.out[2].bias.fill_(torch.inf)
    with pytest.raises(RuntimeError, match="the UNet's numbers left what fp32 can hold; expected finite latents"):
        model(["a red circle moving right"], [0], replace(model.settings, steps=1, frames=2))


def test_one_pass_or_two(checkpoint):
    """Guidance in one batch, or in two passes once memory has run out, is the same."""
    model = TextToVideo(checkpoint)
    cond, uncond = model.text(["a cat", "a dog"]), model.text(["", ""])
    x, t, fps = torch.randn(2, 4, 2, 4, 4), torch.tensor([500, 20]), torch.tensor([28.0, 8.0])

    class Small(torch.nn.Module):
        def forward(self, x, t, context, fps):
            if len(context) > 2:
                raise torch.cuda.OutOfMemoryError("out of memory")
            return model.unet(x, t, context, fps)

    with torch.no_grad():
        whole = Guided(model.unet, cond, uncond, fps, 12.0)(x, t)
        split = Guided(Small(), cond, uncond, fps, 12.0)
        assert torch.allclose(split(x, t), whole, atol=1e-3)
    assert not split.one_batch
