"""Windows, FreeNoise, FIFO and prompt travel, without a host."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fixtures import fill_module, relative_rms
from tests.standin import unet_config
from vc2.networks import slices
from vc2.networks.clips import Clips
from vc2.networks.unet import VideoUNet
from vc2.sampling import ddim, fifo, windows
from vc2.sampling.schedule import NoiseSchedule
from vc2.sampling.travel import blend, common_length, keyframes

SIZES = st.integers(1, 20).flatmap(
    lambda length: st.tuples(st.integers(1, 90), st.just(length), st.integers(1, length))
)


@given(SIZES, st.booleans())
def test_windows_cover_every_frame(sizes, looped):
    frames, length, stride = sizes
    parts = windows.cover(frames, length, stride, looped)
    assert set(torch.cat(parts).tolist()) == set(range(frames))
    assert all(len(part) == min(frames, length) == len(set(part.tolist())) for part in parts)
    assert frames > length or len(parts) == 1


@given(SIZES)
def test_disjoint_windows_are_the_same_windows(sizes):
    frames, length, stride = sizes
    if frames <= length:
        return
    groups = windows.disjoint(frames, length, stride)
    assert sorted(start for starts in groups for start in starts) == [
        int(part[0]) for part in windows.cover(frames, length, stride)
    ]
    assert all(b - a >= length for starts in groups for a, b in itertools.pairwise(starts))


@given(SIZES)
def test_rescheduled_noise_is_the_first_windows(sizes):
    frames, length, stride = sizes
    noise = torch.arange(frames, dtype=torch.float32)
    out = windows.reschedule_noise(noise, length, stride, torch.Generator().manual_seed(0))
    assert torch.equal(out[:length], noise[:length])
    assert set(out.tolist()) <= set(noise[:length].tolist())
    for start in range(0, frames - length + 1, stride):  # every window starts from the same set of frames
        assert sorted(out[start : start + length].tolist()) == noise[:length].tolist()


@pytest.fixture(scope="module", params=["vc2_tiny", "vc1_512_tiny"])
def unet(request):
    return fill_module(VideoUNet(unet_config(request.param))).eval()


def inputs(unet, frames):
    g = torch.Generator().manual_seed(frames)
    x = torch.randn(1, 4, frames, 4, 4, generator=g)
    return x, torch.tensor([500]), torch.randn(1, 7, unet.config.context_dim, generator=g), torch.tensor([16])


@torch.no_grad()
def test_a_window_as_long_as_the_clip_changes_nothing(unet):
    x, *rest = inputs(unet, 6)
    for window in ((6, 2), (16, 4)):
        assert relative_rms(unet(x, *rest, window=window), unet(x, *rest)) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize(
    ("frames", "length", "stride"), [(7, 6, 2), (9, 6, 2), (12, 6, 2), (25, 6, 4), (24, 4, 4), (13, 5, 1), (40, 8, 3)]
)
@pytest.mark.parametrize("sliced", [False, True], ids=["at once", "in halves"])
def test_windowed_attention_is_the_weighted_mean_over_windows(unet, frames, length, stride, sliced, monkeypatch):
    """Against windows one by one; it runs those that do not overlap together, and of a large batch half at a time."""
    monkeypatch.setattr(slices, "TOKENS", 0)
    monkeypatch.setattr(slices, "SLICE", 1 if sliced else slices.SLICE)
    layer = next(m for m in unet.modules() if type(m).__name__ == "TemporalTransformer").transformer_blocks[0].attn1
    x = torch.randn(3, frames, layer.to_q.in_features, generator=torch.Generator().manual_seed(1))
    sizes = []

    def attention(tokens):
        sizes.append(tokens.numel())
        return layer(tokens)

    found = Clips(1, frames, window=(length, stride)).attend(attention, x)
    starts = sorted({*range(0, frames - length + 1, stride), frames - length})
    parts = [(s, layer(x[:, s : s + length])) for s in starts]
    weight = [min(i + 1, length - i) for i in range(length)]
    for f in range(frames):
        hits = [(weight[f - s], part[:, f - s]) for s, part in parts if s <= f < s + length]
        mean = sum(w * p for w, p in hits) / sum(w for w, _ in hits)
        assert relative_rms(found[:, f], mean) < 1e-5
    assert len(sizes) <= (2 if sliced else 1) * (-(-length // stride) + 1)
    assert max(sizes) <= (x[:2] if sliced else x).numel()


def test_windowed_attention_has_gradients(unet):
    layer = next(m for m in unet.modules() if type(m).__name__ == "TemporalTransformer").transformer_blocks[0].attn1
    x = torch.randn(3, 6, layer.to_q.in_features, generator=torch.Generator().manual_seed(1))
    clips, weight = Clips(1, 6, window=(4, 2)), torch.tensor([1.0, 2, 2, 1])[:, None]

    def gradient(attend):
        leaf = x.clone().requires_grad_()
        out = attend(leaf)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        return out.detach(), leaf.grad

    def by_hand(x):
        first, second = (F.pad(layer(x[:, s : s + 4]) * weight, (0, 0, s, 2 - s)) for s in (0, 2))
        return (first + second) / torch.tensor([1.0, 2, 3, 3, 2, 1])[:, None]

    for found, expected in zip(gradient(lambda x: clips.attend(layer, x)), gradient(by_hand), strict=True):
        assert relative_rms(found, expected) < 1e-5


@pytest.mark.parametrize("stride", [0, 5])
def test_windows_that_leave_frames_out_are_refused(stride):
    for divide in (windows.cover, windows.disjoint):
        with pytest.raises(ValueError, match=f"can be 1 to 4 frames apart, found {stride}"):
            divide(9, 4, stride)


@torch.no_grad()
def test_fifo_of_one_window_is_ddim_on_its_levels(unet):
    x, _, context, fps = inputs(unet, 4)
    schedule = NoiseSchedule()
    found = fifo.sample(lambda x, t, frames: unet(x, t, context, fps), x, schedule, window=4, partitions=2, eta=0.0)
    expected = ddim.sample(lambda x, t: unet(x, t, context, fps), x, schedule, fifo.levels(4, 2), 0.0)
    assert relative_rms(found, expected) < 1e-5


def test_fifo_finds_a_known_clip_of_any_length():
    """With a perfect denoiser (epsilon from the true x0) every frame must come out as its own truth, at t = 0's noise,
    and in order.
    """
    schedule = NoiseSchedule()
    length, seen = 21, []
    truth = torch.linspace(-1, 1, length)[None, None, :, None, None].expand(1, 4, -1, 2, 2)

    def denoise(x, t, frames):
        seen.append(x.shape[2])
        signal, sigma = schedule.coefficients(t, x)
        return (x - signal * truth[:, :, frames]) / sigma

    calls = []
    x_T = torch.randn(1, 4, length, 2, 2, generator=torch.Generator().manual_seed(0))
    out = fifo.sample(
        denoise,
        x_T,
        schedule,
        window=4,
        partitions=3,
        eta=1.0,
        generator=torch.Generator().manual_seed(1),
        callback=lambda *a: calls.append(a[:2]),
    )
    assert out.shape == truth.shape
    assert set(seen) == {4}
    assert (out - truth).abs().max() < 0.2  # sqrt(1 - abar_0) = 0.03
    assert [k for k, _ in calls] == list(range(calls[0][1]))


def test_fifo_keeps_the_rescale():
    """The same clip, read by a denoiser of a schedule without rescale, comes out too weak or too strong."""
    wrong, right = NoiseSchedule(None), NoiseSchedule()
    truth = torch.ones(1, 4, 12, 2, 2)

    def denoise(x, t, frames):
        signal, sigma = wrong.coefficients(t, x)
        return (x - signal * truth[:, :, frames]) / sigma

    out = fifo.sample(denoise, torch.randn(1, 4, 12, 2, 2), right, window=4, partitions=2, eta=0.0)
    assert (out - truth).abs().mean() > 0.02


def test_fifo_refuses_an_odd_window():
    with pytest.raises(ValueError, match="window of 5"):
        fifo.sample(lambda *a: a[0], torch.zeros(1, 4, 8, 2, 2), NoiseSchedule(), window=5)


@settings(max_examples=50)
@given(st.integers(1, 40), st.data())
def test_blend_passes_through_its_keyframes(frames, data):
    at = sorted(data.draw(st.sets(st.integers(0, frames - 1), min_size=1, max_size=4)))
    values = torch.randn(len(at), 3)
    for hold in (False, True):
        out = blend(values, at, frames, hold)
        assert out.shape == (frames, 3)
        torch.testing.assert_close(out[at], values)
        torch.testing.assert_close(out[: at[0] + 1], values[:1].expand(at[0] + 1, 3))
    if hold and len(at) > 1:
        torch.testing.assert_close(out[at[1] - 1], values[0])


def test_keyframes():
    assert keyframes("8: two\n\n 0 : one: with a colon ", 16) == [(0, "one: with a colon"), (8, "two")]
    for text, message in (
        ("a circle", "expected `frame: prompt`"),
        ("16: x", "beyond the clip"),
        ("1: a\n1: b", "two prompts"),
        (" ", "no prompt"),
        (f"{'9' * 5000}: x", r"frame 9{77}\.\.\. in '9{77}\.\.\.' is beyond the clip"),
        ("# only a comment", "no prompt"),
    ):
        with pytest.raises(ValueError, match=message):
            keyframes(text, 16)


def test_comments_between_keyframes():
    assert keyframes("# spring\n0: # 1\n  #8: left out\n8: b # c", 16) == [(0, "# 1"), (8, "b # c")]


def test_prompts_of_several_lengths():
    """Each is repeated a whole number of times, within reason."""
    for lots, expected in (([1, 1], 1), ([1, 2], 2), ([2, 3], 6), ([3, 4], 12), ([17], 17), ([20, 10], 20)):
        assert common_length([77 * n for n in lots]) == 77 * expected
    with pytest.raises(ValueError, match=r"prompts of 3, 4, 5 times 77 tokens .* every frame 4620; bring them to like"):
        common_length([77 * 5, 77 * 3, 77 * 4, 77 * 3])
