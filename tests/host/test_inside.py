"""What does not show in a clip: the memory that is reserved, how conditions are batched, what a run leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from scripts.comfyui import ROOT, comfyui_tree
from tests import standin
from tests.host import inside


@pytest.fixture(scope="module")
def observed(tmp_path_factory) -> dict:
    path = standin.write(tmp_path_factory.mktemp("inside") / "standin.safetensors")
    result = subprocess.run(
        [sys.executable, inside.__file__, str(comfyui_tree()), str(ROOT), str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("how", "frames"),
    [
        ("all frames", 24),
        ("FreeNoise", 24),
        ("windows", 4),
        ("windows of two clips", 8),
        ("windows longer than the clips", 6),
        ("stock windows of two clips", 8),
        ("FIFO", 4),
        ("FIFO of less than a window", 3),
    ],
)
def test_memory_is_reserved_for_what_the_model_sees(observed, how, frames):
    assert observed[how] == frames


def test_a_window_of_both_conditions_is_one_batch(observed):
    """The host batches two conditions where they have the very same ControlNet."""
    assert observed["controlled batches"] == [8]


def test_a_run_leaves_nothing_behind(observed):
    assert observed["left on the network"] == []
    assert not observed["left on the model"]
    assert observed["more tensors after more runs"] == 0
