"""Large data sets: one index, made once and together; orders that need no memory; few descriptors."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.training.processes import all_ended, ended, fork
from tests.training.sources import laion, picture, write_tar
from vc2.training.data.order import FIRST, LARGE, NEWEST, ROUNDS, ComputedOrder, Order, mix, order_of, permuted
from vc2.training.sources import once, tar_index
from vc2.training.sources.folder import FolderListing
from vc2.training.sources.select import Select
from vc2.training.sources.shards import ShardListing
from vc2.training.sources.source import SourceError

ROOT = Path(__file__).parent.parent.parent


# Orders

PLACES = (0, 1, 2, 3, 90, 91, 92, 93, 500)
HELD_OUT = [0, 16, 33, 50, 66, 82, 99]
PLAIN, IN_TARS = [59, 83, 42, 85, 63, 24, 21, 84, 29], [27, 15, 32, 76, 3, 53, 81, 17, 65]


def test_small_sources_come_in_the_order_of_0_2_0():
    """Whatever a run says of it. The numbers are those of 0.2.0."""
    for version in (None, FIRST, NEWEST):
        order = order_of(100, 7, 3, None, version)
        assert order.held_out.tolist() == HELD_OUT
        assert [order[i] for i in PLACES] == PLAIN
        order = order_of(100, 7, 3, [3] * 30 + [10], version)
        assert [order[i] for i in PLACES] == IN_TARS


def test_large_sources_are_ordered_by_what_the_run_began_with():
    assert type(order_of(LARGE, 0, 0, None, NEWEST)) is ComputedOrder
    for count, version in ((LARGE - 1, NEWEST), (LARGE, FIRST), (LARGE, None)):
        assert type(order_of(count, 0, 0, None, version)) is Order


@given(count=st.integers(1, 5000), seed=st.integers(0, 2**32))
@settings(max_examples=50)
def test_a_permutation_meets_every_number_once(count, seed):
    keys = [mix(seed + n) for n in range(ROUNDS)]
    assert sorted(permuted(place, count, keys) for place in range(count)) == list(range(count))


@given(
    count=st.integers(1, 400),
    held=st.integers(0, 40),
    seed=st.integers(0, 5),
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=80).filter(any),
)
@settings(max_examples=60)
def test_a_computed_epoch_is_every_sample_once_and_none_held_out(count, held, seed, sizes):
    for blocks in (None, sizes):
        total = count if blocks is None else sum(blocks)
        order = ComputedOrder(total, held, seed, blocks)
        assert order.held_out.tolist() == Order(total, held, seed, blocks).held_out.tolist()
        for epoch in range(2):
            seen = [order[epoch * len(order) + i] for i in range(len(order))]
            assert sorted([*seen, *order.held_out.tolist()]) == list(range(total))


def test_computed_orders_are_shuffled():
    order = ComputedOrder(1600, 0, 0, [10] * 160)
    epochs = [[order[e * 1600 + i] for i in range(1600)] for e in range(2)]
    assert epochs[0] != epochs[1]
    assert epochs[0] != [ComputedOrder(1600, 0, 1, [10] * 160)[i] for i in range(1600)]
    assert epochs[0] != [ComputedOrder(1600, 0, 0, [10] * 160, (1, 0, 1))[i] for i in range(1600)]
    tars = [index // 10 for index in epochs[0]]
    for start in range(0, 1600, 160):
        assert len(set(tars[start : start + 160])) == 16  # a few tars at a time
    offsets = [index % 10 for index in epochs[0]]
    assert offsets[:160] != offsets[160:320]  # each few in their own way
    whole = [ComputedOrder(5000, 0, 0)[i] for i in range(1000)]
    assert abs(np.corrcoef(whole, range(1000))[0, 1]) < 0.1
    for run in (whole, epochs[0][:160]):
        assert abs(np.corrcoef(run[:-1], run[1:])[0, 1]) < 0.2


def test_an_order_of_600_million_needs_no_memory():
    tracemalloc.start()
    order = ComputedOrder(600_000_000, 64, 0, np.full(60_000, 10_000))
    seen = {order[place] for place in range(599_999_000, 600_001_000)}  # from one epoch into the next
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()
    assert len(seen) > 1990
    assert max(seen) < 600_000_000


# The index


def scans(monkeypatch, log: Path, delay: float = 0.0) -> None:
    """Write down which tars are scanned, in whichever process."""
    real = tar_index.scan

    def scan(path, *rest):
        with open(log, "a") as file:
            file.write(f"{path.name}\n")
        time.sleep(delay)
        return real(path, *rest)

    monkeypatch.setattr(tar_index, "scan", scan)


def test_processes_make_an_index_together_and_once(tmp_path, monkeypatch):
    folder = laion(tmp_path / "laion", tars=12, each=2)
    monkeypatch.setattr(tar_index, "PART", 1)
    monkeypatch.setattr(once, "POLL", 0.01)
    scans(monkeypatch, tmp_path / "log", delay=0.02)

    def work() -> int:
        listing = ShardListing(str(folder), "images", tmp_path / "index")
        (tmp_path / f"seen-{os.getpid()}").write_text(" ".join(listing.record(n).caption for n in range(len(listing))))
        return 0

    assert all_ended([fork(work) for _ in range(3)]) == [0, 0, 0]
    assert sorted((tmp_path / "log").read_text().split()) == [f"{t:05d}.tar" for t in range(12)]
    [seen] = {path.read_text() for path in tmp_path.glob("seen-*")}
    assert seen.count("picture") == 24
    [index] = (tmp_path / "index").iterdir()
    assert {path.name for path in index.iterdir()} == {"samples.bin", "tars.npz"}


def test_what_a_process_left_when_it_was_killed_is_taken_over(tmp_path, monkeypatch):
    """And what it had finished is not done again."""
    folder = laion(tmp_path / "laion", tars=6, each=2)
    monkeypatch.setattr(tar_index, "PART", 1)
    monkeypatch.setattr(once, "POLL", 0.01)
    monkeypatch.setattr(once, "STALE", 0.1)
    scans(monkeypatch, tmp_path / "log")
    real = tar_index.scan

    def dies(path, *rest):
        table = real(path, *rest)
        if path.name == "00003.tar":
            os.kill(os.getpid(), signal.SIGKILL)
        return table

    with monkeypatch.context() as patch:
        patch.setattr(tar_index, "scan", dies)
        child = fork(lambda: 0 * len(ShardListing(str(folder), "images", tmp_path / "index")))
        assert ended(child) == -signal.SIGKILL
    assert len(ShardListing(str(folder), "images", tmp_path / "index")) == 12
    names = (tmp_path / "log").read_text().split()
    assert sorted(names) == sorted([*(f"{t:05d}.tar" for t in range(6)), "00003.tar"])


def test_a_claim_that_is_touched_is_not_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(once, "STALE", 0.2)
    mine, other = once.Claims(), once.Claims()
    assert mine.take(tmp_path / "result")
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        once.touch(tmp_path / "result")
        assert not other.take(tmp_path / "result")
        time.sleep(0.02)
    mine.give_back(tmp_path / "result")
    assert other.take(tmp_path / "result")


def test_who_waits_for_a_process_that_was_killed_is_told(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(once, "STALE", 0.5)
    monkeypatch.setattr(once, "SILENT", 0.1)
    monkeypatch.setattr(once, "POLL", 0.05)
    once.Claims().take(tmp_path / "result")  # and died
    once.complete([tmp_path / "result"], lambda _: (tmp_path / "result").touch(), "")
    assert caplog.text.count(f"waiting for {tmp_path / 'result'}, which another process is at") == 1


def test_an_index_goes_by_what_the_tars_are_and_not_by_where(tmp_path, monkeypatch):
    folder = laion(tmp_path / "laion", tars=2, each=3)
    first = ShardListing(str(folder), "images", tmp_path / "index")
    scans(monkeypatch, tmp_path / "log")
    moved = ShardListing(str(folder.rename(tmp_path / "moved")), "images", tmp_path / "index")
    assert not (tmp_path / "log").exists()
    assert moved.content() == first.content()
    assert moved.record(4).caption == "picture 000010001"
    shutil.copytree(tmp_path / "moved", folder, copy_function=shutil.copyfile)  # with times of its own
    os.utime(folder / "00001.tar", (1, 1))
    copied = ShardListing(str(folder), "images", tmp_path / "index")
    assert (tmp_path / "log").exists()
    assert copied.content() == first.content()
    write_tar(folder / "00001.tar", {"x": {"png": picture(1), "txt": b"another"}})
    changed = ShardListing(str(folder), "images", tmp_path / "index")
    assert len(changed) == 4
    assert changed.record(3).caption == "another"
    assert changed.content() != first.content()


def test_a_caption_changed_within_its_length_is_other_data(tmp_path):
    contents = set()
    for caption in (b"a cat", b"a dog"):
        path = write_tar(tmp_path / "0.tar", {"x": {"png": picture(1), "txt": caption}})
        contents.add(ShardListing(str(path), "images", tmp_path / caption.decode()).content())
    assert len(contents) == 2


def test_a_broken_tar_among_many_is_named_and_keeps_nobody_waiting(tmp_path, monkeypatch):
    folder = laion(tmp_path / "laion", tars=3, each=2)
    (folder / "00001.tar").write_bytes((folder / "00001.tar").read_bytes()[:700])
    for _ in range(2):  # the second finds no claim of the first
        with pytest.raises(SourceError, match=r"00001\.tar is not an uncompressed tar, or is cut short"):
            ShardListing(str(folder), "images", tmp_path / "index")
    laion(tmp_path / "again", tars=3, each=2)
    shutil.copy(tmp_path / "again" / "00001.tar", folder)
    assert len(ShardListing(str(folder), "images", tmp_path / "index")) == 6


def test_a_text_is_preferred_to_a_table_whichever_comes_first(tmp_path):
    table = json.dumps({"caption": "the table's"}).encode()
    samples = {"a": {"json": table, "jpg": picture(0), "txt": b"the text's"}, "b": {"json": table, "jpg": picture(1)}}
    listing = ShardListing(str(write_tar(tmp_path / "0.tar", samples)), "images", tmp_path / "index")
    assert [listing.record(n).caption for n in range(2)] == ["the text's", "the table's"]


def test_readers_that_are_sent_to_other_processes_map_the_index_too(tmp_path):
    samples = {f"{n:06d}": {"png": b"x", "txt": b"x"} for n in range(2000)}
    listing = ShardListing(str(write_tar(tmp_path / "0.tar", samples)), "images", tmp_path / "index")
    sent = pickle.dumps(listing)
    assert len(sent) < 10_000 < (listing.tars.index / "samples.bin").stat().st_size
    assert pickle.loads(sent).record(1999) == listing.record(1999)


def test_three_hundred_tars_with_64_descriptors(tmp_path):
    """In a process of its own, which has no more: the first start, the next, and reading all over them."""
    folder = laion(tmp_path / "laion", tars=2, each=2)
    for t in range(2, 300):
        os.link(folder / f"{t % 2:05d}.tar", folder / f"{t:05d}.tar")
    code = f"""
        import os, resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        from vc2.training.sources.shards import ShardListing
        for _ in range(2):
            listing = ShardListing({str(folder)!r}, "images", __import__("pathlib").Path({str(tmp_path / "index")!r}))
            before = len(os.listdir("/proc/self/fd"))
            for n in range(len(listing)):
                listing.record(n).open().read()
            assert len(os.listdir("/proc/self/fd")) == before < 20, os.listdir("/proc/self/fd")
        print(len(listing))
    """
    assert subprocess.check_output([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, text=True) == "600\n"


# Filters in tars


def test_tars_are_filtered_by_what_their_json_says(tmp_path, caplog):
    rows = [
        {"width": 600, "height": 520, "pwatermark": 0.1, "aesthetic": 6.0},
        {"width": 600, "height": 500, "pwatermark": 0.1, "aesthetic": 6.0},
        {"width": 600, "height": 520, "pwatermark": 0.6, "aesthetic": 6.0},
        {"width": 600, "height": 520, "pwatermark": 0.1, "aesthetic": 4.9},
        {"width": 600, "height": 520, "aesthetic": 6.0},
        {"width": 2000, "height": 520, "pwatermark": 0.1, "aesthetic": 6.0},
        {"width": 520, "height": 600, "pwatermark": 0.5, "aesthetic": 5},
    ]
    for t in range(2):
        samples = {
            f"{t}{n}": {"png": picture(n), "txt": f"{t} {n}".encode(), "json": json.dumps(row).encode()}
            for n, row in enumerate(rows)
        }
        (tmp_path / "tars").mkdir(exist_ok=True)
        write_tar(tmp_path / "tars" / f"{t}.tar", samples)
    select = Select(min_side=512, max_aspect=2, max_watermark=0.5, min_aesthetic=5)
    caplog.set_level("INFO")
    listing = ShardListing(str(tmp_path / "tars"), "images", tmp_path / "index", select)
    assert [listing.record(n).caption for n in range(len(listing))] == ["0 0", "0 6", "1 0", "1 6"]
    assert list(listing.blocks) == [2, 2]
    assert listing.sizes().tolist() == [[600, 520], [520, 600]] * 2
    assert "4 of 14 samples are selected (2 do not meet min_side 512, 2 do not meet max_aspect 2" in caplog.text
    assert "4 do not meet max_watermark 0.5, 2 do not meet min_aesthetic 5" in caplog.text
    other = ShardListing(
        str(tmp_path / "tars"), "images", tmp_path / "index", Select(min_aesthetic=7, aesthetic="width")
    )
    assert len(other) == 14
    with pytest.raises(SourceError, match=r"0 of 14 samples are selected .* lower what `select` asks"):
        ShardListing(str(tmp_path / "tars"), "images", tmp_path / "index", Select(max_watermark=0.01))


@pytest.mark.parametrize(
    "table", [b"[" * 100_000, b'{"width": 1' + b"0" * 400 + b', "height": 40}', b'{"pwatermark": 1e39}', b"\xff"]
)
def test_no_table_ends_a_run(tmp_path, table):
    """And what it says wrong of a picture's size is measured."""
    path = write_tar(tmp_path / "0.tar", {"a": {"png": picture(0, (40, 48)), "txt": b"a", "json": table}})
    listing = ShardListing(str(path), "images", tmp_path / "index", Select(min_side=8))
    assert listing.sizes().tolist() == [[48, 40]]
    assert listing.record(0).caption == "a"


