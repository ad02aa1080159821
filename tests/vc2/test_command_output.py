"""Where clips go, and what is there already: `python -m vc2` leaves, completes or replaces it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vc2.conftest import SMALL
from vc2.__main__ import main
from vc2.files.video import read_video
from vc2.pipeline import TextToVideo


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with a few files in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "three.txt").write_text("a cat\na dog\na fish\n")
    (tmp_path / "x.mp4").mkdir()
    (tmp_path / "done").mkdir()
    for name in ("clip.mp4", "photo_00412.png", "done/0001.mp4", "done/0002_00000.png"):
        (tmp_path / name).write_text("somebody else's")
    return tmp_path


def contents(folder):
    return {path.relative_to(folder): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["a cat", "-o", "x.mp4", "--overwrite"], "x.mp4 is a folder"),
        (["a cat", "-o", "x.mp4", "--skip-existing"], "x.mp4 is a folder"),
        (["a cat", "-o", "clip.mp4/b.mp4"], "clip.mp4 is not a folder"),
        (["a cat", "-o", "clip.mp4"], "clip.mp4 exists already; choose another name, or add --overwrite"),
        (["a cat", "-o", "photo.png"], "photo_00412.png exists already"),
        (["--prompts", "three.txt", "-o", "clip.mp4"], "clip.mp4 is not a folder"),
        (["--prompts", "three.txt", "-o", "done"], "0001.mp4 exists already"),
        (["--prompts", "three.txt", "-o", "done", "--format", "png"], "0002_00000.png exists already"),
    ],
)
def test_the_output_is_checked_before_the_weights_are_read(folder, monkeypatch, capsys, arguments, complaint):
    monkeypatch.setattr(TextToVideo, "__init__", lambda *_: pytest.fail("it read the weights"))
    before = contents(folder)
    assert main([*arguments, "--checkpoint", "absent.ckpt"]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert ".writing" not in error
    assert contents(folder) == before


def test_overwriting_is_asked_for(checkpoint, folder, monkeypatch, capsys):
    sampling = ["--checkpoint", str(checkpoint), *SMALL, "--overwrite"]
    before = contents(folder)
    assert main(["a cat", "-o", "clip.mp4", *sampling]) == 0
    assert len(read_video(folder / "clip.mp4")) == 3
    assert main(["--prompts", "three.txt", "-o", "done", *sampling]) == 0
    assert {path for path, content in contents(folder).items() if before.get(path, "") != content} == {
        Path("clip.mp4"), *(Path("done") / f"000{n}.mp4" for n in range(3)),
    }  # fmt: skip
    # What is left beyond the new clip is told before sampling, too: then its length is known.
    monkeypatch.setattr(TextToVideo, "__call__", lambda *_: pytest.fail("it sampled"))
    assert main(["a cat", "-o", "photo.png", *sampling]) == 2
    assert "photo_00412.png would mix with the new clip's 3 frames" in capsys.readouterr().err


@pytest.mark.parametrize(("format", "missing"), [("mp4", ["0000.mp4", "0002.mp4"]), ("png", ["0000_", "0001_"])])
def test_a_folder_is_completed(checkpoint, folder, format, missing):
    """What is there is left, and what is not is as in a folder that was made in one go."""
    command = ["--prompts", "three.txt", "--format", format, "--checkpoint", str(checkpoint), *SMALL, "--seed", "5"]
    assert main([*command, "-o", "whole"]) == 0
    before = contents(folder / "done")
    assert main([*command, "-o", "done", "--skip-existing"]) == 0
    whole, after = contents(folder / "whole"), contents(folder / "done")
    assert after == before | {path: whole[path] for path in whole if path.name.startswith(tuple(missing))}


def test_a_process_completes_its_own_share(folder, monkeypatch, caplog):
    """The shares do not move by what is there, which another process may be adding to; nor are weights read in vain."""
    monkeypatch.setattr(TextToVideo, "__init__", lambda *_: pytest.fail("it read the weights"))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with caplog.at_level("INFO"):
        assert main(["--prompts", "three.txt", "-o", "done", "--skip-existing"]) == 0
    assert "1 of 1 clip there already, and left alone" in caplog.text


def test_leaving_and_replacing_contradict(folder, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["a cat", "-o", "clip.mp4", "--skip-existing", "--overwrite"])
    assert "not allowed with argument" in capsys.readouterr().err


def test_a_process_asks_for_its_own_files_only(checkpoint, folder, monkeypatch):
    """Another one may have written some of its own before this one asks."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    command = ["--prompts", "three.txt", "-o", "done", "--checkpoint", str(checkpoint), *SMALL]
    (folder / "done" / "0002_00000.png").unlink()
    assert main([*command, "--format", "mp4"]) == 0  # 0000 and 0002; 0001 is there already
    assert sorted(path.name for path in (folder / "done").iterdir()) == ["0000.mp4", "0001.mp4", "0002.mp4"]
