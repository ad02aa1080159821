"""Every option of a recipe does something."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from vc2.training.build import build_objective
from vc2.training.check import check
from vc2.training.data.batches import load_batches
from vc2.training.data.mixture import stream_of
from vc2.training.loop import Trainer
from vc2.training.recipe import Recipe
from vc2.training.recipe_files import load_recipe
from vc2.training.recipe_sections import Sampling
from vc2.training.section import Section
from vc2.training.sources.kinds import KINDS
from vc2.training.sources.source import SourceError


def two_manifests(folder: Path) -> Recipe:
    """A recipe with every option of lists, their filters among them."""
    rows = [
        {"file": f"{n}.png", "text": f"photo {n}", "score": 5 + n, "mark": 0.1, "width": 64, "height": 48}
        for n in range(4)
    ]
    for row in rows:
        Image.new("RGB", (64, 48)).save(folder / row["file"])
    (folder / "list.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    select = {"min_side": 32, "max_aspect": 2, "max_watermark": 0.5, "min_aesthetic": 5, "watermark": "mark"}
    source = {"kind": "manifest", "path": str(folder / "list.jsonl"), "root": str(folder), "file": "file"}
    source |= {"caption": "text", "select": {**select, "aesthetic": "score"}}
    data = {"images": [source, {**source, "weight": 2}], "width": 64, "height": 64, "buckets": [[96, 64]], "flip": 0.5}
    return Recipe.model_validate({"name": "listed", "steps": 2, "batch": 2, "data": {**data, "workers": 0}})


@pytest.mark.slow
def test_every_option_is_read(recipe, folder, tmp_path, monkeypatch):
    """One that nothing reads is a promise broken. Watched while recipes of every kind are checked, trained and listed;
    reading them does not count.
    """
    sampling = {"width": 64, "height": 64, "frames": 2, "steps": 1}
    samples = {"every": 2, "prompts": ["a red circle"]}
    whole = recipe(
        steps=2,
        log_every=1,
        validation={"every": 2},
        samples=samples,
        sampling=sampling,
        diffusion={"noisy_share": 1.0},
        optimizer={"warmup": 0},
    )
    adapted = recipe(name="adapted", steps=2, learn={"part": "spatial", "how": "lora", "rank": 2})
    distilled = recipe(name="distilled", objective="consistency", steps=2, learn={"part": "all"})
    miniature = [load_recipe(name) for name in ("tiny/autoencoder", "tiny/text", "paper/autoencoder")]
    absent = tmp_path / "absent"
    sources = [
        KINDS["folder"](kind="folder", path=absent),
        KINDS["webvid"](kind="webvid", csv=absent, videos=tmp_path),
        KINDS["journeydb"](kind="journeydb", jsonl=absent, images=tmp_path),
        KINDS["shards"](kind="shards", path="absent"),
    ]
    listed = two_manifests(tmp_path)
    read, plain = set(), object.__getattribute__

    def watch(self, name):
        read.add((type(self), name))
        return plain(self, name)

    monkeypatch.setattr(Section, "__getattribute__", watch)
    monkeypatch.setattr("vc2.training.sources.source.ENOUGH", 1)
    for settings in (whole, adapted, distilled):
        list(check(settings, folder.parent / "cache"))
        Trainer(settings, folder.parent / settings.name).run()
    for settings in miniature:
        build_objective(settings, tmp_path, torch.device("cpu"))
    for source in sources:
        with pytest.raises(SourceError):
            source.open("images", tmp_path)
    batches = load_batches(listed, {"images": stream_of(listed, "images", tmp_path)}, 0, 0, 1, pin=False)
    assert next(batches).captions
    monkeypatch.undo()

    def below(section):
        return [section, *(cls for sub in section.__subclasses__() for cls in below(sub))]

    # What a kind is decides which class it is; sampling is handed on whole, and its names are compared with those of
    # Settings elsewhere.
    options = {
        (cls, name)
        for cls in below(Section)
        if cls is not Sampling
        for name in cls.__annotations__
        if name in cls.model_fields and name != "kind"
    }
    assert len(options) > 60
    unread = [f"{cls.__name__}.{name}" for cls, name in options if not any((sub, name) in read for sub in below(cls))]
    assert not unread
