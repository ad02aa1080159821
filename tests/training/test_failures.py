"""Nothing hangs: whatever fails, every process of the run ends, with a message and a status that says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.training.conftest import RECIPE, around

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def ends(tmp_path_factory, start, cache) -> dict:
    """What the runs of `failing` ended with."""
    folder = tmp_path_factory.mktemp("failing")
    (folder / "cache").symlink_to(cache)
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, "init": around(start)}))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", "tests.training.failing", str(recipe), str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "ends.json").read_text())


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("out_of_memory-0", 2, "error: step 2 ran out of memory (CUDA out of memory. Tried to allocate 20.00 GiB.)"),
        ("reader_raises-0", 1, "MemoryError: Caught MemoryError in DataLoader worker process 0"),
        ("own_reading_raises-0", 1, "MemoryError: no room for a clip"),
        ("reader_killed-0", 2, "error: a process that reads data was ended at step 1 (DataLoader worker (pid"),
        ("full_disk-0", 2, "step-00000002.pt could not be written ("),
        ("tracker_fails-0", 1, "RuntimeError: the tracker's server is gone"),
        ("one_of_four-2", 1, "RuntimeError: a shape that nobody expected"),
        ("one_of_four-0", 1, None),
        ("one_of_four-1", 1, None),
        ("one_of_four-3", 1, None),
        ("one_while_the_other_is_stuck-1", 1, "RuntimeError: a driver's error"),
        ("one_while_the_other_is_stuck-0", 1, "process 1 failed: a driver's error; this process waited for it"),
        ("one_out_of_memory-1", 2, "error: step 2 ran out of memory (CUDA out of memory. Tried to allocate"),
        ("one_out_of_memory-0", 1, None),
        ("one_that_is_profiled-1", 1, "RuntimeError: a driver's error"),
        ("one_that_is_profiled-0", 1, "process 1 failed: a driver's error; this process waited for it"),
        ("one_before_the_first_step-1", 2, "error: checkpoints cannot be read"),
        ("one_before_the_first_step-0", 1, None),
        ("one_while_the_other_writes-0", 1, "process 1 failed: a cable was pulled; this process waited for it"),
    ],
)
def test_a_run_that_fails_ends_with_its_message(ends, name, status, message):
    assert ends["statuses"].get(name) == status, ends["messages"][name]
    assert message is None or message in ends["messages"][name]


def test_it_ends_soon(ends):
    """Within half a minute, which on a busy machine may be a whole one."""
    assert ends["seconds"].keys() == ends["statuses"].keys()
    assert min(ends["seconds"].values()) > 0  # every cause says when
    assert max(ends["seconds"].values()) < 60


def test_a_checkpoint_that_was_being_written_is_kept(ends):
    assert ends["kept"] == ["step-00000002.pt"]


def test_no_process_is_left(ends):
    assert ends["left"] == 0
