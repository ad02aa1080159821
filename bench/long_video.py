"""Long clips with the miniature, through a real ComfyUI: how smooth they are and what they cost. Writes docs/long.md
and docs/performance/long.json.

Every method samples the same prompts and seeds with the same guidance and eta; the yardstick is the plain sampler's
16-frame clips. Smoothness is measured on pixels, cost as processor time and as memory, of sampling apart from decoding:
VAE Decode takes all frames at once, whatever sampled them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
import torch
from tqdm import tqdm

from bench import machine
from bench.performance import keep
from bench.tables import machines
from scripts.client import Client
from scripts.comfyui import ROOT, Server
from tests.host.graphs import Graph, base, node, vc2_sampler
from vc2.files.grid import side_by_side
from vc2.files.video import read_video, write_video
from vc2.sampling import fifo, windows
from vc2.sampling.schedule import NoiseSchedule

PROMPTS = (
    "a red circle moving right",
    "a blue square moving up",
    "a yellow circle moving left",
    "a green cross moving down",
    "a purple triangle moving right",
    "a white square moving up",
)
METHODS = ("FreeNoise", "overlap", "looped", "FIFO")
# Overlapping windows start from unrelated noise: each shows its own movement, and where one movement ends and the next
# begins there is a larger step.
SEAMLESS = ("FreeNoise", "FIFO")
LENGTHS = (64, 128)
STEPS, WINDOW, OVERLAP, PARTITIONS = 25, 16, 12, 4
SETTINGS = {"guidance": 4.0, "eta": 0.0}
THREADS = {"OMP_NUM_THREADS": "1"}  # those that wait for one another would count as processor time
# The allocator gives memory back at once, so that no run starts with what another left. That costs processor time, so
# memory and time are measured in servers of their own.
FRUGAL = {"MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "65536"}
FLAT = 16  # MiB that FIFO may need beyond the plain sampler


def sampling(method: str, frames: int, prompt: str, seed: int) -> Graph:
    """An API prompt that ends with the latent."""
    out = base("vc2-tiny.safetensors", frames, 64, fps=16)
    out["positive"]["inputs"]["text"] = prompt
    out["sampler"] = vc2_sampler(seed=seed, steps=STEPS, **SETTINGS)
    if method == "FIFO":
        inputs = out["sampler"]["inputs"]
        links = {name: inputs[name] for name in ("model", "positive", "negative", "latent")}
        queue = {"partitions": PARTITIONS, "window": WINDOW}
        out["sampler"] = node("VC2FIFOSampler", **links, **queue, seed=seed, **SETTINGS)
    elif method != "plain":
        out["windows"] = node("VC2ContextWindows", model=["load", 0], mode=method, length=WINDOW, overlap=OVERLAP)
        out["sampler"]["inputs"]["model"] = ["windows", 0]
    return out | {"keep": node("SaveLatent", samples=["sampler", 0], filename_prefix="long")}


def saving(graph: Graph) -> Graph:
    """The same, decoded and saved; the server has the latent in its cache."""
    return graph | {
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["load", 2]),
        "save": node("VC2SaveVideo", images=["decode", 0], fps=10.0, filename_prefix="long", format="mp4"),
    }


def passes(method: str, frames: int) -> float:
    """How often a frame goes through the network, on average over the clip (each time with and without its prompt)."""
    if method == "FIFO":
        seen = []

        def denoise(x, t, numbers):
            seen.append(x.shape[2])
            return x

        x_T = torch.zeros(1, 1, frames, 1, 1)
        fifo.sample(denoise, x_T, NoiseSchedule(), WINDOW, PARTITIONS, SETTINGS["eta"])
        return sum(seen) / frames
    if method in ("overlap", "looped"):
        return STEPS * sum(map(len, windows.cover(frames, WINDOW, WINDOW - OVERLAP, method == "looped"))) / frames
    return STEPS


def steps(clip: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each frame from the one before, `[T - 1]`."""
    return np.abs(np.diff(clip.astype(np.float32), axis=0)).mean((1, 2, 3))


def largest_in_window(clip: np.ndarray) -> float:
    """The largest step in `WINDOW` neighbouring frames, the mean over all such stretches of the clip.

    The largest of a whole clip grows with its length alone, so it says nothing against a clip of 16 frames.
    """
    return float(np.lib.stride_tricks.sliding_window_view(steps(clip), WINDOW - 1).max(1).mean())


