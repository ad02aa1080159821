"""Measures along time: known movements, frozen clips, injected flicker."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vc2.metrics.flow import FlowMetric, agreeing, jerk, resized, warped
from vc2.metrics.metric import Clip, NotApplicableError
from vc2.metrics.registry import METRICS, metric_of


def measured(metric: str, clip: Clip) -> dict[str, float]:
    return dict(METRICS[metric].measure(clip))


@pytest.fixture
def pan(photo):
    """A window of 96x96 that slides over a photo by so many pixels (x, y) a frame."""

    def clip(dx: int, dy: int = 0, frames: int = 5) -> Clip:
        at = [(160 + i * dx, 160 + i * dy) for i in range(frames)]
        return Clip(np.stack([photo[y : y + 96, x : x + 96] for x, y in at]), 10)

    return clip


def frozen(clip: Clip) -> Clip:
    return replace(clip, frames=np.broadcast_to(clip.frames[:1], clip.frames.shape))


# Flicker and freeze


def test_flicker_of_light_that_goes_up_and_down():
    """Grey 100, 110, 100, ...: every frame is 10 from the mean of its neighbours."""
    levels = np.array([100, 110, 100, 110, 100], np.uint8)
    clip = Clip(np.broadcast_to(levels[:, None, None, None], (5, 8, 8, 3)), 10)
    assert measured("flicker", clip) == pytest.approx({"flicker": 10, "flicker_brightness": 10}, rel=1e-5)
    steady = Clip(np.broadcast_to(np.arange(5, dtype=np.uint8)[:, None, None, None] * 10, (5, 8, 8, 3)), 10)
    assert measured("flicker", steady) == pytest.approx({"flicker": 0, "flicker_brightness": 0}, abs=1e-4)


def test_flicker_grows_with_what_is_injected_and_shuffling_adds_to_it(bikes):
    values = []
    for strength in (0, 4, 8, 16):
        light = strength * np.random.default_rng(0).choice([-1, 1], (len(bikes.frames), 1, 1, 1))
        values.append(measured("flicker", replace(bikes, frames=(bikes.frames + light).clip(0, 255).astype(np.uint8))))
    assert (np.diff([v["flicker"] for v in values]) > 0).all()
    assert (np.diff([v["flicker_brightness"] for v in values]) > 0).all()
    order = np.random.default_rng(0).permutation(len(bikes.frames))
    shuffled = measured("flicker", replace(bikes, frames=bikes.frames[order]))
    assert shuffled["flicker"] > 1.5 * values[0]["flicker"]


def test_freeze_knows_a_small_object_that_moves_and_not_compression():
    frames = np.full((4, 64, 64, 3), 40, np.uint8)
    assert measured("freeze", Clip(frames, 10)) == {"freeze": 1, "duplicates": 1}
    noise = np.random.default_rng(0).integers(0, 2, frames.shape).astype(np.uint8)
    assert measured("freeze", Clip(frames + noise, 10)) == {"freeze": 1, "duplicates": 0}
    moving = frames.copy()
    for i, frame in enumerate(moving):
        frame[20:28, 20 + 2 * i : 28 + 2 * i] = 200
    assert measured("freeze", Clip(moving, 10)) == {"freeze": 0, "duplicates": 0}


def test_freeze_is_a_share_of_the_steps(bikes):
    frames = bikes.frames[[0, 0, 1, 1, 2]]
    assert measured("freeze", replace(bikes, frames=frames)) == {"freeze": 0.5, "duplicates": 0.5}


@pytest.mark.parametrize("name", ["flicker", "freeze", "flow", "frame_consistency", "cuts"])
def test_one_frame_does_not_move(name, bikes):
    with pytest.raises(NotApplicableError, match="the clip has 1"):
        METRICS[name].measure(replace(bikes, frames=bikes.frames[:1]))


# Flow


@pytest.mark.parametrize(("dx", "dy"), [(3, 0), (0, 2), (2, -2)])
def test_flow_of_a_pan_is_its_speed(pan, dx, dy):
    """The window goes right, so that the picture goes left; a pan shakes nowhere and nothing changes along it."""
    clip = pan(dx, dy)
    figures = measured("flow", clip)
    assert figures["flow"] == pytest.approx(np.hypot(dx, dy), rel=0.1)
    assert figures["jerk"] < 0.15
    assert figures["warping_coverage"] > 0.8
    still = float(np.square(np.diff(clip.frames / 255.0, axis=0)).mean())
    assert figures["warping_error"] < 0.1 * still
    assert figures["warping_error"] < figures["warping_error_unmasked"]
    there, back = (
        METRICS["flow"].between(*(torch.from_numpy(f / 255).permute(2, 0, 1).float() for f in pair))
        for pair in (clip.frames[:2], clip.frames[1::-1])
    )
    middle = there[:, 32:64, 32:64].mean((1, 2))
    assert middle.tolist() == pytest.approx([-dx, -dy], abs=0.3)
    assert (middle + back[:, 32:64, 32:64].mean((1, 2))).norm() < 0.3


def test_a_frozen_clip_wins_warping_and_that_is_why_flow_stands_beside_it(pan):
    figures = measured("flow", frozen(pan(3)))
    assert max(figures["warping_error"], figures["warping_error_unmasked"]) < 1e-9
    assert figures["flow"] < 0.05
    assert figures["jerk"] < 0.1


def test_warping_error_grows_with_injected_flicker_and_shaking_with_shakes(pan):
    clip = pan(2)
    values = []
    for strength in (0, 10, 20, 40):
        noise = np.random.default_rng(0).normal(0, strength, clip.frames.shape)
        values.append(measured("flow", replace(clip, frames=(clip.frames + noise).clip(0, 255).astype(np.uint8))))
    assert (np.diff([v["warping_error_unmasked"] for v in values]) > 0).all()
    photo_steps = [0, 4, 4, 0, 0]
    shaken = replace(clip, frames=np.stack([pan(1, frames=8).frames[i] for i in photo_steps]))
    assert measured("flow", shaken)["jerk"] > 3 * measured("flow", clip)["jerk"]


def test_jerk_in_closed_form():
    """Flow 1, 3, 1 along x: it changes by 2 a step at a mean size of 5/3."""
    flows = [torch.tensor([x, 0.0]).view(2, 1, 1).expand(2, 4, 4) for x in (1.0, 3.0, 1.0)]
    assert jerk(flows) == pytest.approx(2 / (5 / 3 + 0.25))
    assert jerk([flows[0]] * 3) == 0


def test_warping_by_whole_pixels_and_where_flows_agree():
    image = torch.arange(20.0).view(1, 4, 5)
    right = torch.stack([torch.ones(4, 5), torch.zeros(4, 5)])
    assert torch.allclose(warped(image, right)[:, :, :-1], image[:, :, 1:], atol=1e-5)
    assert agreeing(right, -right)[:, :-1].all()
    assert not agreeing(right, -right)[:, -1].any()  # it leaves the picture
    assert not agreeing(2 * right, 2 * right).any()


def test_large_frames_are_made_smaller():
    assert resized(torch.zeros(1, 3, 512, 1024)).shape == (1, 3, 256, 512)
    assert resized(torch.zeros(1, 3, 64, 80)).shape == (1, 3, 64, 80)


def test_raft_is_asked_as_it_wants_to_be(weights, monkeypatch, pan):
    """At sides that are multiples of 8 and at least 128, of -1..1; its flow is of the pixels that are there."""
    import torchvision

    seen = []

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.zeros(()))

        def forward(self, before, after):
            seen.append((before.shape, float(before.min()), float(after.max())))
            return [torch.zeros(0), torch.full((1, 2, *before.shape[2:]), 2.0)]

    monkeypatch.setattr(torchvision.models.optical_flow, "raft_large", lambda weights: Two())
    raft = type(METRICS["raft"])()
    assert "not in" in raft.available()
    torch.save({"scale": torch.ones(())}, weights / raft.file)
    assert raft.available() is None
    figures = raft.measure(pan(1, frames=3))
    assert figures["raft_flow"] == pytest.approx(np.sqrt(8))
    assert seen[0][0] == (1, 3, 128, 128)
    assert seen[0][1] >= -1
    assert seen[0][2] > 0.5
    assert set(figures) <= set(raft.measure_names())
    assert raft.weights_hash != raft.needed_file.name


def test_every_flow_is_listed():
    assert all(isinstance(metric_of(name), FlowMetric) for name in ("jerk", "raft_jerk", "warping_coverage"))
