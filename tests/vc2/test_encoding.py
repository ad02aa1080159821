"""What a video file is asked to be besides its pictures: its codec and quality, how often it plays, text, sound."""

from __future__ import annotations

import json
import re
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image, ImageSequence

from tests.vc2.test_video_io import json_values, ramp
from vc2.files import codecs
from vc2.files.video import FORMATS, Sound, read_metadata, read_video, write_video

CASES = [(format.suffix, codec) for format in FORMATS.values() for codec in format.codecs]
# As ffmpeg calls them where it describes a file.
STREAMS = {"h264": "h264", "h265": "hevc", "av1": "av1", "vp9": "vp9"}


def described(path) -> str:
    """What ffmpeg says of a file."""
    return subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(path)], capture_output=True, check=False
    ).stderr.decode()


def noise(frames: int = 4, height: int = 64, width: int = 96) -> np.ndarray:
    """Smooth pictures with some noise: what there is to lose."""
    clip = ramp(frames, height, width).astype(int)
    return (clip + np.random.default_rng(0).integers(-20, 20, clip.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("suffix", "codec"), CASES)
def test_codecs(tmp_path, suffix, codec):
    clip = noise()
    path = write_video(tmp_path / f"clip{suffix}", clip, 10, {"workflow": {"a": 1}}, codec=codec)
    assert f"Video: {STREAMS[codec]}" in described(path)
    assert read_metadata(path)["workflow"] == {"a": 1}
    coarse = write_video(tmp_path / f"coarse{suffix}", clip, 10, codec=codec, crf=45)
    errors = [np.abs(read_video(file).astype(int) - clip).mean() for file in (path, coarse)]
    assert errors[0] < 12
    assert errors[0] < 0.9 * errors[1]
    assert coarse.stat().st_size < 0.5 * path.stat().st_size


@pytest.mark.parametrize(("suffix", "codec"), CASES)
@pytest.mark.parametrize("size", [(16, 16), (31, 47)])
def test_small_and_odd_sizes(tmp_path, suffix, codec, size):
    found = read_video(write_video(tmp_path / f"clip{suffix}", ramp(3, *size), 10, codec=codec))
    assert found.shape == (3, *(side + side % 2 for side in size), 3)


def test_the_usual_codec_comes_first():
    """It is what files have where none is asked for."""
    assert (FORMATS["mp4"].codecs[0], FORMATS["webm"].codecs[0]) == ("h264", "vp9")
    assert codecs.compression("h264") == ["-c:v", "libx264", "-crf", "14"]
    assert codecs.compression("vp9") == ["-c:v", "libvpx-vp9", "-crf", "18", "-b:v", "0"]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("clip.webm", {"codec": "h264"}, r"clip\.webm: a \.webm holds vp9 or av1, not h264"),
        ("clip.mp4", {"crf": 52}, "crf must be between 0 .* and 51 for h264, found 52"),
        ("clip.gif", {"sound": Sound(np.zeros((10, 1), np.float32), 10)}, r"a \.gif holds no sound"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(tmp_path, name, options, says):
    with pytest.raises(ValueError, match=says):
        write_video(tmp_path / name, ramp(), 10, **options)
    assert list(tmp_path.iterdir()) == []


def test_an_ffmpeg_that_lacks_a_codec(tmp_path, monkeypatch):
    """The second best encoder, and where there is none, a sentence before the frames are made."""
    monkeypatch.setattr(codecs, "encoders", lambda ffmpeg: {"libx264", "libaom-av1"})
    assert codecs.compression("av1")[1] == "libaom-av1"
    with pytest.raises(RuntimeError, match=r"cannot write h265: it has no libx265.*IMAGEIO_FFMPEG_EXE"):
        write_video(tmp_path / "clip.mp4", iter(lambda: pytest.fail("a frame was made"), None), 10, codec="h265")


@pytest.mark.parametrize(("plays", "repeats"), [(0, 0), (1, None), (2, 1), (5, 4)])
def test_how_often_a_gif_plays(tmp_path, plays, repeats):
    """A gif counts how often it starts again; 0 is for ever, and without a count it plays once."""
    with Image.open(write_video(tmp_path / "clip.gif", ramp(), 10, plays=plays)) as image:
        assert image.info.get("loop") == repeats


@pytest.mark.parametrize("plays", [0, 1, 5])
def test_how_often_a_webp_plays(tmp_path, plays):
    with Image.open(write_video(tmp_path / "clip.webp", ramp(), 10, plays=plays)) as image:
        assert image.info["loop"] == plays


def frames_of(path) -> list[np.ndarray]:
    with Image.open(path) as image:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]


@settings(max_examples=15)
@given(workflow=json_values)
@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_text_in_pictures_survives(tmp_path_factory, suffix, workflow):
    folder = tmp_path_factory.mktemp("text")
    metadata = {"workflow": {"x": workflow}, "other": ["é"], "prompt": {"1": {}}}
    assert read_metadata(write_video(folder / f"clip{suffix}", ramp(1, 16, 16), 8, metadata)) == metadata


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_text_leaves_the_pictures_as_they_are(tmp_path, suffix, count):
    """And is in each of them."""
    clip = ramp(count, 31, 47)
    write_video(tmp_path / "plain" / f"clip{suffix}", clip, 8)
    write_video(tmp_path / "text" / f"clip{suffix}", clip, 8, {"workflow": {"nodes": ["x" * 99_999]}})
    plain, text = (sorted((tmp_path / name).iterdir()) for name in ("plain", "text"))
    assert [file.name for file in plain] == [file.name for file in text]
    for before, after in zip(plain, text, strict=True):
        assert read_metadata(before) == {}
        assert read_metadata(after) == {"workflow": {"nodes": ["x" * 99_999]}}
        assert np.array_equal(frames_of(before), frames_of(after))


def test_text_is_where_the_front_end_looks(tmp_path):
    """As the stock nodes write it: PNG's text by name, and in WebP's EXIF the prompt under 0x0110."""
    metadata = {"prompt": {"1": "é"}, "workflow": {"nodes": []}}
    with Image.open(write_video(tmp_path / "clip.png", ramp(1), 8, metadata)) as image:
        assert {key: json.loads(value) for key, value in image.text.items()} == metadata
    with Image.open(write_video(tmp_path / "clip.webp", ramp(2), 8, metadata)) as image:
        assert image.n_frames == 2
        assert dict(image.getexif()) == {0x0110: 'prompt:{"1": "\\u00e9"}', 0x010F: 'workflow:{"nodes": []}'}


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".png", ".webp"])
def test_text_is_json_as_browsers_read_it(tmp_path, suffix):
    """They refuse all of it for a NaN, and write null for one themselves."""
    workflow = {"a": [float("nan"), 1.5, {"b": float("inf"), "NaN": "NaN"}]}
    path = write_video(tmp_path / f"clip{suffix}", ramp(2), 8, {"workflow": workflow})
    assert read_metadata(path)["workflow"] == {"a": [None, 1.5, {"b": None, "NaN": "NaN"}]}


