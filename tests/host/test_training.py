"""What the trainer writes works in ComfyUI.

A LoRA, and a spatial change, through the stock LoRA loader equal the exported whole checkpoint.
"""

from __future__ import annotations

import pytest
import yaml

from tests import standin
from tests.fixtures import relative_rms
from tests.host.graphs import base, ksampler, node, run_for_latent
from vc2.training.export import export
from vc2.training.loop import Trainer
from vc2.training.recipe_files import load_recipe


@pytest.fixture(scope="module")
def start(server):
    return standin.write(server.base / "models" / "checkpoints" / "before_training.safetensors")


@pytest.mark.parametrize(("how", "form", "learn"), [("lora", "lora", "all"), ("direct", "spatial", "spatial")])
def test_trained_exported_and_loaded(client, server, start, tmp_path, how, form, learn):
    recipe = {
        "name": f"small-{how}",
        "steps": 4,
        "batch": 2,
        "init": {"unet": str(start)},
        "trackers": [],
        "validation": {"every": 0},
        "data": {
            "images": {"kind": "procedural", "domain": "journeydb", "count": 20},
            "width": 64,
            "height": 64,
            "workers": 0,
        },
        "learn": {"part": learn, "how": how, "rank": 4},
        "optimizer": {"lr": 0.02, "warmup": 0, "ema": 0.5},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    loaded = load_recipe(tmp_path / "recipe.yaml")
    assert Trainer(loaded, tmp_path / "runs" / loaded.name).run()
    models = server.base / "models"
    name = f"trained-{form}.safetensors"
    export(loaded, tmp_path / "runs" / loaded.name, models / "loras" / name, form, "fp32", raw=False)
    export(loaded, tmp_path / "runs" / loaded.name, models / "checkpoints" / name, "full", "fp32", raw=False)

    graph = base(start.name)
    plain = run_for_latent(client, graph | {"sampler": ksampler(steps=3)})
    expected = run_for_latent(client, base(name) | {"sampler": ksampler(steps=3)})
    assert relative_rms(plain, expected) > 0.01
    log = len(server.log)
    graph["lora"] = node("LoraLoaderModelOnly", model=["load", 0], lora_name=name, strength_model=1.0)
    found = run_for_latent(client, graph | {"sampler": ksampler(steps=3, model=["lora", 0])})
    assert relative_rms(found, expected) < 3e-3  # the patched weights are rounded to the start's half precision
    assert "lora key not loaded" not in server.log[log:]
