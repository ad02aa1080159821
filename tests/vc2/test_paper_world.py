"""The world of the paper in miniature: what it shows, that it shows it again, and that the judge sees it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vc2.evaluation import judge, picture, watermark
from vc2.evaluation.miniature.score import SPEED
from vc2.training.sources import paper_world, world
from vc2.training.sources.paper_world import CLEAN, LOW, PaperWorld

LOW_CAPTION, CLEAN_CAPTION = "a purple circle moving down", "a blue triangle moving right"
MEANS = [101.28, 80.6, 72.96, 29.52, 37.23, 60.2]


def clips(domain: str, count: int = 12) -> list[tuple[np.ndarray, world.Scene]]:
    reader = PaperWorld(domain, "clips")
    return [
        (reader.sample(i)[0][::2].permute(0, 2, 3, 1).numpy(), reader.scenes[reader.order[i]]) for i in range(count)
    ]


def through(look: paper_world.Look, scene: world.Scene) -> np.ndarray:
    return paper_world.draw(scene, look, torch.Generator().manual_seed(1))[::2].permute(0, 2, 3, 1).numpy()


def test_a_sample_is_the_same_every_time_and_no_two_are():
    for domain, medium in (("low-quality", "clips"), ("everything", "images"), ("journeydb", "images")):
        one, other = PaperWorld(domain, medium), PaperWorld(domain, medium)
        assert one.sample(5)[1] == other.sample(5)[1]
        assert torch.equal(one.sample(5)[0], other.sample(5)[0])
        assert not torch.equal(one.sample(5)[0], one.sample(6)[0])


def test_two_thirds_of_the_pairs_are_held_out_and_every_colour_and_shape_is_seen():
    assert len(paper_world.SEEN) == 8
    assert {colour for colour, _ in paper_world.SEEN} == set(range(len(world.COLOURS)))
    assert {shape for _, shape in paper_world.SEEN} == set(range(len(world.SHAPES)))
    for domain, pairs in (("low-quality", 8), ("stills", 8), ("laion", 8), ("journeydb", 24)):
        shown = PaperWorld(domain, "images").scenes
        assert len({(s.colour, s.shape) for s in shown}) == pairs


def test_a_direction_in_a_caption_says_nothing_about_the_place():
    stills = PaperWorld("stills", "images", 4000)
    shown = [stills.scenes[i] for i in stills.order]
    places = np.array([(s.x, s.y) for s in shown], float)
    for direction in range(len(world.DIRECTIONS)):
        some = places[[s.direction == direction for s in shown]]
        assert np.abs(some.mean(0)).max() < 1  # of a spread of 7 pixels, over a thousand
    assert all(s.caption.endswith(tuple(world.DIRECTIONS)) for s in shown[:50])


def test_stills_and_laion_do_not_begin_with_the_same_pictures():
    first = {name: set(PaperWorld(name, "images", 200).order) for name in ("stills", "laion")}
    assert len(first["stills"] & first["laion"]) < 20


def test_the_world_has_not_changed_without_a_new_version():
    """Raise paper_world.VERSION where this fails on purpose: rows of the old world then belong to another hash."""
    low, clean = PaperWorld("low-quality", "clips").sample(0), PaperWorld("clean", "clips").sample(0)
    means = [*low[0].float().mean((0, 2, 3)).tolist(), *clean[0].float().mean((0, 2, 3)).tolist()]
    assert (paper_world.VERSION, low[1], clean[1]) == (1, LOW_CAPTION, CLEAN_CAPTION)
    assert means == pytest.approx(MEANS, abs=0.05)


@pytest.mark.parametrize("domain", ["low-quality", "clean"])
def test_the_judge_is_right_about_ground_truth(domain):
    for clip, scene in clips(domain):
        assert judge.judge(clip).matches(scene)["joint"]


def test_the_judge_is_not_taken_in():
    rng = np.random.default_rng(0)
    for clip, scene in clips("low-quality", 6):
        per_frame = SPEED / 8
        frozen, shuffled = np.repeat(clip[:1], 8, 0), clip[[3, 0, 6, 1, 7, 2, 5, 4]]
        assert judge.judge(clip).motion_error(per_frame) < 0.3
        assert judge.judge(frozen).motion_error(per_frame) == pytest.approx(1)
        assert judge.judge(shuffled).motion_error(per_frame) > 0.9
        assert not judge.judge(frozen).matches(scene)["direction"]
        assert not judge.judge(shuffled).matches(scene)["direction"]
        assert not judge.judge(clip[::-1]).matches(scene)["direction"]
        two = np.maximum(clip, np.roll(clip, 32, 2))
        assert not judge.judge(two).matches(scene)["joint"]
        assert judge.judge(rng.integers(0, 255, clip.shape, dtype=np.uint8)).motion_error(per_frame) == 1


def test_a_watermark_alone_is_no_object():
    ground = torch.tensor(world.BACKGROUND).float()[None, :, None, None].expand(8, 3, 64, 64)
    empty = paper_world.degrade(ground, LOW, torch.Generator().manual_seed(0)).round().clamp(0, 255).byte()
    clip = empty.permute(0, 2, 3, 1).numpy()
    assert judge.judge(clip).detected == 0
    assert watermark.opacity(clip) == pytest.approx(LOW.watermark, abs=0.03)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_the_watermark_is_measured_and_taken_off(share):
    for _, scene in clips("clean", 4):
        look = LOW.scaled(0, share)
        clip, clean = through(look, scene), through(CLEAN, scene)
        assert watermark.opacity(clip) == pytest.approx(share * LOW.watermark, abs=0.02)
        assert np.abs(watermark.removed(clip, watermark.opacity(clip)) - clean).mean() < 1


@pytest.mark.parametrize("name", picture.DEFECTS)
def test_each_defect_is_seen_by_its_own_measure(name):
    """Twice as much of it, twice the share; and the others stay where they were."""
    scenes = [scene for _, scene in clips("clean", 8)]

    def measured(look: paper_world.Look) -> list[dict[str, float]]:
        return [picture.measure(judge.look_at(through(look, scene))) for scene in scenes]

    scale = picture.Scale.of(measured(CLEAN), measured(LOW))
    full = getattr(LOW, name)
    shares = [
        np.mean([list(scale.shares(m).values()) for m in measured(paper_world.Look(**{name: share * full}))], 0)
        for share in (0.6, 1.0)
    ]
    own = picture.DEFECTS.index(name)
    assert shares[1][own] == pytest.approx(1, abs=0.25)
    assert 0.3 < shares[0][own] / shares[1][own] < 0.8
    for other in range(len(picture.DEFECTS)):
        if other != own:
            assert abs(shares[1][other]) < 0.25, picture.DEFECTS[other]
