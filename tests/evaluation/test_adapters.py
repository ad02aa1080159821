"""The programs for `external.json` that come along, started as a user's file of commands starts them."""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import vc2.metrics
from vc2.files.video import read_video, write_video
from vc2.metrics.external import External
from vc2.metrics.registry import METRICS

FOLDER = Path(vc2.metrics.__file__).parent / "adapters"


@pytest.fixture
def program(weights):
    """The metric of a program, once its command is written down."""
    started = []

    def command(name: str, script: str, *arguments: str | Path) -> External:
        known = METRICS[name]
        metric = External(known.name, known.measures, known.licence)
        words = [sys.executable, str(FOLDER / script), *map(str, arguments)]
        (weights / "external.json").write_text(json.dumps({name: words}))
        assert metric.available() is None
        started.append(metric)
        return metric

    yield command
    for metric in started:
        metric.close()


@pytest.fixture
def clip(bikes, tmp_path):
    return replace(bikes, path=write_video(tmp_path / "set" / "a.mp4", list(bikes.frames[:4]), 10), prompt="a bike")


# DOVER: a repository that has what is used of its own, and says what it was asked

DATASETS = """
import random
import numpy as np
import torch

print("a library that is not quiet")

class UnifiedFrameSampler:
    def __init__(self, fsize_t, fragments_t, frame_interval=1, num_clips=1):
        self.asked = [fsize_t, fragments_t, frame_interval, num_clips]
        self.frames = fsize_t * fragments_t

def spatial_temporal_view_decomposition(path, views, samplers):
    open(path, "rb").close()
    assert samplers["technical"].asked == [4, 3, 2, 1], samplers["technical"].asked
    assert samplers["aesthetic"].asked == [1, 4, 2, 1], samplers["aesthetic"].asked
    red = random.random() + np.random.rand() + float(torch.rand(()))
    video = {name: torch.full((3, samplers[name].frames, 2, 2), 100.0) for name in views}
    video["technical"][0] += red
    return video, None
"""
EVALUATOR = """
import torch

def convnext_3d_tiny(pretrained=False):
    assert not pretrained, "it would download"

class DOVER(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.zeros(size))
        convnext_3d_tiny(pretrained=True)

    def forward(self, views):
        assert views["technical"].shape == (3, 3, 4, 2, 2), views["technical"].shape
        assert views["aesthetic"].shape == (1, 3, 4, 2, 2), views["aesthetic"].shape
        return [view.detach() * scale for view, scale in zip(views.values(), self.scale.detach())]
"""
OPTIONS = """
model: {args: {size: 2}}
data:
  val-l1080p:
    args:
      sample_types:
        technical: {clip_len: 4, frame_interval: 2, num_clips: 3}
        aesthetic: {clip_len: 4, frame_interval: 2, num_clips: 1, t_frag: 4}
"""
IMAGENET = [(100 - mean) / deviation for mean, deviation in ((123.675, 58.395), (116.28, 57.12), (103.53, 57.375))]


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "DOVER"
    (folder / "dover" / "models").mkdir(parents=True)
    (folder / "pretrained_weights").mkdir()
    (folder / "dover" / "__init__.py").touch()
    (folder / "dover" / "datasets.py").write_text(DATASETS)
    (folder / "dover" / "models" / "__init__.py").touch()
    (folder / "dover" / "models" / "evaluator.py").write_text(EVALUATOR)
    (folder / "dover.yml").write_text(OPTIONS)
    torch.save({"scale": torch.tensor([0.0, 0.25])}, folder / "pretrained_weights" / "DOVER.pth")
    return folder


def test_dover_is_standardised_both_ways(program, repository, clip):
    metric = program("dover", "run_dover.py", repository, "--device", "cpu")
    aesthetic = 0.25 * sum(IMAGENET) / 3
    found = metric.measure(clip)

    def percent(head, mean, deviation):
        return 100 / (1 + math.exp(-(head - mean) / deviation))

    assert found == pytest.approx(
        {
            "dover.technical": percent(0, 0.1107, 0.07355),
            "dover.aesthetic": percent(aesthetic, -0.08285, 0.03774),
            "dover.evalcrafter_technical": percent(0, -0.0758, 0.0129),
            "dover.evalcrafter_aesthetic": percent(aesthetic, 0.1253, 0.0318),
        },
        rel=1e-4,
    )
    assert len(metric.weights_hash) == 64


def test_dover_draws_the_same_for_every_clip(program, repository, clip, tmp_path):
    torch.save({"scale": torch.tensor([0.01, 0.0])}, repository / "pretrained_weights" / "DOVER.pth")
    metric = program("dover", "run_dover.py", repository, "--device", "cpu")
    assert metric.measure(clip) == metric.measure(clip)
    with pytest.raises(RuntimeError, match=r"FileNotFoundError.*other\.mp4"):
        metric.measure(replace(clip, path=tmp_path / "other.mp4"))


