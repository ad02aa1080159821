"""The paper's models, made small enough to come along."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scripts import paper_models
from scripts.graph import PAPER_BASE, PAPER_MODELS
from scripts.graphs import strategy_comparison
from scripts.low_rank import difference
from vc2.evaluation.miniature.arms import BY_NAME, Place
from vc2.files import checkpoint, lora
from vc2.files.merge import merge
from vc2.networks.config import UNetConfig, as_config
from vc2.networks.unet import VideoUNet
from vc2.sampling.schedule import NoiseSchedule

SHAPES = {"a.weight": (64, 96), "a.bias": (64,), "b.weight": (32, 48, 3, 3), "b.bias": (32,), "c.weight": (4, 8)}


def weights(seed: int, scale: float = 1.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def test_a_change_of_low_rank_comes_back_whole():
    before, generator = weights(0), torch.Generator().manual_seed(1)
    after = dict(before)
    for name in ("a.weight", "b.weight"):
        rows, columns = len(before[name]), before[name][0].numel()
        change = torch.randn(rows, 2, generator=generator) @ torch.randn(2, columns, generator=generator)
        after[name] = before[name] + 0.1 * change.reshape(before[name].shape)
    after["a.bias"] = before["a.bias"] + 1
    change = difference(before, after, 2)
    assert {name.removeprefix(lora.PREFIX) for name in change} == {
        *(f"{layer}.{half}" for layer in "ab" for half in (lora.UP, lora.DOWN)),
        "a.diff_b",
    }
    assert paper_models.share_kept(before, after, merge(before, change)) > 0.99999
    assert paper_models.share_kept(before, after, before) == 0


def test_a_higher_rank_keeps_more_and_what_is_smaller_whole_stays_whole():
    before, after = weights(0), {name: t + weights(1, 0.1)[name] for name, t in weights(0).items()}
    kept = [
        paper_models.share_kept(before, after, merge(before, difference(before, after, rank)))
        for rank in (2, 8, 24, 200)
    ]
    assert kept == sorted(kept)
    assert kept[0] < 0.5
    assert kept[-1] > 0.9999
    assert f"{lora.PREFIX}c.diff" in difference(before, after, 8)


def test_eight_bits_are_within_a_sixteenth():
    small = paper_models.eight_bits(weights(0, 0.1))
    for name, tensor in weights(0, 0.1).items():
        off = (small[name].float() - tensor).abs()
        assert (off <= tensor.abs() / 16 + 2**-10).all()
        assert small[name].element_size() == (1 if tensor.ndim > 1 else 2)


@pytest.fixture
def place(tmp_path) -> Place:
    """A seed's models, as a run leaves them: of random weights, each layer of an arm changed a little."""
    made = Place(tmp_path / "runs", tmp_path / "e")
    config = as_config(UNetConfig, made.recipe(BY_NAME["F-base"], 2).networks.unet)
    torch.manual_seed(0)
    base = {name: 0.05 * torch.randn_like(tensor) for name, tensor in VideoUNet(config).state_dict().items()}
    for name in ("F-base", *paper_models.RANKS):
        changed = {key: t if name == "F-base" else t + 0.01 * torch.randn_like(t) for key, t in base.items()}
        path = made.folder(BY_NAME[name], 2) / "model.safetensors"
        checkpoint.save(path, unet=changed, schedule=NoiseSchedule(0.7), dtype=torch.float16)
    return made


def test_the_files_are_what_the_graph_loads_and_no_more_than_may_come_along(place, tmp_path, monkeypatch):
    monkeypatch.setattr(paper_models, "RANKS", dict.fromkeys(paper_models.RANKS, 2))
    monkeypatch.setattr(paper_models, "distance", lambda *args: 0.0)
    folder = tmp_path / "weights"
    monkeypatch.setattr(paper_models, "BUNDLE", 10_000)
    with pytest.raises(SystemExit, match="lower RANKS"):
        paper_models.write(place, 2, folder)
    assert not folder.exists()
    monkeypatch.setattr(paper_models, "BUNDLE", 100_000_000)
    paper_models.write(place, 2, folder)
    base = checkpoint.load(folder / "diffusion_models" / PAPER_BASE, torch.float32)
    real = checkpoint.load(place.folder(BY_NAME["F-base"], 2) / "model.safetensors", torch.float32)
    assert (folder / "diffusion_models" / PAPER_BASE).stat().st_size < 3.3e6
    assert base.config == real.config
    for name, file in PAPER_MODELS.items():
        assert lora.load(folder / "loras" / file, real.config), name  # every shape fits the model
    named = {
        value
        for node in strategy_comparison().nodes.values()
        for widget, value in node.inputs.items()
        if widget in ("unet_name", "lora_name")
    }
    assert named == {path.name for path in Path(folder).rglob("*.safetensors")}


def test_predictions_of_one_model_are_its_own(place):
    config = checkpoint.load(place.folder(BY_NAME["F-base"], 2) / "model.safetensors").config
    torch.manual_seed(0)
    state = VideoUNet(config).state_dict()
    state["out.2.weight"] = 0.1 * torch.randn_like(state["out.2.weight"])
    assert paper_models.distance(config, state, state) == 0
    double = {name: t * (2 if name.startswith("out.2") else 1) for name, t in state.items()}
    assert paper_models.distance(config, state, double) == pytest.approx(1, abs=1e-4)


def test_no_more_comes_along_than_may():
    assert sum(path.stat().st_size for path in paper_models.bundled()) <= paper_models.BUNDLE