class Usage:
    """Processor time (s) and by how much resident memory peaked (MiB) of a process within the `with` block (Linux)."""

    def __init__(self, pid: int):
        self.process, self.folder = psutil.Process(pid), Path("/proc", str(pid))

    def __enter__(self) -> Usage:
        (self.folder / "clear_refs").write_text("5")  # the peak starts from here
        self._start = self._now()
        return self

    def __exit__(self, *error: object) -> None:
        seconds, _ = self._now()
        line = next(line for line in (self.folder / "status").read_text().splitlines() if line.startswith("VmHWM"))
        self.seconds = seconds - self._start[0]
        self.memory = int(line.split()[1]) / 1024 - self._start[1]

    def _now(self) -> tuple[float, float]:
        times = self.process.cpu_times()
        return times.user + times.system, self.process.memory_info().rss / 2**20


@dataclass
class Measured:
    """Of a setting: clips and means over the prompts, memory (MiB) of one of them; `facts`: where it was measured."""

    clips: list[np.ndarray]
    mean_step: float
    largest_in_window: float
    largest_step: float
    seconds: float
    facts: dict[str, Any]
    sampling: float
    decoding: float

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("clips", "facts")}


def timed(server: Server, method: str, frames: int, prompts: Sequence[str]) -> dict[str, Any]:
    """The clips, how smooth they are, and what sampling them took of the processor."""
    client, clips, seconds = Client(server.url), [], []
    for seed, prompt in enumerate(prompts):
        graph = sampling(method, frames, prompt, seed)
        with Usage(server.pid) as usage:
            client.run(graph, timeout=3600)
        seconds.append(usage.seconds)
        file = client.run(saving(graph), timeout=3600).files[-1]
        clips.append(read_video(server.output / file.subfolder / file.filename))
    return {
        "clips": clips,
        "mean_step": float(np.mean([steps(clip).mean() for clip in clips])),
        "largest_in_window": float(np.mean([largest_in_window(clip) for clip in clips])),
        "largest_step": float(np.mean([steps(clip).max() for clip in clips])),
        "seconds": float(np.mean(seconds)),
    }


def peaks(server: Server, method: str, frames: int, prompts: Sequence[str]) -> dict[str, Any]:
    """The memory of one clip, of sampling apart from decoding: what is drawn makes no difference to it."""
    client, graph = Client(server.url), sampling(method, frames, prompts[0], 0)
    with Usage(server.pid) as sampled:
        client.run(graph, timeout=3600)
    with Usage(server.pid) as decoded:
        client.run(saving(graph), timeout=3600)
    return {"sampling": sampled.memory, "decoding": decoded.memory}


Measure = Callable[[Server, str, int, Sequence[str]], dict[str, Any]]


def store(path: Path, found: dict[str, Any]) -> None:
    figures = dict(found)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".tmp"), "wb") as file:
        np.savez_compressed(file, clips=figures.pop("clips", []), figures=json.dumps(figures))
    path.with_suffix(".tmp").replace(path)


def stored(path: Path) -> dict[str, Any]:
    with np.load(path) as found:
        clips = {"clips": list(found["clips"])} if len(found["clips"]) else {}
        return clips | json.loads(str(found["figures"]))


def all_of(
    measure: Measure, settings: Sequence[tuple[str, int]], prompts: Sequence[str], folder: Path
) -> list[dict[str, Any]]:
    """What `measure` finds of each setting, in a server of its own, and by which code. What an interrupted bench has
    measured is read again.
    """
    paths = {setting: folder / f"{'-'.join(map(str, setting))}-{measure.__name__}.npz" for setting in settings}
    missing = [setting for setting, path in paths.items() if not path.is_file()]
    if missing:
        environment = THREADS | (FRUGAL if measure is peaks else {})
        with patch.dict(os.environ, environment), Server(cpu=True) as server:
            facts = machine.facts(torch.device("cpu"))
            Client(server.url).run(saving(sampling("plain", WINDOW, "", 0)))  # everything is loaded
            for setting in tqdm(missing, desc=measure.__name__, unit="setting"):
                store(paths[setting], {**measure(server, *setting, prompts), "facts": facts})
    return [stored(path) for path in paths.values()]


def row(method: str, frames: int, found: Measured, yard: Measured) -> str:
    time = found.seconds / frames / (yard.seconds / WINDOW)
    cells = [
        method,
        str(frames),
        f"{found.mean_step:.2f} ({found.mean_step / yard.mean_step:.2f}x)",
        f"{found.largest_in_window:.2f} ({found.largest_in_window / yard.largest_in_window:.2f}x)",
        f"{found.largest_step:.2f}",
        f"{passes(method, frames):.0f} ({passes(method, frames) / STEPS:.2f}x)",
        f"{time:.2f}x",
        f"{found.sampling:.0f} MiB",
        f"{found.decoding:.0f} MiB",
    ]
    return f"| {' | '.join(cells)} |"


