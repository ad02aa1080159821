"""What a run says while it runs: surprises, in the log and on the node, and how far it is, on the node."""

from __future__ import annotations

import pytest

from tests import standin
from tests.host.graphs import base, ksampler, node, vc2_sampler

TINY = "vc2-tiny.safetensors"


@pytest.fixture(scope="module")
def narrow(server) -> str:
    return standin.write(server.base / "models" / "checkpoints" / "told.safetensors").name


@pytest.fixture
def told(client, server):
    """Run a graph; the lines that its node `source` showed, and what the server logged meanwhile."""

    def told(graph, source="sampler"):
        before = len(server.log)
        result = client.run(
            graph | {"save": node("SaveLatent", samples=["sampler", 0], filename_prefix="latents/told")}
        )
        return [text for name, text in result.texts if name == source], server.log[before:]

    return told


@pytest.mark.parametrize("sampler", [vc2_sampler(steps=1), ksampler(steps=1)], ids=["ours", "stock"])
def test_many_frames_without_windows(told, narrow, sampler):
    lines, log = told(base(narrow, frames=33) | {"sampler": sampler})
    assert "33 frames in one pass, where the model is made for 16" in lines[0]
    assert lines[-1] == lines[0]
    assert lines[0] in log
    assert told(base(narrow, frames=32) | {"sampler": sampler})[0] == []


@pytest.mark.parametrize("mode", ["FreeNoise", "overlap"])
def test_many_frames_with_windows_are_no_surprise(told, narrow, mode):
    graph = base(narrow, frames=33) | {"sampler": vc2_sampler(steps=1, model=["patch", 0])}
    graph["patch"] = node("VC2ContextWindows", model=["load", 0], mode=mode, length=16, overlap=0)
    assert not any("in one pass" in line for line in told(graph)[0])


def test_many_clips_are_no_surprise(told, narrow):
    graph = base(narrow, frames=4, clips=10, frames_per_clip=4) | {"sampler": vc2_sampler(steps=1)}
    assert told(graph)[0] == []
    lines, log = told(base(narrow, frames=4, clips=3) | {"sampler": vc2_sampler(steps=1)}, "latent")
    assert "3 clips of 4 frames: with frames_per_clip 4" in lines[0]
    assert lines[0] in log


def test_a_still_picture(told, narrow):
    graph = base(narrow, frames=1) | {"source": vc2_sampler(steps=1)}
    graph["sampler"] = vc2_sampler(steps=2, denoise=0.5, latent=["source", 0])
    lines, log = told(graph)
    assert "one still picture" in lines[0]
    assert lines[0] in log
    assert told(graph, "source")[0] == []  # asked for one frame of noise


def test_the_miniature_at_full_size(told):
    def lines(size):
        return told(base(TINY, frames=1, size=size, fps=16) | {"sampler": vc2_sampler(steps=1, seed=size)})[0]

    assert "320x320 is large for so small a model" in lines(320)[0]
    assert lines(64) == []


def test_windows_are_counted(told, narrow):
    graph = base(narrow, frames=8) | {"sampler": vc2_sampler(steps=2, eta=0.0, guidance=1.0, model=["patch", 0])}
    graph["patch"] = node("VC2ContextWindows", model=["load", 0], mode="overlap", length=4, overlap=2)
    assert told(graph)[0] == [f"window {n} of 3" for n in (1, 2, 3)] * 2


def test_frames_are_counted(told, narrow):
    """Two partitions of 4: 8 steps for the first window, 4 turns to fill the queue, then a frame a turn."""
    links = {"model": ["load", 0], "positive": ["condition", 0], "negative": ["condition", 1], "latent": ["latent", 0]}
    fifo = node("VC2FIFOSampler", **links, seed=7, guidance=1.0, partitions=2, window=4, eta=0.0)
    lines, _ = told(base(narrow, frames=6) | {"sampler": fifo})
    assert lines == [f"before the first frame: {n} of 12" for n in range(1, 13)] + [
        f"frame {n} of 6" for n in range(1, 7)
    ]