@pytest.mark.parametrize("missing", ["dover.yml", "pretrained_weights/DOVER.pth"])
def test_dover_without_a_file_says_which(program, repository, clip, missing, capfd):
    (repository / missing).unlink()
    with pytest.raises(RuntimeError, match="ended with status 1"):
        program("dover", "run_dover.py", repository, "--device", "cpu").measure(clip)
    assert re.search(rf"^run_dover\.py: .*{Path(missing).name}", capfd.readouterr().err, re.MULTILINE)


@pytest.mark.parametrize(
    ("content", "says"),
    [({"other": torch.zeros(1)}, "is not of the network that .*dover.yml describes"), (None, "is no file of weights")],
)
def test_dover_with_other_weights_says_so(program, repository, clip, content, says, capfd):
    weights = repository / "pretrained_weights" / "DOVER.pth"
    torch.save(content, weights) if content else weights.write_bytes(b"<html>")
    with pytest.raises(RuntimeError, match="ended with status 1"):
        program("dover", "run_dover.py", repository, "--device", "cpu").measure(clip)
    assert re.search(rf"^run_dover\.py: .*DOVER\.pth {says}", capfd.readouterr().err, re.MULTILINE)


# VBench: files as its program writes them


def vbench(folder, name, **dimensions):
    folder.mkdir(exist_ok=True)
    results = {dimension: [0.5, list(clips)] for dimension, clips in dimensions.items()}
    (folder / f"{name}_eval_results.json").write_text(json.dumps(results))


def result(path, number):
    return {"video_path": str(path), "video_results": number}


def test_vbench_is_read_clip_by_clip(program, clip, tmp_path):
    other = tmp_path / "set" / "b.mp4"
    consistency = [result(other, 0.9), result(clip.path, 0.8)]
    vbench(tmp_path / "results", "first", subject_consistency=consistency, imaging_quality=[result(clip.path, 61.5)])
    vbench(tmp_path / "results", "second", dynamic_degree=[result(clip.path.parent / "." / "a.mp4", True)])
    metric = program("vbench", "read_vbench.py", tmp_path / "results")
    known = {"vbench.subject_consistency": 0.8, "vbench.imaging_quality": 0.615, "vbench.dynamic_degree": 1}
    assert metric.measure(clip) == pytest.approx(known)
    assert metric.measure(replace(clip, path=other)) == {"vbench.subject_consistency": 0.9}
    with pytest.raises(RuntimeError, match=r"VBench has not seen it; of 2 clips in .* the first is .*b\.mp4"):
        metric.measure(replace(clip, path=tmp_path / "c.mp4"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "has no *_eval_results.json, which `vbench evaluate` writes"),
        ("[1", "x_eval_results.json: Expecting"),
        ('{"scene": 0.5}', "scene is no list of a mean and of a number a clip"),
        ('{"scene": [0.5, [{"video_path": "a.mp4"}]]}', "scene is no list of a mean and of a number a clip"),
    ],
)
def test_results_that_are_none_are_told(program, clip, tmp_path, content, says, capfd):
    (tmp_path / "results").mkdir()
    if content:
        (tmp_path / "results" / "x_eval_results.json").write_text(content)
    with pytest.raises(RuntimeError, match="ended with status 1"):
        program("vbench", "read_vbench.py", tmp_path / "results").measure(clip)
    assert says in capfd.readouterr().err


# SD score


def test_frames_are_compared_with_pictures_of_their_prompt(program, clip_metric, clip, photo, tmp_path):
    pictures = {"a bike": [photo, photo[::-1]], "a cat": [255 - photo]}
    lines = []
    for prompt, images in pictures.items():
        for i, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / f"{prompt}-{i}.png")
            lines.append(json.dumps({"prompt": prompt, "file": f"{prompt}-{i}.png"}))
    (tmp_path / "pictures.jsonl").write_text("\n".join(lines))
    metric = program("sd_score", "run_sd_score.py", tmp_path)
    frames = clip_metric.embed_frames(replace(clip, frames=read_video(clip.path)))
    for prompt, images in pictures.items():
        cosines = [frames @ clip_metric.embed_frames(replace(clip, frames=image[None]))[0] for image in images]
        found = metric.measure(replace(clip, prompt=prompt))
        assert found == {"sd_score": pytest.approx(float(torch.stack(cosines).mean()), abs=1e-4)}
    with pytest.raises(RuntimeError, match=r"pictures\.jsonl has no picture of 'a dog'"):
        metric.measure(replace(clip, prompt="a dog"))
    assert metric.weights_hash == clip_metric.weights_hash


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"prompt": "a cat"}', "pictures.jsonl:1: expected"),
        ('{"prompt": "a cat", "file": "gone.png"}', "gone.png is not there"),
    ],
)
def test_a_list_that_is_wrong_is_told(program, clip_metric, clip, tmp_path, line, says, capfd):
    (tmp_path / "pictures.jsonl").write_text(line)
    with pytest.raises(RuntimeError, match="ended with status 1"):
        program("sd_score", "run_sd_score.py", tmp_path).measure(clip)
    assert says in capfd.readouterr().err
