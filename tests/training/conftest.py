"""A recipe small enough for every test: a narrow UNet on forty procedural clips and pictures, whose latents are
prepared once.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests import standin
from vc2.training.prepare import prepare
from vc2.training.recipe import Recipe
from vc2.training.recipe_files import load_recipe

RECIPE = {
    "name": "small",
    "steps": 6,
    "batch": 2,
    "save_every": 2,
    "networks": {
        "unet": {
            "model_channels": 32,
            "channel_mult": [1, 1],
            "num_res_blocks": 1,
            "attention_resolutions": [2],
            "num_head_channels": 16,
            "context_dim": 64,
        }
    },
    "data": {
        "clips": {"kind": "procedural", "count": 40, "prepared": "moments and text"},
        "images": {"kind": "procedural", "count": 40, "prepared": "moments and text"},
        "lengths": [[4, 1, 2], [2, 1, 1]],
        "width": 64,
        "height": 64,
        "workers": 0,
        "held_out": 4,
    },
    "optimizer": {"lr": 1e-3, "warmup": 2, "ema": 0.9},
    "validation": {"every": 0, "quantiles": [0.1, 0.9]},
    "trackers": [],
}


@pytest.fixture(scope="session")
def start(tmp_path_factory) -> str:
    """A whole checkpoint to start from."""
    return str(standin.write(tmp_path_factory.mktemp("start") / "start.safetensors"))


def around(start: str) -> dict[str, str]:
    """`init` of a fresh UNet between the autoencoder and the text tower of a checkpoint."""
    return {"autoencoder": start, "text": start}


@pytest.fixture
def recipe_file(tmp_path, start):
    """Writes RECIPE with changes, sections merged, and returns its path. Where only a part learns it starts from a
    whole checkpoint: a fresh UNet's output is zero, so that nothing behind it would have a gradient.
    """

    def write(**changes) -> Path:
        tree = {**RECIPE, "init": {"unet": start} if "learn" in changes else around(start)}
        for key, value in changes.items():
            tree[key] = {**tree[key], **value} if isinstance(value, dict) and isinstance(tree.get(key), dict) else value
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    return write


@pytest.fixture
def recipe(recipe_file):
    """The same, loaded."""
    return lambda **changes: load_recipe(recipe_file(**changes))


@pytest.fixture(scope="session")
def cache(tmp_path_factory, start) -> Path:
    """The prepared latents."""
    folder = tmp_path_factory.mktemp("prepared") / "cache"
    prepare(Recipe.model_validate({**RECIPE, "init": around(start)}), folder)
    return folder


@pytest.fixture
def folder(tmp_path, cache) -> Path:
    """Where a run may go; its cache is there."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "cache").symlink_to(cache)
    return tmp_path / "runs" / "small"
