"""The bench of long clips: what it finds is kept while it runs, and each measure has a server of its own."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pytest

from bench import long_video

SETTINGS = [("plain", 16), ("FIFO", 64)]


@pytest.fixture
def servers(monkeypatch):
    """The environments that servers were started in."""
    started = []

    class Server:
        url = ""

        def __init__(self, cpu):
            started.append({name: os.environ.get(name) for name in (*long_video.THREADS, *long_video.FRUGAL)})

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(long_video, "Server", Server)
    monkeypatch.setattr(long_video, "Client", lambda url: SimpleNamespace(run=lambda graph: None))
    for name in (*long_video.THREADS, *long_video.FRUGAL):
        monkeypatch.delenv(name, raising=False)
    return started


def test_an_interrupted_bench_goes_on_where_it_was(servers, tmp_path):
    seen = []

    def timed(server, method, frames, prompts):
        if len(seen) == 1:
            raise KeyboardInterrupt
        seen.append((method, frames))
        return {"clips": [np.full((frames, 2, 2, 3), 7, np.uint8)], "seconds": 1.5}

    with pytest.raises(KeyboardInterrupt):
        long_video.all_of(timed, SETTINGS, ["a"], tmp_path)
    seen.append("interrupted")
    first, second = long_video.all_of(timed, SETTINGS, ["a"], tmp_path)
    assert seen == [("plain", 16), "interrupted", ("FIFO", 64)]
    assert [found["clips"][0].shape[0] for found in (first, second)] == [16, 64]
    assert first["seconds"] == 1.5
    assert first["facts"]["commit"]
    assert len(servers) == 2
    long_video.all_of(timed, SETTINGS, ["a"], tmp_path)
    assert len(servers) == 2  # nothing was missing


def test_memory_and_time_have_servers_of_their_own(servers, tmp_path, monkeypatch):
    monkeypatch.setattr(long_video, "peaks", peaks := lambda *_: {"sampling": 1.0, "decoding": 2.0})
    peaks.__name__ = "peaks"
    (found,) = long_video.all_of(peaks, SETTINGS[:1], ["a"], tmp_path)
    assert found["decoding"] == 2.0
    assert "clips" not in found
    long_video.all_of(lambda *_: {"seconds": 1.0}, SETTINGS[:1], ["a"], tmp_path / "timed")
    frugal, plain = servers
    assert frugal == long_video.THREADS | long_video.FRUGAL
    assert plain == long_video.THREADS | dict.fromkeys(long_video.FRUGAL)
    assert "OMP_NUM_THREADS" not in os.environ
