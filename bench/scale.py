"""Data sets of the paper's size: 60,000 tars and 600 million samples, simulated. Writes docs/scale.md.

    make bench-scale

Three things are measured, each in processes of their own:

- Indexing real tars, by one process and by two together, under `ulimit -n 256`.
- Starting with 60,000 tars of 10,000 samples whose index is there, in each of several processes: seconds, memory of the
  process's own, descriptors. The tars are links to a few real ones, and the index, 10.8 GB, is a file with holes: so it
  takes no room on the disk, and what is measured leaves the disk out.
- The orders of 0.2.0 and of today for so many samples: seconds and memory until the first sample's place is known. The
  former at a fraction of the size, from which the rest is reckoned.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import platform
import resource
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
TARS, EACH = 60_000, 10_000
REAL, REAL_EACH = 1_000, 200  # tars that are written and indexed
FRACTION = 20  # of all samples, for the order of 0.2.0
DRAWN = 20_000
FILES = 256  # descriptors that a process may have


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))


def own_memory() -> float:
    """MiB of this process that no file stands for."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) / 1024


def measured(work: Callable[..., dict[str, float]], *arguments, processes: int = 1) -> list[dict[str, float]]:
    """What `work` returns in each of some processes that start together."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, initializer=limit_files) as pool:
        pool.map(warm, range(processes), chunksize=1)
        return pool.starmap(work, [arguments] * processes, chunksize=1)


def warm(_: int) -> None:
    """Import what every run imports."""
    import webdataset.shardlists  # noqa: F401

    from vc2.training.data import order  # noqa: F401
    from vc2.training.sources import shards  # noqa: F401

    time.sleep(0.5)  # so that each process has one


def write_tars(folder: Path, tars: int, each: int) -> None:
    """Tars of samples as img2dataset writes them, with pictures of a few bytes."""
    folder.mkdir()
    for t in range(tars):
        with tarfile.open(folder / f"{t:05d}.tar", "w") as tar:
            for n in range(each):
                table = {"width": 512, "height": 512, "pwatermark": 0.1, "aesthetic": 5.5, "caption": f"{t} {n}"}
                contents = {"jpg": b"x" * 400, "json": json.dumps(table).encode(), "txt": f"picture {t} {n}".encode()}
                for ending, content in contents.items():
                    member = tarfile.TarInfo(f"{t:05d}{n:05d}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def index(folder: Path, cache: Path) -> dict[str, float]:
    from vc2.training.sources.shards import ShardListing

    start, busy = time.perf_counter(), time.process_time()
    listing = ShardListing(str(folder), "images", cache)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    for n in range(0, len(listing), len(listing) // 1000):
        listing.record(n)
    return {"seconds": seconds, "busy": busy, "samples": len(listing), "descriptors": len(os.listdir("/proc/self/fd"))}


def simulate(links: Path, cache: Path) -> int:
    """The index of TARS tars of EACH samples; returns its bytes."""
    from vc2.training.sources.files import ENDINGS
    from vc2.training.sources.shards import CAPTION
    from vc2.training.sources.tar_index import SAMPLES, Contents, index_folder, save_tars

    contents = Contents(((ENDINGS["images"],), CAPTION))
    folder = index_folder(sorted(links.iterdir()), contents, cache)
    size = TARS * EACH * contents.dtype.itemsize
    save_tars(folder, np.full(TARS, EACH), "0" * 16)
    with open(folder / SAMPLES, "wb") as file:
        file.truncate(size)
    return size


def start_up(links: Path, cache: Path) -> dict[str, float]:
    from vc2.training.data.order import NEWEST, order_of
    from vc2.training.sources.shards import ShardListing

    before, start = own_memory(), time.process_time()
    listing = ShardListing(str(links), "images", cache)
    opened = time.process_time()
    order = order_of(len(listing), 64, 0, listing.blocks, NEWEST)
    order[0]
    ready = time.process_time()
    for n in range(DRAWN):
        listing.tars.place(order[n], 0)
    drawn = time.process_time()
    return {
        "open": opened - start,
        "order": ready - opened,
        "draw": (drawn - ready) / DRAWN * 1e6,
        "memory": own_memory() - before,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "samples": len(listing),
    }


def order_in_memory(count: int) -> dict[str, float]:
    from vc2.training.data.order import Order

    start = time.process_time()
    order = Order(count, 64, 0, [EACH] * (count // EACH))
    order[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": time.process_time() - start, "memory": own_memory(), "peak": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="for a gigabyte of tars (default: a temporary one)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        write_tars(folder / "tars", REAL, REAL_EACH)
        size = sum(path.stat().st_size for path in (folder / "tars").iterdir()) / 2**20
        [alone] = measured(index, folder / "tars", folder / "alone")
        together = measured(index, folder / "tars", folder / "together", processes=2)
        [again] = measured(index, folder / "tars", folder / "alone")
        links = folder / "links"
        links.mkdir()
        for t in range(TARS):
            os.link(folder / "tars" / f"{t % REAL:05d}.tar", links / f"{t:05d}.tar")
        bytes_ = simulate(links, folder / "cache")
        ranks = measured(start_up, links, folder / "cache", processes=2)
        [before] = measured(order_in_memory, TARS * EACH // FRACTION)

    def worst(rows: list[dict[str, float]], key: str) -> float:
        return max(row[key] for row in rows)

    samples = alone["samples"]
    hours = alone["busy"] / samples * TARS * EACH / 3600
    lines = f"""# Data at the paper's size