def test_a_name_may_be_no_text(tmp_path):
    """As older archives have them, and disks."""
    name = os.fsdecode(b"caf\xe9")
    path = write_tar(tmp_path / "0.tar", {name: {"png": picture(0), "txt": b"a"}})
    assert ShardListing(str(path), "images", tmp_path / "index").record(0).caption == "a"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / f"{name}.png").write_bytes(picture(0))
    (tmp_path / "photos" / f"{name}.txt").write_text("a")
    assert FolderListing(tmp_path / "photos", "images").content().startswith("content ")


def test_a_size_that_no_json_tells_is_the_picture_s(tmp_path):
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (90, 40)).save(turned, "JPEG", exif=exif)
    samples = {
        "a": {"png": picture(0, (40, 48)), "txt": b"a"},
        "b": {"jpg": turned.getvalue(), "txt": b"b", "json": b"not json"},
        "c": {"png": b"no picture", "txt": b"c", "json": b"[1]"},
    }
    path = write_tar(tmp_path / "0.tar", samples)
    assert ShardListing(str(path), "images", tmp_path / "index", Select()).sizes().tolist() == [
        [48, 40],
        [40, 90],
        [0, 0],
    ]
    assert len(ShardListing(str(path), "images", tmp_path / "index", Select(min_side=1))) == 2
