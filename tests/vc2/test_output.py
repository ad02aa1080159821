"""Whether a file can be written is known before the work that makes it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from vc2.files import checkpoint, output
from vc2.files.output import check_target, move


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "x.mp4").mkdir()
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    return tmp_path


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("x.mp4", "x.mp4 is a folder; name a file"),
        ("file/clip.mp4", "file is not a folder"),
        ("file/deeper/clip.mp4", "file is not a folder"),
        ("nowhere/clip.mp4", "nowhere is not a folder"),
        pytest.param(
            "/proc/clip.mp4",
            "/proc/clip.mp4 cannot be written: /proc takes no new file",
            marks=pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc"),
        ),
    ],
)
def test_where_nothing_can_be_written(folder, target, complaint, overwrite):
    with pytest.raises(OSError, match=complaint) as raised:
        check_target(folder / target, overwrite)
    assert ".writing" not in str(raised.value)
    assert sorted(os.listdir(folder)) == ["file", "nowhere", "x.mp4"]


def test_what_exists_is_kept_unless_it_may_be_replaced(folder):
    for name in ("file", "nowhere"):  # a link is a file too, wherever it leads
        with pytest.raises(FileExistsError, match=rf"{name} exists already; choose another name, or add --overwrite"):
            check_target(folder / name)
        check_target(folder / name, overwrite=True)
    check_target(folder / "new" / "deeper" / "clip.mp4")
    assert not (folder / "new").exists()


def test_a_name_that_the_system_does_not_take(folder):
    """Before the work, as everything that can be known before."""
    with pytest.raises(OSError, match=r"takes no new file of that name .*too long"):
        check_target(folder / f"{'x' * 300}.mp4")
    assert sorted(os.listdir(folder)) == ["file", "nowhere", "x.mp4"]


@pytest.mark.parametrize(
    "name", ["a:b.mp4", "what?.mp4", "a<b.mp4", "nul.mp4", "COM1", "dot.", "sub*/clip.mp4", "a\tb"]
)
def test_names_that_windows_does_not_take(folder, monkeypatch, name):
    check_target(folder / name)
    monkeypatch.setattr(output, "WINDOWS", True)
    with pytest.raises(OSError, match="Windows takes no name such as"):
        check_target(folder / name)
    for good in ("clip.mp4", "../clip (1).mp4", "null.mp4", ".mp4", "ä b.mp4", "com10.x"):
        check_target(folder / "new" / good)


def test_a_file_in_use_is_told(folder, monkeypatch):
    """Windows does not replace a file that is open or mapped."""

    def refuse(*_):
        raise PermissionError(13, "Access is denied")

    (folder / "new").write_text("new")
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match=r"file cannot be replaced \(Access is denied\): it is in use"):
        move(folder / "new", folder / "file")
    with pytest.raises(OSError, match="file cannot be replaced"):
        checkpoint.save_part(folder / "file", "", {"x": torch.zeros(1)})
    assert (folder / "file").read_text() == "kept"
    assert sorted(os.listdir(folder)) == ["file", "new", "nowhere", "x.mp4"]


def test_a_relative_name_is_enough(folder, monkeypatch):
    monkeypatch.chdir(folder)
    check_target("clip.mp4")
    with pytest.raises(FileExistsError, match=r"^file exists"):
        check_target(Path("file"))


def test_saving_asks_too(folder):
    with pytest.raises(FileExistsError, match="file exists already"):
        checkpoint.save_part(folder / "file", "", {"x": torch.zeros(1)}, overwrite=False)
    assert (folder / "file").read_text() == "kept"
    with pytest.raises(FileExistsError, match="file exists already"):
        checkpoint.save(folder / "file", unet={"x": torch.zeros(1)}, overwrite=False)
    with pytest.raises(IsADirectoryError, match=r"x\.mp4 is a folder"):
        checkpoint.save_part(folder / "x.mp4", "", {"x": torch.zeros(1)})
    checkpoint.save_part(folder / "file", "", {"x": torch.zeros(1)})
    assert (folder / "file").read_bytes() != b"kept"
