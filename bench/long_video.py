"""Long clips with the miniature, through a real ComfyUI: do frames follow one another as they do within 16, and what do
they cost? Writes docs/long.md.

Continuity is measured on pixels, as the mean absolute difference of neighbouring frames (0..255): its mean over a clip,
and its largest value, which is where a seam would show. The yardstick is the same model's 16-frame clips, of the same
prompts and seeds, in the same run. Cost is the server's processor time, which does not mind what else the machine does.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

import numpy as np
import psutil
from tqdm import tqdm

from scripts.client import Client
from scripts.comfyui import ROOT, Server
from tests.host.graphs import Graph, base, node, vc2_sampler
from vc2.files.grid import side_by_side
from vc2.files.video import read_video, write_video

PROMPTS = ("a red circle moving right", "a blue square moving up")
METHODS = ("FreeNoise", "overlap", "looped", "FIFO")
# Overlapping windows start from unrelated noise: each shows its own movement, and where one movement ends and the next
# begins there is a larger step.
SEAMLESS = ("FreeNoise", "FIFO")
LENGTHS = (64, 128)


def graph(method: str | None, frames: int, prompt: str, seed: int) -> Graph:
    """An API prompt; `method` None is the plain sampler."""
    settings = {"seed": seed, "guidance": 4.0}
    out = base("vc2-tiny.safetensors", frames, 64, fps=16)
    out["positive"]["inputs"]["text"] = prompt
    out["sampler"] = vc2_sampler(**settings, steps=25, eta=0.0 if method else 1.0)
    out["decode"] = node("VAEDecode", samples=["sampler", 0], vae=["load", 2])
    out["save"] = node("VC2SaveVideo", images=["decode", 0], fps=10.0, filename_prefix="long", format="mp4")
    if method == "FIFO":
        links = {
            "model": ["load", 0],
            "positive": ["condition", 0],
            "negative": ["condition", 1],
            "latent": ["latent", 0],
        }
        out["sampler"] = node("VC2FIFOSampler", **links, **settings, partitions=4, window=16, eta=1.0)
    elif method:
        out["windows"] = node("VC2ContextWindows", model=["load", 0], mode=method, length=16, overlap=12)
        out["sampler"]["inputs"]["model"] = ["windows", 0]
    return out


def steps(clip: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each frame from the one before, `[T - 1]`."""
    return np.abs(np.diff(clip.astype(np.float32), axis=0)).mean((1, 2, 3))


class Peak:
    """Peak resident memory of a process since the last `reset`, in MiB (Linux)."""

    def __init__(self, pid: int):
        self.folder = Path("/proc", str(pid))

    def reset(self) -> None:
        (self.folder / "clear_refs").write_text("5")

    def read(self) -> float:
        line = next(line for line in (self.folder / "status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024


def processor_time(pid: int) -> float:
    """Seconds that a process has computed so far."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    args = parser.parse_args()
    rows, shown, worse = [], [], []
    yard_mean = yard_max = 0.0
    with Server(cpu=True) as server:
        client, peak = Client(server.url), Peak(server.pid)

        def run(method: str | None, frames: int, i: int) -> np.ndarray:
            file = client.run(graph(method, frames, PROMPTS[i], i), timeout=3600).files[-1]
            return read_video(server.output / file.subfolder / file.filename)

        run(None, 16, 0)  # everything is loaded
        for method, frames in tqdm([(None, 16), *((m, n) for m in METHODS for n in LENGTHS)], unit="setting"):
            peak.reset()
            start, before = processor_time(server.pid), server.rss / 2**20
            clips = [run(method, frames, i) for i in range(len(PROMPTS))]
            seconds, memory = (processor_time(server.pid) - start) / len(PROMPTS), peak.read() - before
            mean = float(np.mean([steps(clip).mean() for clip in clips]))
            largest = float(np.mean([steps(clip).max() for clip in clips]))
            if method is None:
                yard_mean, yard_max, yard_seconds = mean, largest, seconds
            elif method in SEAMLESS and (mean > yard_mean or largest > yard_max):
                worse.append(f"{method} {frames}")
            if frames == LENGTHS[0]:
                shown += clips[:2]
            cost = seconds / frames / (yard_seconds / 16)
            continuity = f"{mean:.2f} ({mean / yard_mean:.2f}x) | {largest:.2f} ({largest / yard_max:.2f}x)"
            rows.append(f"| {method or 'plain'} | {frames} | {continuity} | {cost:.2f}x | {memory:.0f} MiB |")
    table = "\n".join(rows)
    (args.out / "long.md").write_text(f"""# Long clips: continuity and cost

Made by `make bench-long` ({platform.machine()}, a CPU): the miniature through ComfyUI, {len(PROMPTS)} prompts, 64x64 pixels. The step is the mean absolute
difference of neighbouring frames (0..255), its mean over a clip and its largest value; in brackets as a ratio to plain 16-frame clips of the same prompts.
Time is the server's processor time a frame, as a ratio to those too. Memory is what the server's resident peak rose by during the runs.

| method | frames | mean step | largest step | time a frame | memory |
| --- | --- | --- | --- | --- | --- |
{table}

FreeNoise and FIFO hold together like a short clip. `overlap` and `looped` blend windows that start from unrelated noise: each shows its own movement, and
where one ends and the next begins the object jumps back (the largest step). They are for models and loops that need them; for one long take use FreeNoise.

64 frames each, two prompts a method ({", ".join(METHODS)}):

![clips](long.gif)
""")
    labels = [f"{method}" for method in METHODS for _ in range(2)]
    write_video(args.out / "long.gif", side_by_side([clip.repeat(2, 1).repeat(2, 2) for clip in shown], labels, 4), 10)
    print(table)
    if worse:
        sys.exit(f"less continuous than 16 frames: {', '.join(worse)}")


if __name__ == "__main__":
    main()
