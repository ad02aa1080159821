"""The arms of the paper in miniature: their recipes, by which rows are told apart, and their prompts."""

from __future__ import annotations

from dataclasses import replace

from pydantic import create_model

from vc2.evaluation.miniature import arms
from vc2.evaluation.miniature.arms import ARMS, BY_NAME, Arm, Place
from vc2.evaluation.miniature.score import scenes
from vc2.training.recipe import Recipe
from vc2.training.recipe_files import load_recipe
from vc2.training.sources.paper_world import seen


def test_table_3_is_there_and_every_arm_starts_from_an_earlier_one():
    names = [arm.name for arm in ARMS]
    assert len(names) == len(set(names))
    for arm in ARMS:
        assert arm.start is None or names.index(arm.start) < names.index(arm.name)
        assert arm.name == "SD" or arm.start == ("SD" if arm.name.endswith("base") else f"{arm.name[0]}-base")


def test_an_identity_tells_recipes_apart_and_not_seeds_or_folders(tmp_path):
    place, other = (Place(tmp_path / name, tmp_path / f"{name}.safetensors") for name in ("a", "b"))
    assert len({place.identity(arm) for arm in ARMS}) == len(ARMS)
    assert all(place.identity(arm) == other.identity(arm) for arm in ARMS)
    hotter = Arm("F-Spa-DIR", "F-Spa-DIR", "F-base", ("optimizer.lr=1e-3",))
    assert place.identity(hotter) != place.identity(BY_NAME["F-Spa-DIR"])
    assert replace(place, quick=True).identity(BY_NAME["P-Temp-LORA"]) != place.identity(BY_NAME["P-Temp-LORA"])


def test_an_identity_stays_when_the_trainer_gets_an_option(tmp_path, monkeypatch):
    """Or rows would be refused that it has nothing to do with."""
    before = Place(tmp_path / "a", tmp_path / "encoders.safetensors").identity(BY_NAME["F-Spa-DIR"])
    later = create_model("Later", __base__=Recipe, new=(int, 3))
    monkeypatch.setattr(arms, "load_recipe", lambda *what: later.model_validate(load_recipe(*what).model_dump()))
    place = Place(tmp_path / "b", tmp_path / "encoders.safetensors")
    assert place.recipe(BY_NAME["F-Spa-DIR"], 0).new == 3
    assert place.identity(BY_NAME["F-Spa-DIR"]) == before


def test_what_the_recipes_leave_by_default_is_as_it_was_when_seeds_began_to_count(tmp_path):
    """An identity does not tell."""
    recipe = Place(tmp_path, tmp_path / "encoders.safetensors").recipe(BY_NAME["F-Spa-LORA"], 0)
    assert (recipe.optimizer.betas, recipe.optimizer.weight_decay) == ((0.9, 0.999), 0.01)
    assert (recipe.optimizer.final_lr, recipe.learn.alpha, recipe.learn.targets) == (None, None, None)
    d = recipe.diffusion
    assert (d.dropout, d.image_temporal, d.noisy_share, d.max_weight, d.scale_end) == (0.1, "identity", 0.0, 1.0, 0.7)


def test_a_run_up_to_a_snapshot_is_the_beginning_of_the_whole_run(tmp_path):
    place = Place(tmp_path, tmp_path / "e.safetensors")
    for arm in ARMS:
        *snapshots, end = place.stops(arm, 3)
        for step in snapshots:
            assert place.recipe(arm, 3, end).differences(place.recipe(arm, 3, step).model_dump_json()) == {}


def test_some_prompts_are_balanced():
    some = scenes(some=True)
    assert len(scenes()) == 96
    assert sorted({(s.colour, s.shape) for s in some}) == sorted({(s.colour, s.shape) for s in scenes()})
    assert [sum(seen(s.colour, s.shape) == which for s in some) for which in (True, False)] == [16, 16]
    assert [sum(s.direction == d for s in some) for d in range(4)] == [8] * 4