Made by `make bench-scale` ({platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}). The machine was busy
with other work, so these are seconds of processor time, and only where it says so of the clock. Every process was held
to {FILES} descriptors (`ulimit -n {FILES}`).

## The index is made once, by all processes together

{REAL:,} real tars, {samples:,.0f} samples, {size:,.0f} MiB: each picture with a `.txt` and a `.json`.

| | processor | by the clock | descriptors at the end |
| --- | --- | --- | --- |
| one process | {alone["busy"]:.1f} s | {alone["seconds"]:.1f} s | {alone["descriptors"]:.0f} |
| two processes, until both have it | {together[0]["busy"]:.1f} and {together[1]["busy"]:.1f} s \
| {worst(together, "seconds"):.1f} s | {worst(together, "descriptors"):.0f} |
| the next start | {again["busy"]:.2f} s | {again["seconds"]:.2f} s | {again["descriptors"]:.0f} |

Reckoned from the first row, {TARS:,} tars of {EACH:,} samples are {hours:.0f} hours of one core, once: with 32
processes {hours * 60 / 32:.0f} minutes where their disks keep up. 0.2.0 spent it in every process.

## Starting with {TARS:,} tars and {TARS * EACH / 1e6:,.0f} million samples

The index takes {bytes_ // (TARS * EACH)} bytes a sample, {bytes_ / 1e9:.1f} GB, in one file that all processes of a
machine map (12 bytes more where a source filters or where images have buckets). Simulated: links to real tars, an index
with holes. The worst of two processes at once:

| | |
| --- | --- |
| finding the tars, and that the index is theirs | {worst(ranks, "open"):.1f} s |
| an order of the epoch | {worst(ranks, "order"):.3f} s |
| the place of the next sample | {worst(ranks, "draw"):.0f} microseconds |
| memory of a process's own | {worst(ranks, "memory"):.0f} MiB |
| descriptors, those of Python included | {worst(ranks, "descriptors"):.0f} |

An order in memory, as 0.2.0 made them, takes {before["seconds"]:.1f} s and {before["memory"]:,.0f} MiB
({before["peak"]:,.0f} at its peak) for a {FRACTION}th of these samples, in every process and every reader:
{before["seconds"] * FRACTION:.0f} s and {before["memory"] * FRACTION / 1024:.0f} GiB for all.
Runs that it began keep it.
"""
    (ROOT / "docs" / "scale.md").write_text(lines)
    print(lines)


if __name__ == "__main__":
    main()
