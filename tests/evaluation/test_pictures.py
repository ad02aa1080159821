"""Measures of single frames: closed forms, and real clips that are made worse by degrees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from vc2.metrics.metric import Clip, NotApplicableError
from vc2.metrics.registry import MEASURES, METRICS, metric_of

RNG = np.random.default_rng


def still(frame: np.ndarray, count: int = 2) -> Clip:
    return Clip(np.stack([frame] * count).round().clip(0, 255).astype(np.uint8), 10)


def flat(*colour: float, size: int = 64) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.float32), (size, size, 3))


def value(measure: str, clip: Clip) -> float:
    metric = metric_of(measure)
    assert metric.available() is None
    return metric.measure(clip)[measure]


def noisy(frames: np.ndarray, sigma: float) -> np.ndarray:
    return frames + RNG(0).normal(0, sigma, frames.shape)


def blotched(frames: np.ndarray, sigma: float) -> np.ndarray:
    """A field of brightness with a value every 8 pixels."""
    _, height, width, _ = frames.shape
    field = zoom(RNG(0).normal(0, 1, (height // 8, width // 8)), 8, order=1)
    return frames + sigma * np.pad(field, ((0, height - field.shape[0]), (0, width - field.shape[1])))[..., None]


def blocky(frames: np.ndarray, strength: float) -> np.ndarray:
    """Towards the mean of every block of 8x8, as a coarse JPEG goes."""
    _, height, width, _ = frames.shape
    cut = frames[:, : height // 8 * 8, : width // 8 * 8]
    blocks = cut.reshape(len(cut), height // 8, 8, width // 8, 8, 3).mean((2, 4), keepdims=True)
    coarse = np.broadcast_to(blocks, (len(cut), height // 8, 8, width // 8, 8, 3)).reshape(cut.shape)
    return cut + strength * (coarse - cut)


WORSE: dict[str, tuple[Callable[[np.ndarray, float], np.ndarray], list[float]]] = {
    "sharpness": (lambda frames, s: gaussian_filter(frames, (0, s, s, 0)), [0, 0.7, 1.4, 2.8]),
    "blur": (lambda frames, s: gaussian_filter(frames, (0, s, s, 0)), [0, 0.7, 1.4, 2.8]),
    "noise": (noisy, [0, 3, 6, 12]),
    "blotches": (blotched, [0, 5, 10, 20]),
    "blockiness": (blocky, [0, 0.3, 0.6, 0.9]),
    "contrast": (lambda frames, share: frames + share * (96 - frames), [0, 0.2, 0.45, 0.7]),
    "saturation": (lambda frames, s: frames + s * (frames.mean(-1, keepdims=True) - frames), [0, 0.3, 0.6, 1]),
    "colour_cast": (lambda frames, tint: frames + tint * np.array([1, 0.3, -1]), [0, 10, 20, 40]),
}
FALLS = ("sharpness", "contrast", "saturation")


@pytest.mark.parametrize("measure", WORSE)
def test_a_real_clip_measures_worse_the_worse_it_is(measure, bikes):
    worsen, severities = WORSE[measure]
    frames = bikes.frames[:3].astype(np.float32)
    values = []
    for severity in severities:
        made = worsen(frames, severity).round().clip(0, 255).astype(np.uint8)
        values.append(value(measure, replace(bikes, frames=made)))
    steps = np.diff(values) * (-1 if measure in FALLS else 1)
    assert (steps > 0).all(), values
    assert MEASURES[measure].better in (("higher", "neither") if measure in FALLS else ("lower",))


def test_noise_is_its_standard_deviation():
    """White noise of the brightness alone, on grey."""
    frame = flat(128, 128, 128, size=256) + RNG(1).normal(0, 8, (256, 256, 1))
    assert value("noise", still(frame)) == pytest.approx(8, rel=0.05)
    ramp = np.broadcast_to(np.linspace(0, 255, 256)[None, :, None], (256, 256, 3))
    assert value("noise", still(ramp)) < 0.8  # rounding alone


def test_sharpness_of_one_bright_pixel():
    """The Laplacian is -4h in it and h at its four neighbours: mean 0, variance 20 h^2 / N."""
    frame = np.zeros((18, 18, 3))
    frame[9, 9] = 100
    assert value("sharpness", still(frame)) == pytest.approx(20 * 100**2 / 16**2, rel=1e-5)


def test_colour_in_closed_form():
    grey = METRICS["colour"].measure(still(flat(128, 128, 128)))
    assert grey == pytest.approx({"contrast": 0, "saturation": 0, "colour_cast": 0}, abs=0.05)
    red = METRICS["colour"].measure(still(flat(255, 0, 0)))
    assert (
        red["colour_cast"] == pytest.approx(red["saturation"]) == pytest.approx(104.55, abs=0.2)
    )  # CIE Lab of sRGB red
    halves = np.concatenate([flat(0, 0, 0), flat(255, 255, 255)])
    assert METRICS["colour"].measure(still(halves))["contrast"] == pytest.approx(50, abs=0.01)


def test_opposite_colours_are_saturated_and_have_no_cast():
    """Red and cyan of one chroma in Lab would cancel; near ones nearly do."""
    both = METRICS["colour"].measure(still(np.concatenate([flat(200, 90, 90), flat(30, 160, 160)])))
    assert both["saturation"] > 30
    assert both["colour_cast"] < both["saturation"] / 3


def test_temporal_information_is_of_changes(bikes):
    frozen = replace(bikes, frames=np.stack([bikes.frames[0]] * 4))
    assert value("temporal_information", frozen) == 0 < value("temporal_information", bikes)
    assert value("spatial_information", still(flat(90, 90, 90))) == 0


def test_ffmpeg_takes_no_tiny_pictures():
    with pytest.raises(NotApplicableError, match="8x8"):
        METRICS["filters"].measure(still(flat(1, 2, 3, size=8)))
