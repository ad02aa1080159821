"""Video files: every format is what ffmpeg says it is, metadata survives, and nothing is left half-written."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vc2.files.video import FORMATS, format_of, read_metadata, read_video, write_video


def ramp(frames: int = 5, height: int = 32, width: int = 48) -> np.ndarray:
    """Frames that differ from one another and from their mirror images."""
    t, y, x = np.meshgrid(np.arange(frames), np.arange(height), np.arange(width), indexing="ij")
    return np.stack([40 * t, 4 * y, 3 * x], -1).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
def test_round_trip(tmp_path, suffix):
    clip = ramp()
    found = read_video(write_video(tmp_path / f"clip{suffix}", clip, 10))
    assert found.shape == clip.shape
    assert np.abs(found.astype(int) - clip.astype(int)).mean() < 8


def test_png_and_webp(tmp_path):
    clip = ramp()
    first = write_video(tmp_path / "clip.png", clip, 10)
    files = sorted(tmp_path.glob("*.png"))
    assert first == files[0]
    assert np.array_equal(np.stack([np.asarray(Image.open(f)) for f in files]), clip)
    with Image.open(write_video(tmp_path / "clip.webp", clip, 10)) as animation:
        assert animation.n_frames == 5


def test_odd_sizes_are_padded_not_refused(tmp_path):
    assert read_video(write_video(tmp_path / "odd.mp4", ramp(3, 31, 47), 8)).shape == (3, 32, 48, 3)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1000, 1000)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    st.lists,
    max_leaves=4,
)


@settings(max_examples=25, deadline=None)
@given(
    workflow=st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8), json_values, max_size=4
    )
)
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_metadata_survives(tmp_path_factory, suffix, workflow):
    path = write_video(tmp_path_factory.mktemp("meta") / f"clip{suffix}", ramp(1, 16, 16), 8, {"workflow": workflow})
    assert read_metadata(path)["workflow"] == workflow


def test_large_metadata(tmp_path):
    """A big graph is larger than a command line may be."""
    workflow = {"nodes": ["x" * 1000] * 1000}
    assert read_metadata(write_video(tmp_path / "clip.mp4", ramp(), 8, {"workflow": workflow}))["workflow"] == workflow


def test_frames_are_streamed(tmp_path):
    """Frames are taken one at a time, and an interrupt in the middle leaves the previous file as it was."""
    target = tmp_path / "clip.mp4"
    target.write_bytes(b"before")

    def frames():
        yield from ramp(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(target, frames(), 10)
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("frames", "fps", "name", "says"),
    [
        ([], 10, "clip.mp4", "no frames"),
        (ramp(), 0, "clip.mp4", "fps must be positive"),
        (ramp(), 10, "clip.avi", r"cannot write \.avi"),
        ([np.zeros((8, 8, 3))], 10, "clip.mp4", "uint8"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((9, 8, 3), np.uint8)], 10, "clip.mp4", r"found uint8 \(9, 8, 3\)"),
    ],
)
def test_wrong_input(tmp_path, frames, fps, name, says):
    with pytest.raises(ValueError, match=says):
        write_video(tmp_path / name, frames, fps)
    assert list(tmp_path.iterdir()) == []


def test_ffmpegs_words_are_passed_on(tmp_path, monkeypatch):
    """Even where ffmpeg gives up while frames are still being written to it."""
    broken = dataclasses.replace(FORMATS["mp4"], arguments=("-c:v", "no_such_codec"))
    monkeypatch.setitem(FORMATS, "mp4", broken)
    for _ in range(5):
        with pytest.raises(RuntimeError, match=r"ffmpeg failed: .*no_such_codec"):
            write_video(tmp_path / "clip.mp4", (np.zeros((256, 256, 3), np.uint8) for _ in range(100)), 10)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["50% off", "100%d", "a b'c"])
@pytest.mark.parametrize("suffix", [".png", ".mp4"])
def test_names_are_taken_as_they_are(tmp_path, name, suffix):
    path = write_video(tmp_path / f"{name}{suffix}", ramp(2), 10)
    assert path.name == (f"{name}_00000.png" if suffix == ".png" else f"{name}.mp4")
    assert len(list(tmp_path.iterdir())) == (2 if suffix == ".png" else 1)


def test_a_shorter_sequence_replaces_a_longer_one(tmp_path):
    write_video(tmp_path / "clip.png", ramp(4), 10)
    write_video(tmp_path / "clip.png", ramp(2), 10)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["clip_00000.png", "clip_00001.png"]


def test_every_format_is_found_by_its_ending():
    assert [format_of(f"x{f.suffix.upper()}") for f in FORMATS.values()] == list(FORMATS)
