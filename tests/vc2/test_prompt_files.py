"""Files of prompts, the processes that share them, and what is read of a prompt."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.vc2.conftest import SMALL
from vc2.__main__ import device_of, main, read_prompts


def test_prompt_file_is_shared_among_processes(checkpoint, tmp_path):
    """Two processes under accelerate launch make every clip once, and the same clips as one process."""
    (tmp_path / "prompts.txt").write_text("a cat\n\na dog\na fish\n")
    command = ["--prompts", str(tmp_path / "prompts.txt"), "--checkpoint", str(checkpoint), "--format", "png", *SMALL]
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "-m",
        "vc2",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, *command, "-o", str(tmp_path / "two")], check=True, env=environment, capture_output=True)
    assert main([*command, "-o", str(tmp_path / "one")]) == 0
    one, two = (sorted((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert [f.name for f in one] == [f.name for f in two]
    assert len(one) == 9
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True))


def test_prompt_files_are_utf_8(tmp_path, capsys):
    (tmp_path / "marked.txt").write_text("\ufeffa cat\n\nein Bär\n", encoding="utf-8")
    assert read_prompts(tmp_path / "marked.txt") == ["a cat", "ein Bär"]
    for encoding in ("utf-16", "latin-1"):
        (tmp_path / "other.txt").write_text("ein Bär", encoding=encoding)
        assert main(["--prompts", str(tmp_path / "other.txt"), "-o", str(tmp_path / "clips")]) == 2
        assert f"{tmp_path / 'other.txt'} is not UTF-8 text" in capsys.readouterr().err


def test_what_is_cut_from_a_prompt_is_told(checkpoint, tmp_path, caplog):
    """A prompt has 75 tokens of its own; start and end take two."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(f"{'cat ' * 75}\n{'dog ' * 75}a fish\n")
    command = ["--prompts", str(prompts), "-o", str(tmp_path), "--checkpoint", str(checkpoint), *SMALL]
    with caplog.at_level("WARNING"):
        assert main([*command, "--negative", "bird " * 76]) == 0
    assert [record.getMessage() for record in caplog.records] == [
        'the prompt "bird bird bird bird bird bird bird bird ..." has over 77 tokens; its end is not read: bird',
        'the prompt "dog dog dog dog dog dog dog dog dog dog ..." has over 77 tokens; its end is not read: a fish',
    ]


@pytest.mark.parametrize(("asked", "found"), [("cuda", "cuda:3"), ("cuda:1", "cuda:1"), ("cpu", "cpu"), ("mps", "mps")])
def test_every_process_takes_its_own_gpu(asked, found):
    """`--device cuda` under accelerate launch."""
    assert device_of(asked, local_rank=3) == found
