"""Files that mean harm, or are merely odd: read right or refused in one line, soon, in little memory, and nothing else.

The first 200 files of `tests.fuzz`, half of them in `make test-slow`; `python -m tests.fuzz --count 5000 --first 200`
tries others.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import struct
import sys
import zipfile
from pathlib import Path

import pytest

from tests.fuzz import guard, originals, pickled
from tests.fuzz.files import GROUPS, make, reads_checkpoint
from tests.fuzz.guard import judge, measured

FILES = [*range(100), *(pytest.param(number, marks=pytest.mark.slow) for number in range(100, 200))]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the guard counts by signals that Windows lacks")


@pytest.mark.parametrize("number", FILES)
def test_odd_files(tmp_path, number):
    sample = make(number, tmp_path / "file")
    judge(sample.path, sample.read)
    assert not sample.trace.exists()


def test_every_kind_of_file_is_among_them():
    assert len(GROUPS) <= 100


@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt", "legacy.ckpt"])
def test_the_original_is_read(tmp_path, name):
    """So that a refusal is for what is odd."""
    state = originals.checkpoint_state()
    content = originals.safetensors(state) if "safe" in name else originals.saved(state, zipped=name[0] == "m")
    (tmp_path / name).write_bytes(content)
    assert judge(tmp_path / name, reads_checkpoint)[0] == "loaded"


@pytest.mark.parametrize("place", ["zip", "legacy", "bare"])
@pytest.mark.parametrize("name", pickled.BOMBS)
def test_bombs(tmp_path, name, place):
    """A few bytes that ask for all memory, or for ever."""
    bomb = b"\x80\2}" + pickled.text("a") + pickled.BOMBS[name] + b"s."
    content = bomb
    if place != "bare":
        content = originals.saved(originals.checkpoint_state(), zipped=place == "zip")
        content = (pickled.in_zip if place == "zip" else pickled.in_legacy)(content, lambda _: bomb)
    (tmp_path / "bomb.ckpt").write_bytes(content)
    assert judge(tmp_path / "bomb.ckpt", reads_checkpoint)[0] != "loaded"


@pytest.mark.parametrize("name", ["data.pkl", "byteorder", "data/7"])
def test_an_entry_that_unpacks_to_more_than_it_claims(tmp_path, name):
    content = originals.entries(originals.saved(originals.checkpoint_state()))
    path = next(entry for entry in content if entry.endswith(name))
    data = originals.zipped(content | {path: content[path] + bytes(2**28)}, zipfile.ZIP_DEFLATED)
    claim = struct.pack("<I", len(content[path]))
    data = data.replace(struct.pack("<I", len(content[path]) + 2**28), claim)  # in its own header and in the directory
    (tmp_path / "bomb.ckpt").write_bytes(data)
    assert judge(tmp_path / "bomb.ckpt", reads_checkpoint)[0] != "loaded"


def header(names, shape, size):
    return {
        name: {"dtype": "F16", "shape": shape, "data_offsets": [size * n, size * (n + 1)]}
        for n, name in enumerate(names)
    }


@pytest.mark.parametrize(
    "content",
    [
        header((f"model.diffusion_model.x{n}" for n in range(75_000)), [1], 2),
        header((f"{'y' * 400}{n}" for n in range(19_000)), [0], 0),
        header((f"model.diffusion_model.input_blocks.{n}.0.in_layers.2.weight" for n in range(19_000)), [32], 64),
    ],
    ids=["many names", "long names", "many blocks"],
)
def test_headers_at_the_limits(tmp_path, content):
    numbers = bytes(max(entry["data_offsets"][1] for entry in content.values()))
    (tmp_path / "bomb.safetensors").write_bytes(originals.with_header(json.dumps(content).encode(), numbers))
    assert judge(tmp_path / "bomb.safetensors", reads_checkpoint)[0] != "loaded"


def test_the_guard_sees_what_it_guards_against(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(guard, "SECONDS", 0.2)
        with pytest.raises(TimeoutError), measured():
            sum(0 for _ in itertools.count())
        with pytest.raises(TimeoutError), measured(), contextlib.suppress(OSError):
            sum(0 for _ in itertools.count())
    with measured() as cost:
        (tmp_path / "made").mkdir()
        Path(tmp_path / "written").write_bytes(b"x" * 2**24)
        held = bytearray(2**28)
    assert len(cost.deeds) == 2
    if sys.platform == "linux":
        assert cost.memory >= len(held)
    (tmp_path / "x.ckpt").write_bytes(b"x")
    with pytest.raises(AssertionError, match="other values"):
        judge(tmp_path / "x.ckpt", lambda _: False)
    with pytest.raises(AssertionError, match="names no file"):
        judge(tmp_path / "x.ckpt", lambda _: int("x"))
    with pytest.raises(KeyError):
        judge(tmp_path / "x.ckpt", lambda _: {}["x"])
