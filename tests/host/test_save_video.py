"""Save Video (VideoCrafter) beyond the format: what its further inputs do."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from scripts.client import PromptError
from tests import standin
from tests.host.graphs import base, node, vc2_sampler
from tests.vc2.test_encoding import described
from vc2.files.video import read_metadata, read_video

FRAMES = 4


@pytest.fixture(scope="module")
def narrow(server):
    return standin.write(server.base / "models" / "checkpoints" / "save_video.safetensors").name


@pytest.fixture
def run(client, server, narrow):
    """Save four frames with the given inputs; what was written, and further nodes on the VIDEO."""
    graph = base(narrow, FRAMES) | {"sampler": vc2_sampler(steps=1)}
    graph["decode"] = node("VAEDecode", samples=["sampler", 0], vae=["load", 2])

    def run(more=None, workflow=None, **inputs):
        inputs = {"images": ["decode", 0], "fps": 10.0, "filename_prefix": "save/video", "format": "mp4"} | inputs
        result = client.run(graph | {"save": node("VC2SaveVideo", **inputs)} | (more or {}), workflow=workflow)
        return [server.output / file.subfolder / file.filename for file in result.files]

    return run


def pictures(files):
    return [np.asarray(Image.open(io.BytesIO(file.read_bytes())).convert("RGB")) for file in files]


def nearest(shown, frames) -> list[int]:
    """Which of `frames` each of `shown` is."""
    return [int(np.argmin([np.abs(frame.astype(int) - picture).mean() for frame in frames])) for picture in shown]


@pytest.mark.parametrize(
    ("format", "codec", "stream"), [("mp4", "h265", "hevc"), ("webm", "av1", "av1"), ("mp4", "auto", "h264")]
)
def test_codec_and_quality(run, format, codec, stream):
    (fine,), (coarse,) = (run(format=format, codec=codec, crf=crf) for crf in (-1, 50))
    assert f"Video: {stream}" in described(fine)
    assert coarse.stat().st_size < fine.stat().st_size
    assert len(read_video(fine)) == FRAMES


def test_ping_pong(run):
    """There and back, without the ends twice."""
    forwards = pictures(run(format="png"))
    there_and_back = pictures(run(format="png", ping_pong=True))
    assert len(forwards) == FRAMES
    assert nearest(there_and_back, forwards) == [0, 1, 2, 3, 2, 1]
    assert len(read_video(run(format="gif", ping_pong=True)[0])) == 6


@pytest.mark.parametrize("format", ["mp4", "gif"])
def test_several_clips_are_several_files(run, format):
    """And as many VIDEOs, of the frames that they hold."""
    opened = {
        "opened": node("GetVideoComponents", video=["save", 0]),
        "again": node("VC2SaveVideo", images=["opened", 0], fps=10.0, filename_prefix="save/again", format="png"),
    }
    clips = run(more=opened, format=format, frames_per_clip=2)
    # Of two nodes, ComfyUI tells the files in either order.
    videos, again = ([clip for clip in clips if clip.name.startswith(name)] for name in ("video", "again"))
    assert [file.suffix for file in videos] == [f".{format}"] * 2
    assert videos[0] != videos[1]
    whole = pictures(run(format="png"))
    if format == "mp4":
        assert [nearest(read_video(file), whole) for file in videos] == [[0, 1], [2, 3]]
    else:
        assert [Image.open(file).n_frames for file in videos] == [2, 2]
    assert nearest(pictures(again), whole) == [0, 1, 2, 3]


def test_frames_that_are_not_whole_clips_are_refused(run):
    with pytest.raises(PromptError, match="4 frames are not whole clips of 3"):
        run(frames_per_clip=3)


@pytest.mark.parametrize("format", ["mp4", "webm", "webp", "png"])
def test_every_format_but_gif_carries_the_workflow(run, format):
    workflow = {"nodes": [], "extra": {"a": "é"}}
    file = run(format=format, workflow=workflow, plays=3)[-1]
    assert read_metadata(file)["workflow"] == workflow
    assert read_metadata(file)["prompt"]["save"]["class_type"] == "VC2SaveVideo"


def test_how_often_it_plays(run):
    (file,) = run(format="webp", plays=3)
    assert Image.open(file).info["loop"] == 3


def test_sound(run, server):
    """In a video; a gif says that it cannot, and is saved."""
    silence = {"audio": node("EmptyAudio", duration=3.0, sample_rate=44100, channels=2)}
    (video,) = run(more=silence, audio=["audio", 0])
    assert "Audio: aac" in described(video)
    assert "Duration: 00:00:00.4" in described(video)
    assert len(read_video(video)) == FRAMES
    assert len(read_video(run(more=silence, audio=["audio", 0], format="gif")[0])) == FRAMES
    assert "a gif has no sound, so the audio is left out" in server.log


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"format": "webm", "codec": "h264"}, r"holds vp9 or av1, not h264"),
        ({"codec": "h265", "crf": 52}, r"crf must be between 0 .* and 51 for h265, found 52"),
        ({"crf": -2}, r"crf must be between 0 .* and 51 for h264, found -2"),
        ({"format": "avi"}, r"format: 'avi' is not one of the choices"),
        ({"codec": "mpeg2"}, r"codec: 'mpeg2' is not one of the choices"),
    ],
)
def test_a_file_that_cannot_be_is_refused_before_anything_runs(run, inputs, says):
    given = {"codec": "auto", "crf": -1} | inputs
    with pytest.raises(PromptError, match=f"Custom validation failed for node: .*{says}"):
        run(**given)


def test_an_input_by_a_link_is_refused_once_it_is_known(run):
    linked = {"quality": node("PrimitiveInt", value=60)}
    with pytest.raises(PromptError, match=r"crf must be between 0 .* and 51 for h264, found 60") as refused:
        run(more=linked, codec="auto", crf=["quality", 0])
    assert "Custom validation failed" not in str(refused.value)
