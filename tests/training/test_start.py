"""Before the first step: what a run starts from is there and fits, and is what the run began with."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests import standin
from tests.training.runs import photos
from vc2.files.checkpoint import UNET
from vc2.pipeline import Settings
from vc2.sampling.schedule import NoiseSchedule
from vc2.training import checkpoint as runs
from vc2.training import parallel
from vc2.training.data import order
from vc2.training.errors import RecipeError
from vc2.training.history import History
from vc2.training.loop import Trainer
from vc2.training.recipe_sections import Sampling
from vc2.training.sources.source import SourceError


def test_another_recipe_does_not_go_on_in_the_same_folder(recipe, folder):
    Trainer(recipe(), folder).save()
    Trainer(recipe(steps=99, data={"workers": 1}), folder)  # longer, and read by others, is fine
    with pytest.raises(RecipeError, match="another seed, optimizer"):
        Trainer(recipe(seed=5, optimizer={"lr": 1.0}), folder)


def test_other_weights_beside_what_learns_are_noticed(recipe, folder, start, tmp_path):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(Path(start).read_bytes())
    settings = {"init": {"unet": str(copy)}, "learn": {"part": "spatial", "how": "lora", "rank": 2}}
    Trainer(recipe(**settings), folder).save()
    state = load_file(copy)
    save_file({**state, f"{UNET}out.2.bias": state[f"{UNET}out.2.bias"] + 1}, copy)
    with pytest.raises(RecipeError, match=r"the weights that .* started from \(init\.unet\) are not those there now"):
        Trainer(recipe(**settings), folder)


def test_other_data_is_noticed(recipe, folder, tmp_path, caplog):
    settings = recipe(data={"clips": None, "images": photos(tmp_path / "photos", good=12, bad=0)})
    Trainer(settings, folder).save()
    Trainer(settings, folder)
    (tmp_path / "photos" / "000.txt").write_text("another caption")
    with pytest.raises(RecipeError, match=r"the files of data\.images are not those that .* began with; put them back"):
        Trainer(settings, folder)


def test_pictures_that_were_added_are_used_where_that_is_allowed_and_it_is_noted(recipe, folder, tmp_path, caplog):
    source = photos(tmp_path / "photos", good=6, bad=0)
    settings = recipe(steps=1, data={"clips": None, "images": source, "held_out": 0})
    Trainer(settings, folder).save()
    before = runs.latest(folder / "checkpoints")["data"]["images"]
    photos(tmp_path / "photos", good=12, bad=0)
    for allow in ((), ("data.clips", "data.images.path")):
        with pytest.raises(RecipeError, match=r"from here on, .* held-out samples: --allow data\.images$"):
            Trainer(settings, folder, allow=allow)
    trainer = Trainer(settings, folder, allow=["data.images"])
    assert "the files of data.images are not those that the run began with" in caplog.text
    assert len(trainer.objective.streams["images"].source) == 12
    assert trainer.run()
    after = runs.latest(folder / "checkpoints")["data"]["images"]
    [line] = [line for line in History(folder).lines if "changed" in line]
    assert line == {"step": 0, "changed": {"files of data.images": [before, after]}}
    assert before != after
    Trainer(settings, folder)  # they are the run's files now


def test_data_that_moved_is_the_same_data(recipe, folder, tmp_path):
    """Copied too, which changes its times."""
    source = photos(tmp_path / "photos", good=12, bad=0)
    Trainer(recipe(data={"clips": None, "images": source}), folder).save()
    shutil.copytree(source["path"], tmp_path / "elsewhere", copy_function=shutil.copyfile)
    shutil.rmtree(source["path"])
    moved = recipe(data={"clips": None, "images": {**source, "path": str(tmp_path / "elsewhere")}})
    Trainer(moved, folder)
    (tmp_path / "elsewhere" / "000.txt").rename(tmp_path / "elsewhere" / "spare.txt")
    with pytest.raises(RecipeError, match=r"the files of data\.images"):
        Trainer(moved, folder)


def test_data_of_a_run_of_0_2_0_is_known_by_its_place(recipe, folder, tmp_path, caplog):
    """It recorded where files lie and their times, by which they cannot be known elsewhere."""
    source = photos(tmp_path / "photos", good=12, bad=0)
    settings = recipe(data={"clips": None, "images": source})
    trainer = Trainer(settings, folder)
    trainer.objective.identities = {"images": trainer.objective.files("images")}
    trainer.save()
    Trainer(settings, folder)
    assert "not those that the run began with" not in caplog.text
    (tmp_path / "photos" / "000.txt").write_text("another caption")
    Trainer(settings, folder)
    assert "the files of data.images are not those that the run began with" in caplog.text
    (tmp_path / "elsewhere").symlink_to(tmp_path / "photos")
    with pytest.raises(RecipeError, match="another data"):
        Trainer(recipe(data={"clips": None, "images": {**source, "path": str(tmp_path / "elsewhere")}}), folder)


def test_a_run_keeps_the_order_that_it_began_with(recipe, folder, monkeypatch):
    """Recipes do not say which; 0.2.0's orders of large sources were others."""
    monkeypatch.setattr(order, "LARGE", 10)
    trainer = Trainer(recipe(), folder)
    assert isinstance(trainer.objective.streams["images"].order, order.ComputedOrder)
    trainer.save()
    again = Trainer(recipe(), folder)
    assert isinstance(again.objective.streams["images"].order, order.ComputedOrder)
    with pytest.raises(RecipeError, match="another data"):
        Trainer(recipe(data={"order": 1}), folder)
    old = Trainer(recipe(data={"order": 1}), folder.parent / "old")
    old.recipe = recipe()  # as 0.2.0 wrote it: without the key
    old.save()
    assert "ComputedOrder" not in {type(s.order).__name__ for s in old.objective.streams.values()}
    gone_on = Trainer(recipe(), folder.parent / "old")
    assert not isinstance(gone_on.objective.streams["images"].order, order.ComputedOrder)
    assert gone_on.recipe.data.order is None


