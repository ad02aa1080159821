"""The paper in miniature from beginning to end: every twin trains on what its row of Table 3 starts from; two steps
each, to show that they fit together.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.recipes import TABLE, TINY
from vc2.files.checkpoint import UNET
from vc2.networks.config import UNetConfig, as_config
from vc2.networks.unet import VideoUNet
from vc2.training.loop import Trainer
from vc2.training.partition import temporal_names
from vc2.training.prepare import prepare
from vc2.training.recipe_files import load_recipe

pytestmark = pytest.mark.slow

ROWS = sorted(TABLE, key=lambda row: not row.endswith("base"))  # bases first: the others start from them


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder in which all of them have run."""
    folder = tmp_path_factory.mktemp("twins")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # recipes name one another's files from here
        for name in ("text", "autoencoder", "SD", *ROWS):
            changes = ["steps=2", "validation.every=0", "trackers=[]", "optimizer.warmup=0"]
            recipe = load_recipe(TINY / f"{name}.yaml", changes)
            few = [
                f"data.{medium}.count=12"
                for medium in ("clips", "images")
                if getattr(recipe.data, medium) and recipe.objective == "diffusion"
            ]
            recipe = load_recipe(TINY / f"{name}.yaml", [*changes, *few, "batch=2"])
            if few:
                prepare(recipe, Path("runs/cache"))
            assert Trainer(recipe, Path("runs") / recipe.name).run()
    yield folder / "runs"
    shutil.rmtree(folder)


@pytest.mark.parametrize("row", ROWS)
def test_a_twin_trains_what_its_row_says_from_where_it_says(runs, row):
    start, part, how, _ = TABLE[row]
    before = load_file(runs / f"tiny-{'SD' if start == 'SD 2.1' else start}" / "model.safetensors")
    after = load_file(runs / f"tiny-{row}" / "model.safetensors")
    recipe = load_recipe(TINY / f"{row}.yaml")
    names = {
        UNET + name for name in temporal_names(VideoUNet(as_config(UNetConfig, recipe.networks.unet), device="meta"))
    }
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    if part == "spatial":
        assert not changed & names
    if part == "temporal":
        assert changed <= names
    if part == "all":
        assert changed & names
        assert changed - names
    assert (runs / f"tiny-{row}" / "lora.safetensors").is_file() == (how == "lora")
