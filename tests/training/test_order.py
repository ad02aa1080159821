"""Data sets are read whole, once an epoch, alike by any number of processes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.sources import laion, recipe
from vc2.training.data.batches import Batch, Shares, StepDataset, load_batches
from vc2.training.data.order import Order
from vc2.training.data.plan import Plan, Step
from vc2.training.data.stream import Stream


@given(
    count=st.integers(1, 300),
    held=st.integers(0, 40),
    seed=st.integers(0, 5),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=40),
)
@settings(max_examples=60)
def test_an_epoch_is_every_sample_once_and_none_held_out(count, held, seed, sizes):
    for blocks in (None, sizes):
        total = count if blocks is None else sum(blocks)
        order = Order(total, held, seed, blocks)
        for epoch in range(2):
            seen = [order[epoch * len(order) + i] for i in range(len(order))]
            assert sorted([*seen, *order.held_out.tolist()]) == list(range(total))


def test_epochs_differ_and_seeds_too():
    first = [Order(100, 0, 0)[i] for i in range(200)]
    assert first[:100] != first[100:]
    assert first != [Order(100, 0, 1)[i] for i in range(200)]


def test_tars_are_read_a_few_at_a_time():
    order = Order(4000, 0, 0, [10] * 400)
    tars = [order[i] // 10 for i in range(4000)]
    for start in range(0, 4000, 160):
        assert len(set(tars[start : start + 160])) == 16


def test_the_plan_is_the_paper_s():
    """Half as many images as clips in number of samples... one image a clip: P(image step) = 1 / T, each with batch x T
    images.
    """
    data = {"clips": {"kind": "procedural"}, "images": {"kind": "procedural"}, "lengths": [[16, 1, 8]]}
    plan = Plan(recipe(data))
    steps = [plan[i] for i in range(20_000)]
    images = [s for s in steps if s.medium == "images"]
    assert len(images) / len(steps) == pytest.approx(1 / 16, rel=0.1)
    assert {s.count for s in images} == {4 * 16}
    assert sum(s.count for s in images) == pytest.approx(sum(s.count for s in steps if s.medium == "clips"), rel=0.12)
    for medium in ("clips", "images"):  # the positions of a stream follow one another without gap
        position = 0
        for step in steps:
            if step.medium == medium:
                assert step.first == position
                position += step.count


@pytest.mark.parametrize(("processes", "workers"), [(1, 2), (2, 0), (4, 1)])
def test_processes_and_workers_share_an_epoch_without_a_sample_twice(tmp_path, processes, workers):
    folder = laion(tmp_path / "laion", tars=5, each=8)
    data = recipe({"images": {"kind": "shards", "path": str(folder)}, "workers": workers}, steps=10)
    streams = {"images": Stream(data, "images", tmp_path / "cache")}
    captions = []
    for rank in range(processes):
        captions += [
            caption
            for batch in load_batches(data, streams, 0, rank, processes, pin=False)
            for caption in batch.captions
        ]
    assert len(captions) == 40  # 10 steps of 4: one epoch
    assert set(Counter(captions).values()) == {1}


def test_reading_from_a_step_on_is_reading_to_it_and_on(tmp_path):
    data = recipe(
        {"clips": {"kind": "procedural"}, "images": {"kind": "procedural", "domain": "journeydb"}, "crop": "random"},
        steps=12,
    )
    streams = {medium: Stream(data, medium, tmp_path) for medium in ("clips", "images")}
    whole, later = (
        list(load_batches(data, streams, 0, 0, 1, pin=False)),
        list(load_batches(data, streams, 7, 0, 1, pin=False)),
    )
    assert len(later) == 5
    for a, b in zip(whole[7:], later, strict=True):
        assert a.step == b.step
        assert a.captions == b.captions
        assert torch.equal(a.frames, b.frames)
        assert torch.equal(a.fps, b.fps)


def test_shares_and_dataset_agree(tmp_path):
    data = recipe({"clips": {"kind": "procedural"}})
    plan, stream = Plan(data), Stream(data, "clips", tmp_path)
    keys = next(iter(Shares(plan, 3, 4, 1, 2)))
    assert keys == [(3, 2), (3, 3)]
    step, slot, sample = StepDataset(plan, {"clips": stream})[keys[0]]
    assert (step.index, slot, sample.frames.shape) == (3, 2, (4, 3, 64, 64))


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_micro_batches_hold_each_sample_s_own(size):
    captions, fps = [f"caption {k}" for k in range(5)], torch.arange(5)
    frames, text = torch.arange(5.0)[:, None].expand(5, 3), torch.arange(5.0)[:, None].expand(5, 7)
    batch = Batch(Step(0, "images", 1, (1, 1), 0, 5), [*range(10, 15)], frames, captions, fps, text, [])
    parts = batch.split(size)
    assert [len(part) for part in parts] == [size] * (5 // size) + [5 % size] * (5 % size > 0)
    assert [caption for part in parts for caption in part.captions] == captions
    assert [slot for part in parts for slot in part.slots] == batch.slots
    for name in ("frames", "fps", "text"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
    assert all(part.text is None for part in replace(batch, text=None).split(size))
