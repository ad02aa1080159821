"""Images of many shapes, and flips: which bucket and which side a sample has follows from (recipe, step)."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from tests.training.pictures import BUCKETS, captions, images, photos, ramp, read, write_manifest
from vc2.files.video import write_video
from vc2.training.data.buckets import nearest
from vc2.training.data.mixture import stream_of
from vc2.training.data.plan import Plan
from vc2.training.data.prepared import Prepared
from vc2.training.data.stream import Stream
from vc2.training.loop import Trainer
from vc2.training.prepare import prepare
from vc2.training.recipe import Recipe
from vc2.training.rng import numpy_generator
from vc2.training.sources.source import SourceError

# Buckets


SHAPES = [(300, 300)] * 5 + [(600, 300)] * 8 + [(300, 500)] * 3


def test_an_image_belongs_to_the_bucket_of_the_nearest_aspect():
    sizes = np.array([(100, 100), (200, 100), (100, 200), (141, 100), (142, 100), (0, 0)])
    buckets = [(64, 64), (96, 48), (48, 96)]
    assert nearest(sizes, buckets).tolist() == [0, 1, 2, 0, 1, 0]
    for width, height in sizes[:5]:
        best = min(buckets, key=lambda size: abs(math.log(size[0] / size[1]) - math.log(width / height)))
        assert buckets[nearest(np.array([(width, height)]), buckets)[0]] == best


def test_a_step_has_one_bucket_and_every_bucket_its_share(tmp_path):
    source = photos(tmp_path / "photos", "p", SHAPES)
    recipe = images(source, steps=160, batch=2, buckets=BUCKETS)
    whole = read(recipe, tmp_path / "cache")
    by_shape: dict[tuple, list[str]] = {}
    for batch in whole:
        by_shape.setdefault(tuple(batch.frames.shape[-2:]), []).extend(batch.captions)
    assert by_shape.keys() == {(64, 64), (48, 96), (96, 48)}
    for shape, members in (((64, 64), range(5)), ((48, 96), range(5, 13)), ((96, 48), range(13, 16))):
        seen, expected = by_shape[shape], {f"p {n}" for n in members}
        assert len(seen) == pytest.approx(20 * len(members), abs=2)
        for start in range(0, len(seen) - len(expected), len(expected)):
            assert set(seen[start : start + len(expected)]) == expected
    later = read(recipe, tmp_path / "cache", start=101)
    assert all(torch.equal(a.frames, b.frames) for a, b in zip(whole[101:], later, strict=True))
    shared = zip(*(read(recipe, tmp_path / "cache", rank=rank, world=2) for rank in range(2)), strict=True)
    assert [a.captions + b.captions for a, b in shared] == [b.captions for b in whole]


def test_images_of_a_list_without_sizes_are_measured(tmp_path):
    """Where sizes are asked for: by buckets, or a `select`. What a list says of a size is taken from there."""
    photos(tmp_path / "photos", "p", [(300, 300), (600, 300), (300, 500), (300, 300), (600, 300)])
    rows = [{"path": f"p{n:02d}.png", "caption": str(n)} for n in range(5)]
    rows[3] |= {"width": 200, "height": 400}
    (tmp_path / "photos" / "p04.png").write_bytes(b"no picture")
    rows += [{"path": "absent.png", "caption": "5"}, {"path": None, "caption": "6"}]
    source = {"kind": "manifest", "path": str(write_manifest(tmp_path / "photos" / "list.jsonl", rows))}
    stream = Stream(images(source, buckets=BUCKETS), "images", tmp_path / "cache")
    expected = [[300, 300], [600, 300], [300, 500], [200, 400], [0, 0], [0, 0], [0, 0]]
    assert stream.source.sizes().tolist() == expected
    assert [len(members) for members in stream.buckets.members] == [4, 1, 2]
    chosen = Stream(images({**source, "select": {"max_aspect": 1.9}}), "images", tmp_path / "cache").source
    assert [chosen.record(n).caption for n in range(len(chosen))] == ["0", "2"]
    (tmp_path / "photos" / "p00.png").unlink()  # scores are the list's alone: nothing is opened
    with pytest.raises(SourceError, match=r"0 of 7 samples are selected \(7 do not meet min_aesthetic 5\)"):
        Stream(images({**source, "select": {"min_aesthetic": 5}}), "images", tmp_path / "cache")


def test_what_is_held_out_is_in_no_bucket(tmp_path):
    source = photos(tmp_path / "photos", "p", SHAPES)
    recipe = images(source, steps=40, buckets=BUCKETS, held_out=1)
    [held_out] = stream_of(recipe, "images", tmp_path / "cache").held_out(1)
    seen = captions(read(recipe, tmp_path / "cache"))
    assert held_out.caption not in seen
    assert len(set(seen)) == len(SHAPES) - 1


def test_buckets_of_a_mixture_share_its_weights(tmp_path):
    mine = photos(tmp_path / "mine", "mine", [(300, 300)] * 6 + [(600, 300)] * 2)
    others = photos(tmp_path / "others", "others", [(600, 300)] * 4)
    batches = read(images([mine, others], steps=200, buckets=BUCKETS), tmp_path / "cache")
    counts = Counter((caption.split()[0], batch.frames.shape[-1]) for batch in batches for caption in batch.captions)
    assert counts["mine", 64] == pytest.approx(300, abs=4)
    assert counts["mine", 96] == pytest.approx(100, abs=4)
    assert counts["others", 96] == pytest.approx(400, abs=4)


def test_without_buckets_a_plan_is_what_it_was():
    """The numbers are those of 0.2.0."""
    data = {"clips": {"kind": "procedural"}, "images": {"kind": "procedural"}, "lengths": [[16, 1, 8], [8, 1, 2]]}
    plan = Plan(Recipe.model_validate({"name": "x", "steps": 1000, "batch": 4, "data": data}))
    steps = [plan[n] for n in (0, 1, 2, 3, 40, 5000, 9999)]
    assert [(s.medium[0], s.frames, s.first, s.count) for s in steps] == [
        ("c", 8, 0, 4),
        ("i", 1, 0, 32),
        ("c", 16, 4, 4),
        ("c", 16, 8, 4),
        ("c", 8, 136, 4),
        ("c", 16, 18136, 4),
        ("c", 8, 36412, 4),
    ]


def test_buckets_ask_for_sizes(tmp_path):
    (tmp_path / "anno.jsonl").write_text('{"img_path": "a.png", "prompt": "a"}\n')
    source = {"kind": "journeydb", "jsonl": str(tmp_path / "anno.jsonl"), "images": str(tmp_path)}
    with pytest.raises(SourceError, match="which journeydb does not tell; use folder, shards or manifest"):
        Stream(images(source, buckets=BUCKETS), "images", tmp_path / "cache")
    with pytest.raises(ValueError, match=r"a bucket is \[width, height\], multiples of 8 .* found \[60, 64\]"):
        images(source, buckets=[[60, 64]])


def test_prepared_latents_have_their_bucket_and_both_sides(recipe, tmp_path):
    """Trained, validated and gone on with; flips are of the picture, and not of its latents."""
    source = {**photos(tmp_path / "photos", "p", [(300, 300)] * 8 + [(600, 300)] * 8), "prepared": "moments and text"}
    data = {"clips": None, "images": source, "buckets": BUCKETS, "flip": 0.5, "held_out": 1, "caption_dropout": 0.0}
    settings = recipe(steps=4, data=data, validation={"every": 4})
    [folder] = prepare(settings, tmp_path / "cache")
    stored = Prepared(folder, tmp_path / "cache" / "index", sized=True)
    assert stored.sizes().tolist() == [[64, 64]] * 8 + [[96, 48]] * 8
    trainer = Trainer(settings, tmp_path / "run", tmp_path / "cache")
    for index in (0, 15):
        plain, flipped = stored.sample(index), stored.sample(index, flipped=True)
        assert plain.frames.shape == flipped.frames.shape == (1, 8, *([(8, 8), (6, 12)][index > 0]))
        straight = Stream(settings, "images", tmp_path / "cache")
        pixels = straight.read(index, 1, (1, 1), numpy_generator(0)).frames
        expected = trainer.objective.encoders.moments(pixels.flip(-1))
        assert torch.allclose(expected, flipped.frames.float(), atol=2e-2)
        assert not torch.allclose(flipped.frames.float(), plain.frames.float(), atol=2e-2)
    batches = trainer.objective.batches(0, 0, 1)
    shapes = {tuple(next(batches).frames.shape[-2:]) for _ in range(4)}
    assert shapes == {(8, 8), (6, 12)}
    assert trainer.run()
    Trainer(settings, tmp_path / "run", tmp_path / "cache")


# Flips


def test_flips_are_drawn_and_change_nothing_else(tmp_path):
    source = photos(tmp_path / "photos", "p", [(64, 64)] * 8)
    plain, sometimes, always = (read(images(source, steps=50, flip=flip), tmp_path) for flip in (0, 0.25, 1))
    assert captions(plain) == captions(sometimes) == captions(always)
    left = torch.cat([batch.frames[:, 0, 0, 0, 0] for batch in sometimes])  # dark, unless it is flipped
    share = (left > 128).float().mean()
    assert 0.15 < share < 0.35
    for batch, mirrored in zip(plain, always, strict=True):
        assert torch.equal(batch.frames.flip(-1), mirrored.frames)
        assert batch.frames[0, 0, 0, 0, 0] < 30


def test_all_frames_of_a_clip_are_flipped_alike(tmp_path):
    for n in range(4):
        write_video(tmp_path / f"{n}.mp4", [ramp(64, 64)] * 8, 8)
        (tmp_path / f"{n}.txt").write_text(f"clip {n}")
    recipe = images(None, clips={"kind": "folder", "path": str(tmp_path)}, flip=0.5, lengths=[[4, 1, 2]])
    stream, sides = Stream(recipe, "clips", tmp_path), set()
    for slot in range(4):
        frames = stream.draw(Plan(recipe)[0], slot).frames
        flipped = frames[:, 0, :, 0].float().mean(1) > 128
        assert len(set(flipped.tolist())) == 1
        sides.add(bool(flipped[0]))
    assert sides == {False, True}
