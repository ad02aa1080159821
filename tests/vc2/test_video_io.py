"""Video files: every format is what ffmpeg says it is, metadata survives, and nothing is left half-written."""

from __future__ import annotations

import dataclasses
import errno
import re
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vc2.files import video
from vc2.files.video import FORMATS, check_clips, format_of, read_metadata, read_video, write_video


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


@settings(max_examples=25)
@given(
    workflow=st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8), json_values, max_size=4
    )
)
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_metadata_survives(tmp_path_factory, suffix, workflow):
    path = write_video(tmp_path_factory.mktemp("meta") / f"clip{suffix}", ramp(1, 16, 16), 8, {"workflow": workflow})
    assert read_metadata(path)["workflow"] == workflow


def test_metadata_is_json_as_browsers_read_it(tmp_path):
    """They refuse the whole of it for a NaN, and write null for one themselves."""
    workflow = {"a": [float("nan"), 1.5, {"b": float("inf"), "NaN": "NaN"}], "c": -float("inf")}
    path = write_video(tmp_path / "clip.mp4", ramp(), 8, {"workflow": workflow})
    assert read_metadata(path)["workflow"] == {"a": [None, 1.5, {"b": None, "NaN": "NaN"}], "c": None}


@pytest.mark.parametrize("read", [read_video, read_metadata])
def test_a_playlist_is_not_followed(tmp_path, read):
    """Whatever it is called: ffmpeg by itself opens what it names."""
    secret = write_video(tmp_path / "secret.mp4", ramp(), 8)
    for content in (f"ffconcat version 1.0\nfile '{secret.name}'\n", f"#EXTM3U\n#EXTINF:1,\n{secret.name}\n"):
        (tmp_path / "clip.mp4").write_text(content)
        with pytest.raises(OSError, match=r"clip\.mp4 cannot be read as a video") as raised:
            read(tmp_path / "clip.mp4")
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["a:b.mp4", "concat:clip.mp4", "-i.mp4", "a%05d.mp4"])
def test_names_are_read_as_they_are(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(name, ramp(2), 8, {"workflow": 1})
    assert len(read_video(name)) == 2


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


class OnWindows:
    """A pipe as it is there: what nobody reads is an invalid argument."""

    def __init__(self, pipe):
        self.pipe = pipe

    def __getattr__(self, name):
        return getattr(self.pipe, name)

    def write(self, data):
        return self._do(self.pipe.write, data)

    def close(self):
        return self._do(self.pipe.close)

    def _do(self, action, *arguments):
        try:
            return action(*arguments)
        except BrokenPipeError:
            raise OSError(errno.EINVAL, "Invalid argument") from None


@pytest.mark.parametrize("windows", [False, True])
def test_ffmpegs_words_are_passed_on(tmp_path, monkeypatch, windows):
    """Even where ffmpeg gives up while frames are still being written to it."""

    class Process(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            if windows:
                self.stdin = OnWindows(self.stdin)

    monkeypatch.setattr(video.subprocess, "Popen", Process)
    broken = dataclasses.replace(FORMATS["mp4"], arguments="-c:v no_such_codec")
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


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_frames_replace_their_own_and_nothing_else(tmp_path):
    """What lies beside them, and what is left of a longer clip, is never deleted, nor mixed with the new clip."""
    write_video(tmp_path / "clip.png", ramp(3), 10)
    for name in ("clip_1.png", "clip_00000.png.txt", "clip_00009.jpg", "other_00007.png", "clip.png"):
        (tmp_path / name).write_text("somebody else's")
    before = contents(tmp_path)
    write_video(tmp_path / "clip.png", ramp(3)[::-1], 10)
    after = contents(tmp_path)
    assert after.keys() == before.keys()
    assert {name for name in before if before[name] != after[name]} == {"clip_00000.png", "clip_00002.png"}
    with pytest.raises(
        FileExistsError, match=r"clip_00001\.png, .*clip_00002\.png would mix with the new clip's 1 frames"
    ):
        write_video(tmp_path / "clip.png", ramp(1), 10)
    assert contents(tmp_path) == after


def test_frames_left_of_a_longer_clip_are_told_before_the_work(tmp_path, monkeypatch):
    """Wherever it is known how many there will be."""
    write_video(tmp_path / "clip.png", ramp(3), 10)
    monkeypatch.setattr(video, "_encode", lambda *_: pytest.fail("it encoded"))
    with pytest.raises(FileExistsError, match=r"clip_00002\.png would mix with the new clip's 2 frames"):
        write_video(tmp_path / "clip.png", list(ramp(2)), 10)
    with pytest.raises(ValueError, match="there are no frames to write"):
        write_video(tmp_path / "clip.png", [], 10)


@pytest.mark.parametrize(("name", "existing"), [("clip.mp4", "clip.mp4"), ("a+b.png", "a+b_00412.png")])
def test_nothing_is_replaced_unasked(tmp_path, name, existing):
    """Nor is a file that appears while the clip is made; one that is there before is told before it is made."""

    def frames(count):
        yield from ramp(count)
        assert not (tmp_path / existing).exists()
        (tmp_path / existing).write_text("somebody else's")

    for clip in (frames(2), frames(1)):
        with pytest.raises(FileExistsError, match=rf"{re.escape(existing)} exists already; .*--overwrite"):
            write_video(tmp_path / name, clip, 10, overwrite=False)
        assert contents(tmp_path) == {existing: b"somebody else's"}


@pytest.mark.parametrize("name", ["clip.mp4", "clip.png"])
def test_a_new_clip_needs_no_leave(tmp_path, name):
    assert write_video(tmp_path / "new" / name, ramp(2), 10, overwrite=False).is_file()


def test_many_clips_are_checked_together(tmp_path):
    (tmp_path / "1.mp4").touch()
    (tmp_path / "3.mp4").touch()
    paths = [tmp_path / f"{n}.mp4" for n in range(5)]
    with pytest.raises(FileExistsError, match=r"1\.mp4, .*3\.mp4 exist already"):
        check_clips(paths)
    check_clips(paths, overwrite=True)
    check_clips(paths[4:])


def test_every_format_is_found_by_its_ending():
    assert [format_of(f"x{f.suffix.upper()}") for f in FORMATS.values()] == list(FORMATS)
