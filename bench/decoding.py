"""What reading costs: clips as 0.2.0 decoded them (two ffmpeg programs each) and as the trainer does (PyAV),
photographs with the JPEG decoder's own halving and without. Writes docs/decoding.md.

    make bench-decoding

Processor time is compared and not the clock, since as many readers run as a machine has cores. The ways take turns, so
that a busy machine is busy for all, and all do what a reader does: draw, decode, resize, crop.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import torch
from PIL import Image

from tests import ffmpeg_pipe
from vc2.training.cost import A100, UTILISATION
from vc2.training.estimate import estimate
from vc2.training.recipe_files import load_recipe
from vc2.training.sources.clips import read_clip
from vc2.training.sources.fitting import fit
from vc2.training.sources.images import read_image
from vc2.training.sources.record import Record
from vc2.training.sources.source import View

DOCS = Path(__file__).parent.parent / "docs" / "decoding.md"
WIDTH, HEIGHT, RATE, SECONDS = 596, 336, 30, 18  # WebVid's
H100 = 989e12  # bf16 FLOP/s, by the data sheet
ROUNDS = 8


def film(path: Path) -> Record:
    """A clip of WebVid's size, length and bit rate. Noise moves in it, which no codec can leave out."""
    pixels = f"testsrc2=size={WIDTH}x{HEIGHT}:rate={RATE}:duration={SECONDS},noise=alls=8:allf=t"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", pixels]
    command += ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-b:v", "1100k", str(path)]
    subprocess.run(command, check=True)
    return Record(str(path), "", path, path.suffix)


def photograph(path: Path, side: int) -> Record:
    """Colours in slopes and a little noise, three by two."""
    rows, columns = np.mgrid[0 : side * 2 // 3, 0:side] / side
    noise = np.random.default_rng(0).normal(0, 6, (*rows.shape, 3))
    pixels = 255 * np.stack([rows, columns, np.abs(np.sin(9 * rows * columns))], -1) + noise
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return Record(str(path), "", path, path.suffix)


def views() -> list[View]:
    """As F-base draws them: sixteen frames, strides of one to eight, anywhere."""
    rng = np.random.default_rng(0)
    return [View(16, (1, 8), (rng.random(), rng.random()), 512, 320, (0.5, 0.5)) for _ in range(ROUNDS)]


def by_pipe(record: Record, view: View) -> None:
    assert isinstance(record.file, Path)
    fps, total = ffmpeg_pipe.probe(record.file)
    stride, first = view.choose(total)
    frames = ffmpeg_pipe.decode(record.file, fps, first, stride, view.frames or total)
    torch.stack([fit(frame, view.width, view.height, view.place) for frame in frames])


def by_pyav(record: Record, view: View) -> None:
    read_clip(record, view)


def photo(cover: bool) -> Callable[[Record, View], None]:
    def read(record: Record, view: View) -> None:
        fit(read_image(record, (view.width, view.height) if cover else None), view.width, view.height, view.place)

    return read


def processor_seconds() -> float:
    """Of this process and of those that it waited for."""
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def in_turns(record: Record, *ways: Callable[[Record, View], None]) -> list[float]:
    """The median processor time of each way, in seconds."""
    times: list[list[float]] = [[] for _ in ways]
    for view in views():
        for way, spent in zip(ways, times, strict=True):
            before = processor_seconds()
            way(record, view)
            spent.append(processor_seconds() - before)
    return [statistics.median(spent) for spent in times]


def report(folder: Path) -> str:
    torch.set_num_threads(1)
    pipe, pyav = in_turns(film(folder / "clip.mp4"), by_pipe, by_pyav)
    photos = []
    for side in (800, 1600, 3200):
        whole, small = in_turns(photograph(folder / f"{side}.jpg", side), photo(False), photo(True))
        photos.append(
            f"| {side} x {side * 2 // 3} | {1000 * whole:.0f} ms | {1000 * small:.0f} ms | {small / whole:.2f}x |"
        )
    flops = estimate(load_recipe("F-base")).model_flops
    a100, h100 = (UTILISATION * card / flops for card in (A100, H100))
    return f"""# What reading costs

Made by `make bench-decoding` ({platform.machine()}, one thread, PyAV {av.__version__}): processor time a clip of
{WIDTH}x{HEIGHT}, {SECONDS} s, {RATE} frames a second and 1.1 Mb/s, of which 16 frames are drawn, resized and cropped to
512x320 as F-base does. Medians of {ROUNDS}, in turns.

| clips | processor time | |
| --- | --- | --- |
| two ffmpeg programs, as 0.2.0 | {pipe:.3f} s | 1.00x |
| PyAV, one thread | {pyav:.3f} s | {pyav / pipe:.2f}x |

The frames are the same to the bit: `tests/training/test_media.py` compares them over codecs, rates (constant or not),
rotations and depths. Rate and length are in the container's header, which is read on opening anyway (2 ms): there is
no probe any more that an index of them would save.

| photographs (JPEG) | whole | halved by the decoder | |
| --- | --- | --- | --- |
{chr(10).join(photos)}

## How many cores a GPU wants

A clip of F-base is {flops / 1e12:.1f} TFLOP, so at {100 * UTILISATION:.0f} % of the data sheet's bf16 rate, the share
that `check` assumes too,

| | clips a second | cores that decode |
| --- | --- | --- |
| an A100 | {a100:.1f} | {a100 * pyav:.1f} |
| an H100 | {h100:.1f} | {h100 * pyav:.1f} |

A core gives {1 / pyav:.1f} clips a second. `data.workers` is the number of readers of each process, a core each where
they are busy; the recipes have 4. A run tells whether they suffice: `data_wait` in the progress bar is the share of
time that it waited for data, and should be near 0. Clips take longer in proportion to their pixels and to the distance
of their key frames; where the cores do not suffice, `prepare` decodes once.
"""


def main() -> None:
    argparse.ArgumentParser(prog="python -m bench.decoding", description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        DOCS.write_text(report(Path(folder)), encoding="utf-8")
    print(DOCS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