def shortfalls(results: dict[tuple[str, int], Measured]) -> list[str]:
    """What a method promises and did not do."""
    yard = results["plain", WINDOW]
    return [
        *(
            f"{method}, {frames} frames: larger steps than the plain sampler's within {WINDOW} frames"
            for (method, frames), found in results.items()
            if method in SEAMLESS and found.largest_in_window > yard.largest_in_window
        ),
        *(
            f"FIFO, {frames} frames: {found.sampling:.0f} MiB to sample, the plain sampler {yard.sampling:.0f}"
            for (method, frames), found in results.items()
            if method == "FIFO" and found.sampling > yard.sampling + FLAT
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.long_video", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder to write into (default: docs)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="(default: all)")
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS, help="frames (default: 64 128)")
    parser.add_argument("--prompts", type=int, default=3, choices=range(1, len(PROMPTS) + 1), help="(default: 3)")
    args = parser.parse_args()
    torch.set_num_threads(1)  # as the server has
    prompts = PROMPTS[: args.prompts]
    folder = ROOT / ".cache" / "bench-long" / str(len(prompts))
    every = [("plain", WINDOW), *((method, frames) for method in args.methods for frames in args.lengths)]
    both = zip(*(all_of(measure, every, prompts, folder) for measure in (timed, peaks)), strict=True)
    results = {setting: Measured(**(b | a)) for setting, (a, b) in zip(every, both, strict=True)}
    for (method, frames), found in results.items():
        setting = {"method": method, "frames": frames, "prompts": len(prompts)}
        row_of = {"setting": setting, **found.as_json()}
        keep(args.out / "performance" / "long.json", [row_of], found.facts, key="setting")
    yard = results["plain", WINDOW]
    table = "\n".join(row(method, frames, found, yard) for (method, frames), found in results.items())
    page = f"""# Long clips: smoothness and cost

Made by `make bench-long`, on a CPU: the miniature through ComfyUI, {len(prompts)} prompts, 64x64 pixels, guidance
{SETTINGS["guidance"]:g} and eta {SETTINGS["eta"]:g} for every method, {STEPS} steps (FIFO: {PARTITIONS} x {WINDOW}
noise levels), windows of {WINDOW} frames that share {OVERLAP}. In brackets: as a ratio to the plain sampler's
{WINDOW}-frame clips of the same prompts and seeds.

| method | frames | mean step | largest in {WINDOW} | of all | passes | time | sampling | decoding |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{table}

- *Mean step*: the mean absolute difference of neighbouring frames (0..255). It is movement: below 1x a clip moves less
  than a short one does, and its steps are smaller for that reason alone.
- *Largest in {WINDOW}*: the largest step in {WINDOW} neighbouring frames, where a seam would show; the mean over all
  such stretches, so that clips of any length compare. *Of all*: the largest of the whole clip; a longer one has more
  chances of a large one.
- *Passes*, counted: how often a frame goes through the network, on average (times two, for the guidance). *Time*: the
  processor time of sampling for each frame of the clip, which does not mind what else the machine does.
- *Sampling*, *decoding*: by how much the server's resident memory peaked meanwhile, for one of the prompts. Stock *VAE
  Decode* takes as many frames at once as fit into free memory, here all, whatever sampled them. FIFO, `overlap` and
  `looped` sample a window at a time; FreeNoise samples all frames at once. Measured in a server of its own, whose
  allocator gives memory back at once; some MiB more or less are the process's own.

`overlap` and `looped` blend windows that start from unrelated noise: each shows its own movement, and where one ends
and the next begins the object jumps. They are for models and loops that need them. For one long take use FreeNoise,
which moves half as much or less, or FIFO, which moves as little and goes through the network more often, for memory.

{args.lengths[0]} frames each, {len(prompts)} prompts a method ({", ".join(args.methods)}):

![clips](long.gif)

{machines([{"facts": found.facts} for found in results.values()])}
"""
    (args.out / "long.md").write_text(page, encoding="utf-8")
    shown = [
        clip.repeat(2, 1).repeat(2, 2) for method in args.methods for clip in results[method, args.lengths[0]].clips
    ]
    labels = [method for method in args.methods for _ in prompts]
    write_video(args.out / "long.gif", side_by_side(shown, labels, 2 * len(prompts)), 10)
    shutil.rmtree(folder)  # the next bench measures its own
    print(table)
    if failed := shortfalls(results):
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
