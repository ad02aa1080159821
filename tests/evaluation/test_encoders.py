"""The networks that all models of the paper in miniature share, and the bundled miniature with them."""

from __future__ import annotations

import json

import pytest
import torch

from scripts.bundle import TURBO_LORA, bundle
from vc2.evaluation.miniature.encoders import BUNDLED, EMBEDDING, EMBEDDING_DTYPE, GATES, fingerprints
from vc2.files import checkpoint, lora
from vc2.files.merge import merge
from vc2.training.initialise import fingerprint_of


@pytest.fixture
def run(tmp_path):
    """What a run exports that started from `encoders.make`'s file: halves, of a token embedding in a byte a number."""
    model = checkpoint.load(BUNDLED, torch.float16)
    model.text[EMBEDDING] = model.text[EMBEDDING].to(EMBEDDING_DTYPE).half()
    return checkpoint.save(
        tmp_path / "run.safetensors",
        unet=model.unet,
        vae=model.vae,
        text=model.text,
        schedule=model.schedule,
        metadata={"step": "7"},
    )


def test_what_is_bundled_is_smaller_and_the_same_model(run, tmp_path):
    target = tmp_path / "bundled.safetensors"
    bundle(run, target)
    before, after = checkpoint.read_tensors(run), checkpoint.read_tensors(target)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name].to(before[name].dtype)) for name in before)
    assert target.stat().st_size < run.stat().st_size - 3e6
    assert fingerprints(target) == fingerprints(run)
    assert checkpoint.read_metadata(target)["step"] == "7"


def test_another_text_tower_is_not_rounded(run, tmp_path):
    model = checkpoint.load(run)
    model.text[EMBEDDING] += 0.001
    checkpoint.save(run, unet=model.unet, vae=model.vae, text=model.text, schedule=model.schedule)
    with pytest.raises(ValueError, match="another text tower"):
        bundle(run, tmp_path / "bundled.safetensors")
    assert not (tmp_path / "bundled.safetensors").exists()


def test_of_a_model_of_few_steps_its_change_is_bundled(run, tmp_path):
    base, torch_generator = checkpoint.load(run), torch.Generator().manual_seed(0)
    made = dict(base.unet)
    for name in (changed := [name for name, tensor in made.items() if tensor.ndim > 1][:3]):
        rows, columns = len(made[name]), made[name][0].numel()
        factors = (torch.randn(rows, 2, generator=torch_generator), torch.randn(2, columns, generator=torch_generator))
        made[name] = (made[name].float() + 0.1 * (factors[0] @ factors[1]).view_as(made[name])).half()
    new = "time_cond_proj.weight"
    made[new] = torch.zeros(base.config.model_channels, 256).half()
    made[new][3, 5] = 0.5
    checkpoint.save(run, unet=made, vae=base.vae, text=base.text, schedule=base.schedule, metadata={"step": "7"})
    bundle(run, target := tmp_path / "turbo.safetensors")
    tensors = lora.load(target, base.config)
    assert lora.by_layer(tensors).keys() == {name.removesuffix(".weight") for name in (*changed, new)}
    before = {**{name: tensor.float() for name, tensor in base.unet.items()}, new: torch.zeros(made[new].shape)}
    there = merge(before, tensors)
    assert max(float((there[name] - made[name].float()).abs().max()) for name in made) < 2e-2
    assert checkpoint.read_metadata(target)["step"] == "7"
    bias = next(name for name, tensor in made.items() if tensor.ndim == 1)
    checkpoint.save(
        run, unet={**made, bias: made[bias] + 1}, vae=base.vae, text=base.text, schedule=base.schedule, metadata={}
    )
    with pytest.raises(ValueError, match="not distilled from"):
        bundle(run, tmp_path / "other.safetensors")


def test_the_four_step_lora_is_of_the_bundled_miniature():
    config = checkpoint.load(BUNDLED).config
    layers = lora.by_layer(lora.load(TURBO_LORA, config))
    assert "time_cond_proj" in layers
    assert len(layers) > 200
    assert checkpoint.read_metadata(TURBO_LORA)["of"] == fingerprint_of(checkpoint.load(BUNDLED, torch.float16).unet)


def test_the_bundled_miniature_brings_what_the_gates_were_measured_with():
    """Where this fails, `make paper QUICK=1` trains both anew, and its twenty minutes are hours."""
    assert fingerprints(BUNDLED) == json.loads(GATES.read_text(encoding="utf-8"))["encoders"]