def heard(path, rate: int) -> np.ndarray:
    command = f"-v error -i {path} -f f32le -ac 2 -ar {rate} -".split()
    sound = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *command], capture_output=True, check=True).stdout
    return np.frombuffer(sound, np.float32)[::2]


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("seconds", [0.5, 5.0], ids=["shorter", "longer"])
def test_sound(tmp_path, suffix, seconds):
    """As long as the pictures, which are all there: it is cut, or silent in the end."""
    rate = 16000
    tone = np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate).astype(np.float32)
    stereo = np.stack([tone, tone], -1)
    sound = Sound(0.5 * stereo, rate).lasting(2.0)
    path = write_video(tmp_path / f"clip{suffix}", ramp(20), 10, {"workflow": {"a": 1}}, sound=sound)
    assert len(read_video(path)) == 20
    assert read_metadata(path)["workflow"] == {"a": 1}
    assert re.search(r"Audio: (aac|opus).*stereo", described(path))
    samples = heard(path, rate)
    assert abs(len(samples) / rate - 2.0) < 0.1
    first, last = samples[: rate // 2], samples[rate : rate + rate // 2]
    assert np.abs(np.fft.rfft(first)).argmax() == pytest.approx(220, abs=2)  # half a second has bins of 2 Hz
    assert first.std() == pytest.approx(0.5 / 2**0.5, rel=0.1)
    assert (last.std() > 0.3) == (seconds > 2)
