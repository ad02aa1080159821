"""Which prepared latents are whose: another autoencoder, other data or another way to encode it is another cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from tests.training.pictures import BUCKETS, images, photos
from tests.training.sources import broken_folder
from vc2.training.data.prepared import Prepared, cache_folder, folder_of
from vc2.training.data.stream import Stream
from vc2.training.initialise import load_autoencoder
from vc2.training.loop import Trainer
from vc2.training.prepare import prepare
from vc2.training.sources.source import SourceError


def test_what_is_encoded_otherwise_is_another_cache():
    source = {"kind": "folder", "path": "x", "prepared": "moments"}
    networks = {"autoencoder": "a", "text": "b"}
    select = {"select": {"min_side": 64}}
    recipes = [images(source), images(source, buckets=BUCKETS), images(source, flip=0.5), images({**source, **select})]
    places = [cache_folder(recipe, "images", "files", Path(), networks).name for recipe in recipes]
    assert len(set(places)) == 4
    assert places[0] == "folder-images-c7a2ed24e1f38ccc"  # the name that 0.2.0 gave it
    [heavier] = images([{**source, "weight": 3}]).data.images.members
    place = cache_folder(recipes[0], "images", "files", Path(), networks, heavier)
    assert place.name == places[0]  # how often samples are read changes nothing


def test_a_cache_belongs_to_the_data_wherever_it_lies(recipe, tmp_path):
    source = {**photos(tmp_path / "photos", "p", [(64, 64)] * 12), "prepared": "moments"}
    networks = {"autoencoder": "a", "text": "b"}

    def place(path: str) -> Path:
        settings = recipe(data={"clips": None, "images": {**source, "path": path}})
        stream = Stream(settings, "images", tmp_path / "cache")
        return folder_of(settings, "images", stream.section, stream.source, tmp_path / "cache", networks)

    first = place(source["path"])
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    assert place(str(tmp_path / "link")) == first
    settings = recipe(data={"clips": None, "images": source})
    stream = Stream(settings, "images", tmp_path / "cache")
    old = cache_folder(settings, "images", stream.source.identity(), tmp_path / "cache", networks)
    assert old != first
    picture = tmp_path / "photos" / "p03.png"
    content = bytearray(picture.read_bytes())
    content[-20] ^= 1
    picture.write_bytes(content)
    assert place(source["path"]) != first
    content[-20] ^= 1
    picture.write_bytes(content)
    assert place(source["path"]) == first
    settings = recipe(data={"clips": None, "images": source})
    stream = Stream(settings, "images", tmp_path / "cache")
    old = cache_folder(settings, "images", stream.source.identity(), tmp_path / "cache", networks)
    old.mkdir(parents=True)  # what 0.2.0 has begun is gone on with
    assert place(source["path"]) == old


def test_crops_drawn_at_random_belong_to_their_seed(recipe):
    data = {"clips": None, "images": {"kind": "folder", "path": "x", "prepared": "moments"}}
    names = {"autoencoder": "a", "text": "b"}

    def place(crop, **changes):
        return cache_folder(recipe(data={**data, "crop": crop}, **changes), "images", "files", Path(), names)

    assert place("random", seed=1) != place("random", seed=2)
    assert place("center", seed=1) == place("center", seed=2)


def test_other_files_are_another_cache(recipe, tmp_path):
    source = broken_folder(tmp_path, 12, 0)
    settings = recipe(
        data={
            "clips": None,
            "images": {"kind": "folder", "path": str(source), "prepared": "moments and text"},
            "held_out": 0,
        }
    )
    [first] = prepare(settings, tmp_path / "cache")
    assert prepare(settings, tmp_path / "cache") == [first]
    (source / "003.txt").write_text("another caption")
    with pytest.raises(SourceError, match="not finished"):
        Trainer(settings, tmp_path / "run", tmp_path / "cache")
    [second] = prepare(settings, tmp_path / "cache")
    assert second != first
    assert Prepared(second, tmp_path / "cache" / "index").sample(3).caption == "another caption"


def test_a_cache_belongs_to_its_autoencoder(recipe, recipe_file, folder, tmp_path, start):
    """Other weights, another cache: it is not found, so it cannot be mistaken."""
    state = load_file(start)
    name = next(name for name in state if name.startswith("first_stage_model."))
    state[name] = state[name] + 0.01
    save_file(state, tmp_path / "other.safetensors")
    assert load_autoencoder(tmp_path / "other.safetensors")
    tree = yaml.safe_load(recipe_file().read_text())
    with pytest.raises(SourceError, match="not finished"):
        Trainer(recipe(init={**tree["init"], "autoencoder": str(tmp_path / "other.safetensors")}), folder)
