"""Recipes: the eleven rows are the paper's, and twins match them."""

from __future__ import annotations

import pytest
import yaml

from tests.training.recipes import RECIPES, TABLE, TINY, named


@pytest.mark.parametrize("row", TABLE)
def test_every_row_of_table_3_has_its_recipe(row):
    start, part, how, data = TABLE[row]
    recipe = named(RECIPES)[row]
    assert (recipe.name, recipe.learn.part, recipe.learn.how) == (row, part, how)
    assert recipe.optimizer.lr == 5e-5
    assert recipe.optimizer.final_lr is None
    if row.endswith("base"):
        assert recipe.init.sd
        assert (recipe.batch, recipe.steps) == (128, 270_000)
        assert (recipe.data.width, recipe.data.height) == (512, 320)
        assert (recipe.data.clips.kind, recipe.data.images.kind) == ("webvid", "shards")
        assert recipe.diffusion.image_fps == (100, 100)
        assert recipe.image_share(16) == 1 / 16
    else:
        assert str(recipe.init.unet) == f"runs/{start}/model.safetensors"
        assert (recipe.batch, recipe.steps) == (256, 30_000)
        assert (recipe.data.width, recipe.data.height) == (512, 512)
        assert recipe.data.clips is None
        assert recipe.data.images.kind == {"JDB": "journeydb", "LAION-Aes": "shards"}[data]
        assert recipe.diffusion.image_fps == (4, 30)
    assert recipe.learn.rank == 16
    assert recipe.data.caption_dropout == 0.1
    assert recipe.diffusion.scale_end == 0.7
    assert (recipe.diffusion.noisy_share, recipe.diffusion.max_weight) == (0, 1)


@pytest.mark.parametrize("row", TABLE)
def test_every_row_has_a_twin_that_differs_in_size_alone(row):
    paper, twin = named(RECIPES)[row], named(TINY)[row]
    assert twin.name == f"tiny-{row}"
    assert twin.learn == paper.learn
    assert twin.image_only == paper.image_only
    assert str(twin.init.unet) == (
        f"runs/tiny-{paper.init.unet.parts[1]}/model.safetensors"
        if paper.init.unet
        else "runs/tiny-SD/model.safetensors"
    )


def test_a_row_shows_only_what_makes_it_different():
    for row in TABLE:
        tree = yaml.safe_load((RECIPES / f"{row}.yaml").read_text())
        assert set(tree) <= {"base", "name", "about", "init", "learn", "data"}
