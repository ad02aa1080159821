"""A checkpoint, and clips of it that every test can afford."""

from __future__ import annotations

import pytest

from tests import standin

SMALL = ["--frames", "3", "--size", "32x24", "--steps", "2"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return standin.write(tmp_path_factory.mktemp("cli") / "standin.safetensors")
