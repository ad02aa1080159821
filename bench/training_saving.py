"""How long a run stands still to save, against writing in line. Writes its section of docs/training.md.

    make bench-training-saving ARGS="--gigabytes 4 --folder /where/runs/go"

In line and with the zip's checksums is how 0.2.0 saved. Each way in turns, on the same tensors and the same disk.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from bench.sections import replace
from vc2.training import checkpoint
from vc2.training.saving import HostCopies, Writer

ROOT = Path(__file__).parent.parent
ROUNDS = 3
TENSOR = 2**22  # numbers in each


def in_line(folder: Path, state: dict) -> float:
    """As 0.2.0 did."""
    start = time.perf_counter()
    with open(folder / "old.tmp", "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    (folder / "old.tmp").replace(folder / "old.pt")
    return time.perf_counter() - start


def without_checksums(folder: Path, state: dict) -> float:
    start = time.perf_counter()
    checkpoint.save(folder, 1, state, keep=1)
    return time.perf_counter() - start


def beside(folder: Path, state: dict, copies: HostCopies, writer: Writer) -> float:
    """What the run waits for: the copies."""
    start = time.perf_counter()
    copies.begin()
    copied = {name: copies.copy(tensor) for name, tensor in state.items()}
    copies.finish()
    writer.write(partial(checkpoint.save, folder, 1, copied, 1))
    waited = time.perf_counter() - start
    writer.wait()
    return waited


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--folder", type=Path, default=ROOT, help="on the disk to write to")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "training.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    count = max(1, round(args.gigabytes * 1e9 / 4 / TENSOR))
    state = {str(k): torch.randn(TENSOR, device=device) for k in range(count)}
    copies, folder = HostCopies(device), Path(tempfile.mkdtemp(dir=args.folder))
    times: dict[str, list[float]] = {}
    try:
        with Writer() as writer:
            first = beside(folder, state, copies, writer)
            for _ in range(ROUNDS):
                for name, seconds in (
                    ("in line, with checksums (0.2.0)", in_line(folder, state)),
                    ("in line, without checksums", without_checksums(folder, state)),
                    ("beside the run", beside(folder, state, copies, writer)),
                ):
                    times.setdefault(name, []).append(seconds)
    finally:
        shutil.rmtree(folder)
    least = {name: min(some) for name, some in times.items()}
    base = next(iter(least.values()))
    rows = "\n".join(f"| {name} | {value:.2f} s | {value / base:.2f}x |" for name, value in least.items())
    size = count * TENSOR * 4 / 1e9
    replace(
        args.out,
        "Saving",
        f"""Made by `make bench-training-saving` (torch {torch.__version__}, {device.type}, {size:.1f} GB, the least
of {ROUNDS} rounds in turns): how long the run stands still. The first time, when its buffers are made, it is
{first:.2f} s. The writing itself goes on beside the run, on a processor core of its own.

| | stands still | |
| --- | --- | --- |
{rows}""",
    )


if __name__ == "__main__":
    main()
