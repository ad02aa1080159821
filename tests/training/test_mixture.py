"""Several sources a medium: what is read at a position follows from (recipe, step), by weight."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.pictures import captions, images, photos, read
from vc2.training.data.mixture import MixedStream, Mixing
from vc2.training.errors import RecipeError
from vc2.training.loop import Trainer
from vc2.training.prepare import prepare
from vc2.training.recipe import Recipe
from vc2.training.recipe_files import Loader, _override, load_recipe
from vc2.training.recipe_sections import Data


@given(
    weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=5),
    seed=st.integers(0, 3),
    places=st.integers(0, 20_000),
)
@settings(max_examples=30)
def test_each_source_is_read_in_its_own_order_without_a_gap(weights, seed, places):
    """Wherever one begins to read: what is at a position follows from it alone."""
    mixing, later = Mixing(weights, seed, (0,)), Mixing(weights, seed, (0,))
    expected = dict(Counter(source for source, _ in (mixing[n] for n in range(places))))
    for position in range(places, places + 300):
        source, own = later[position]
        assert own == expected.get(source, 0)
        expected[source] = own + 1
    assert later[0] == Mixing(weights, seed, (0,))[0]  # and back


def test_shares_are_the_weights():
    """Within every block, and over all of them."""
    mixing = Mixing([3, 1, 0, 1.5], 0, (0,))
    for places in (6400, 64 * 17):
        counts = Counter(mixing[n][0] for n in range(places))
        assert [counts[n] for n in range(4)] == [pytest.approx(places * share / 5.5, abs=1) for share in (3, 1, 0, 1.5)]
    rare = Counter(source for source, _ in map(Mixing([1, 0.0001], 0, (0,)).__getitem__, range(50_005)))
    assert rare[1] == 5
    runs = [mixing[n][0] for n in range(64)]
    assert runs != sorted(runs)
    assert runs != [mixing[64 + n][0] for n in range(64)]
    assert runs != [Mixing([3, 1, 0, 1.5], 1, (0,))[n][0] for n in range(64)]


def test_a_list_of_sources_is_mixed_by_weight(tmp_path):
    mine = photos(tmp_path / "mine", "mine", [(64, 64)] * 6)
    others = photos(tmp_path / "others", "others", [(64, 64)] * 5)
    recipe = images([{**mine, "weight": 3}, others], steps=100)
    whole = read(recipe, tmp_path / "cache")
    seen = captions(whole)
    assert sum(caption.startswith("mine") for caption in seen) == pytest.approx(300, abs=8)
    for name, count in (("mine", 6), ("others", 5)):  # each source's epochs are whole
        own = [caption for caption in seen if caption.startswith(name)]
        for start in range(0, len(own) - count, count):
            assert len(set(own[start : start + count])) == count
    assert [b.captions for b in read(recipe, tmp_path / "cache", start=60)] == [b.captions for b in whole[60:]]
    shared = zip(*(read(recipe, tmp_path / "cache", rank=rank, world=2) for rank in range(2)), strict=True)
    assert [a.captions + b.captions for a, b in shared] == [b.captions for b in whole]


def test_the_first_source_of_a_list_is_read_as_it_is_alone(tmp_path):
    """In its order: the others change when, and not what."""
    mine = photos(tmp_path / "mine", "mine", [(64, 64)] * 12)
    alone = captions(read(images(mine, steps=6), tmp_path / "cache"))
    mixed = captions(
        read(images([mine, photos(tmp_path / "other", "o", [(64, 64)] * 12)], steps=12), tmp_path / "cache")
    )
    own = [caption for caption in mixed if caption.startswith("mine")]
    assert own == alone[: len(own)]
    assert len(own) > 20
    others = [caption for caption in mixed if caption.startswith("other")]
    assert [caption.split()[1] for caption in others[:12]] != [caption.split()[1] for caption in own[:12]]


def test_a_list_of_sources_trains_goes_on_and_is_validated(recipe, tmp_path):
    mine, others = (photos(tmp_path / name, name, [(64, 64)] * 12) for name in ("mine", "others"))
    sources = [{**mine, "prepared": "moments and text"}, {**others, "weight": 0.5, "prepared": "moments and text"}]
    settings = recipe(steps=3, data={"clips": None, "images": sources, "held_out": 1}, validation={"every": 3})
    assert len(prepare(settings, tmp_path / "cache")) == 2
    trainer = Trainer(settings, tmp_path / "run", tmp_path / "cache")
    assert isinstance(trainer.objective.streams["images"], MixedStream)
    assert len(trainer.objective.held_out["images"]) == 2
    assert trainer.run()
    Trainer(settings, tmp_path / "run", tmp_path / "cache")
    heavier = recipe(steps=3, data={"clips": None, "images": [sources[0], {**sources[1], "weight": 2}], "held_out": 1})
    with pytest.raises(RecipeError, match="another data"):
        Trainer(heavier, tmp_path / "run", tmp_path / "cache")


def test_the_sources_of_a_list_must_fit(tmp_path):
    (tmp_path / "a.yaml").write_text("name: a\nsteps: 1\nbatch: 1\ndata: {images: [{kind: folder, path: x}]}\n")
    assert load_recipe(tmp_path / "a.yaml").data.images.members[0].path == Path("x")
    again = load_recipe(tmp_path / "a.yaml")
    assert Recipe.model_validate_json(again.model_dump_json()) == again  # as a checkpoint holds it
    assert load_recipe(tmp_path / "a.yaml", ["data.images.0.path=y"]).data.images.members[0].path == Path("y")
    with pytest.raises(RecipeError, match="1 is no number from 0 to 0"):
        load_recipe(tmp_path / "a.yaml", ["data.images.1.path=y"])
    for images, message in (  # noqa: F402 (the strings of this test alone)
        ("[{kind: folder, path: x}, {kind: folder, path: y, prepared: moments}]", "must be prepared alike"),
        ("[{kind: webvid, csv: x, videos: y}]", "webvid lists clips"),
        ("[{kind: folder, pat: x}]", r"unknown key data\.images\.0\.pat; did you mean data\.images\.0\.path\?"),
        ("[]", "data.images"),
        ("[{kind: folder, path: x, weight: 0}]", "weight: .*greater than 0"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_recipe(tmp_path / "a.yaml", [f"data.images={images}"])


def test_the_examples_that_people_copy_are_right():
    readme = (Path(__file__).parents[2] / "training" / "README.md").read_text()
    examples = [yaml.load(text, Loader) for text in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)]
    assert len(examples) >= 4
    for example in examples:
        assert example.keys() == {"data"}
        Data.model_validate(example["data"])
    [overrides] = re.findall(r"`(data\.images\.1[^`\s]*=[^`\s]*)`", readme)
    tree = examples[2]
    _override(tree, overrides)
    assert Data.model_validate(tree["data"]).images.members[1].weight == 0.5