def test_settings_that_cannot_be_sampled_are_told_before_anything_runs(recipe, folder):
    with pytest.raises(RecipeError, match=r"sampling\.steps: .*found 'ten'"):
        recipe(sampling={"steps": "ten"})
    with pytest.raises(RecipeError, match=r"unknown key sampling\.stepz; did you mean sampling\.steps\?"):
        recipe(sampling={"stepz": 3})
    # What a model was distilled on is the objective's to say.
    assert {*Sampling.model_fields, "original_steps"} == {field.name for field in dataclasses.fields(Settings)}


def test_8_bit_adam_needs_its_library(recipe, folder, monkeypatch):
    monkeypatch.setattr(parallel.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="needs bitsandbytes"):
        Trainer(recipe(optimizer={"kind": "adamw8bit"}), folder)


def test_a_tracker_that_is_not_there_is_not_left_out_silently(recipe, folder):
    with pytest.raises(
        RecipeError, match=r"trackers: nonsense cannot be used here; .*those that are there: .*tensorboard"
    ):
        Trainer(recipe(trackers=["tensorboard", "nonsense"]), folder)


def test_a_start_that_does_not_fit_is_refused(recipe, folder, tmp_path):
    plain = standin.write(tmp_path / "plain.safetensors", schedule=NoiseSchedule(None))
    with pytest.raises(
        RecipeError,
        match=r"a dynamic rescale that ends at 1, and diffusion\.scale_end is 0\.7; set diffusion\.scale_end=null",
    ):
        Trainer(recipe(init={"unet": str(plain)}), folder)
    Trainer(recipe(init={"unet": str(plain)}, diffusion={"scale_end": None}), folder)
    turbo = standin.write(
        tmp_path / "turbo.safetensors",
        config=dataclasses.replace(standin.unet_config("vc2_tiny"), time_cond_proj_dim=256),
    )
    with pytest.raises(RecipeError, match="is a T2V-Turbo model"):
        Trainer(recipe(init={"unet": str(turbo)}), folder.parent / "other")


def test_a_source_that_is_not_prepared_says_what_to_run(recipe, tmp_path):
    with pytest.raises(SourceError, match=r"not finished; run `python -m vc2\.training prepare`"):
        Trainer(recipe(), tmp_path / "elsewhere" / "small")
