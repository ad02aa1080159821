"""The official size and layout (random fp16 weights) through a real ComfyUI: load time and peak memory.

Reading the file once with nothing else (the least that any loader must do) is measured in the same run. Writes
docs/full_size.md. Needs 4 GB of disk and about 12 GB of memory; on a GPU the sampler runs there.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file

from bench import machine
from bench.machine import processor_seconds
from bench.performance import keep
from bench.tables import machines
from scripts.client import Client
from scripts.comfyui import ROOT, Server
from tests.host.graphs import Graph, base, node, vc2_sampler
from vc2.files import checkpoint
from vc2.networks.autoencoder import AutoencoderKL
from vc2.networks.config import UNetConfig
from vc2.networks.text import TextEncoder
from vc2.networks.unet import VideoUNet
from vc2.sampling.schedule import NoiseSchedule

GIB = 2**30


def random_weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """fp16 weights for a module on the meta device, small enough that activations stay finite."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in module.state_dict().items():
        if tensor.ndim < 2:
            state[name] = torch.full(tensor.shape, 1.0 if name.endswith("weight") else 0.0, dtype=torch.float16)
        else:
            spread = tensor[0].numel() ** -0.5
            state[name] = (torch.rand(tensor.shape, generator=generator) - 0.5).mul_(2 * spread).half()
    return state


def write_checkpoint(path: Path) -> None:
    checkpoint.save(
        path,
        unet=random_weights(VideoUNet(UNetConfig.vc2(), device="meta")),
        vae=random_weights(AutoencoderKL(device="meta")),
        text=random_weights(TextEncoder(device="meta")),
        schedule=NoiseSchedule(),
    )


@contextlib.contextmanager
def checkpoint_in(folder: Path | None) -> Iterator[Path]:
    """One of the official size within a folder as ComfyUI has them, written where it is not there yet; None: for as
    long as it is needed.
    """
    with contextlib.nullcontext(folder) if folder else tempfile.TemporaryDirectory(prefix="vc2-") as found:
        file = Path(found) / "models" / "checkpoints" / "full-size.safetensors"
        if not file.is_file():
            write_checkpoint(file)
        yield file


class Peak:
    """The largest resident memory of a process while in the `with` block.

    `rss` counts mapped file pages, although the system may drop them at any time; `anonymous` does not.
    """

    def __init__(self, pid: int):
        self.process, self.rss, self.anonymous = psutil.Process(pid), 0, 0
        self._done = threading.Event()

    def __enter__(self) -> Peak:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            memory = self.process.memory_info()
            self.rss = max(self.rss, memory.rss)
            self.anonymous = max(self.anonymous, memory.rss - memory.shared)


def only_load(name: str) -> Graph:
    """What reads all of MODEL, CLIP and VAE, and does next to nothing with them."""
    out = base(name, frames=1, size=16)
    out["decode"] = node("VAEDecode", samples=["latent", 0], vae=["load", 2])
    return out | {"save": node("PreviewImage", images=["decode", 0])}


def sampled(name: str) -> Graph:
    out = base(name, frames=16, size=128) | {"sampler": vc2_sampler(seed=0, steps=2)}
    out["decode"] = node("VAEDecode", samples=["sampler", 0], vae=["load", 2])
    return out | {"save": node("VC2SaveVideo", images=["decode", 0], fps=10.0, filename_prefix="full", format="mp4")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    parser.add_argument("--folder", type=Path, help="for the checkpoint, which stays and is not written again")
    args = parser.parse_args()
    facts = machine.facts(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    with checkpoint_in(args.folder) as file:
        size = file.stat().st_size
        _read_through(file)  # from the disk, which is not what is compared
        read, read_work = _cost(lambda: _read_through(file))
        _, copied_work = _cost(lambda: _copied(file))
        with Server(base=file.parents[2]) as server:
            client = Client(server.url)
            memory = psutil.Process(server.pid).memory_info()
            began = _processor(server.pid)
            with Peak(server.pid) as loading:
                load = _seconds(lambda: client.run(only_load(file.name), timeout=1800))
            load_work = _processor(server.pid) - began
            with Peak(server.pid) as sampling:
                sample = _seconds(lambda: client.run(sampled(file.name), timeout=3600))
    idle, idle_own = memory.rss, memory.rss - memory.shared

    def above(peak: int, before: int) -> tuple[str, str]:
        return f"{peak / GIB:.2f} GiB", f"{(peak - before) / size:.2f} above the server"

    rows = [
        ("file", f"{size / GIB:.2f} GiB", "1"),
        ("reading the file once, nothing else", f"{read:.1f} s", ""),
        ("of that processor time", f"{read_work:.1f} s", ""),
        (
            "reading it as tensors, each copied; processor time",
            f"{copied_work:.1f} s",
            f"{copied_work / read_work:.1f} x reading",
        ),
        ("loading MODEL, CLIP and VAE in ComfyUI, one latent decoded", f"{load:.1f} s", f"{load / read:.1f} x reading"),
        ("of that processor time", f"{load_work:.1f} s", f"{load_work / read_work:.1f} x reading"),
        ("server before", f"{idle / GIB:.2f} GiB", f"{idle / size:.2f}"),
        ("peak while loading, resident", *above(loading.rss, idle)),
        ("of that its own, not the mapped file", *above(loading.anonymous, idle_own)),
        ("16 frames of 128x128, 2 steps with guidance, decoded and saved", f"{sample:.1f} s", ""),
        ("peak while sampling, resident", *above(sampling.rss, idle)),
    ]
    table = "\n".join(f"| {a} | {b} | {c} |" for a, b, c in rows)
    text = f"""# The full-size model through a real ComfyUI

Made by `make bench-full-size`: a checkpoint with the official names and shapes and random fp16 weights. The file is
mapped: its pages count as resident while they are read, but the system takes them back when memory is short. What the
process needs is "its own". Processor time does not mind what else the machine does.

| what | measured | as a share of the file |
| --- | --- | --- |
{table}

Where loading goes, and how long it takes beside 0.2.0, stands in [performance](performance.md#loading-a-checkpoint).

{machines([{"facts": facts}])}
"""
    (args.out / "full_size.md").write_text(text, encoding="utf-8")
    figures = {
        "seconds": {"read": read, "load": load, "sample": sample},
        "processor": {"read": read_work, "copied": copied_work, "load": load_work},
        "bytes": {"file": size, "server": [idle, idle_own]}
        | {name: [peak.rss, peak.anonymous] for name, peak in (("loading", loading), ("sampling", sampling))},
    }
    keep(args.out / "performance" / "full_size.json", [{"what": "full size", **figures}], facts, key="what")
    print(text)


def _seconds(action: Callable[[], object]) -> float:
    start = time.monotonic()
    action()
    return time.monotonic() - start


def _cost(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and of the processor."""
    began = processor_seconds()
    return _seconds(action), processor_seconds() - began


def _copied(file: Path) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in load_file(file).items()}


def _processor(pid: int) -> float:
    """Seconds of processor time that a process has taken."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _read_through(file: Path) -> None:
    with open(file, "rb", buffering=0) as stream:
        buffer = bytearray(2**24)
        while stream.readinto(buffer):
            pass


if __name__ == "__main__":
    main()
