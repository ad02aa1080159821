"""Metrics in the training loop: which a recipe may name, and what is made of a folder of samples."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from pydantic import ValidationError

from vc2.files.video import write_video
from vc2.metrics.registry import METRICS
from vc2.training import measure
from vc2.training.recipe import Recipe


def recipe(metrics: list[str], **samples) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "x",
            "steps": 1,
            "batch": 1,
            "data": {"clips": {"kind": "procedural"}},
            "init": {"unet": "model.safetensors"},
            "samples": {"every": 1, "prompts": ["a cat", "a dog"], **samples},
            "validation": {"metrics": metrics},
        }
    )


@pytest.fixture
def samples(tmp_path):
    """Frames that go from grey to grey: 100, 110, ... of the first prompt, 0, 30, ... of the second."""
    for index, (name, levels) in enumerate([("a-cat", (100, 110, 100, 110)), ("a-dog", (0, 30, 0, 30))]):
        frames = [np.full((32, 32, 3), level, np.uint8) for level in levels]
        write_video(tmp_path / f"{index:02d}-{name}.mp4", frames, 8, crf=0)
    return tmp_path


def test_the_mean_over_the_clips_of_what_was_asked_for(samples):
    found = measure.sample_clips(recipe(["flicker", "duplicates"]), samples)
    assert found == {
        "samples/flicker": pytest.approx(20, abs=1),
        "samples/flicker_brightness": pytest.approx(20, abs=1),
        "samples/duplicates": 0,
    }


def test_each_clip_goes_with_its_prompt(samples, monkeypatch):
    asked = []
    noise = METRICS["noise"]
    monkeypatch.setattr(noise, "measure", lambda clip: asked.append((clip.prompt, clip.fps)) or {"noise": 1.0})
    assert measure.sample_clips(recipe(["noise"]), samples) == {"samples/noise": 1}
    assert asked == [("a cat", 8), ("a dog", 8)]


def test_what_is_missing_or_fails_ends_no_run(samples, monkeypatch, caplog):
    (samples / "01-a-dog.mp4").write_bytes(b"torn")
    caplog.set_level(logging.INFO)
    found = measure.sample_clips(recipe(["clip", "flicker_brightness", "action"]), samples)
    assert found == {"samples/flicker_brightness": pytest.approx(10, abs=1)}
    assert "clip is left out: needs ViT-B-32.pt" in caplog.text
    assert "flicker of " in caplog.text


@pytest.mark.parametrize(
    ("metrics", "samples", "says"),
    [
        (["beauty"], {}, "there is no metric 'beauty'"),
        (["noise", "fvd"], {}, "fvd is of many clips"),
        (["evalcrafter_compat."], {}, "is of many clips"),
        (["noise"], {"every": 0}, "set samples.every and samples.prompts"),
        (["noise"], {"prompts": []}, "set samples.every and samples.prompts"),
    ],
)
def test_what_a_recipe_may_not_name(metrics, samples, says):
    with pytest.raises(ValidationError, match=says):
        recipe(metrics, **samples)
