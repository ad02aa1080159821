"""A checkpoint of the official size and layout (random weights, fp16) through a real ComfyUI: load time and peak
memory. `make bench-full-size`.

Reading the file once with nothing else (the least that any loader must do) is measured in the same run. Writes
docs/full_size.md. Needs 4 GB of disk and about 12 GB of memory; on a GPU the sampler runs there.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import threading
import time
from pathlib import Path

import psutil
import torch

from scripts.client import Client
from scripts.comfyui import Server
from vc2.files import checkpoint
from vc2.networks.autoencoder import AutoencoderKL
from vc2.networks.config import UNetConfig
from vc2.networks.text import TextEncoder
from vc2.networks.unet import VideoUNet
from vc2.sampling.schedule import NoiseSchedule

ROOT = Path(__file__).parent.parent
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
            state[name] = (
                torch.rand(tensor.shape, generator=generator, dtype=torch.float32).sub_(0.5).mul_(2 * spread)
            ).half()
    return state


def write_checkpoint(path: Path) -> None:
    networks = {
        "unet": VideoUNet(UNetConfig.vc2(), device="meta"),
        "vae": AutoencoderKL(device="meta"),
        "text": TextEncoder(device="meta"),
    }
    checkpoint.save(
        path, **{name: random_weights(network) for name, network in networks.items()}, schedule=NoiseSchedule()
    )


class Peak:
    """The largest resident memory of a process while in the `with` block. Mapped file pages count, although the system
    may drop them at any time.
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


def graph(name: str, steps: int) -> dict:
    def node(kind, **inputs):
        return {"class_type": kind, "inputs": inputs}

    return {
        "load": node("VC2LoadCheckpoint", ckpt_name=name, weight_dtype="default"),
        "text": node("CLIPTextEncode", clip=["load", 1], text="a panda playing guitar"),
        "none": node("CLIPTextEncode", clip=["load", 1], text=""),
        "condition": node("VC2VideoConditioning", positive=["text", 0], negative=["none", 0], fps=28, frames_per_clip=0),
        "latent": node("VC2EmptyLatentVideo", width=128, height=128, frames=16, clips=1),
        "sampler": node(
            "VC2Sampler", model=["load", 0], positive=["condition", 0], negative=["condition", 1], latent=["latent", 0],
            seed=0, steps=steps, guidance=12.0, eta=1.0, denoise=1.0,
        ),
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["load", 2]),
        "save": node("VC2SaveVideo", images=["decode", 0], fps=10.0, filename_prefix="full_size", format="mp4"),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vc2-full-size-") as folder:
        base = Path(folder)
        file = base / "models" / "checkpoints" / "full-size.safetensors"
        write_checkpoint(file)
        size = file.stat().st_size
        read = _seconds(lambda: _read_through(file))
        with Server(base=base) as server:
            client, idle = Client(server.url), server.rss
            memory = psutil.Process(server.pid).memory_info()
            idle_own = memory.rss - memory.shared
            only_load = {k: v for k, v in graph(file.name, 2).items() if k in ("load", "text")}
            only_load["show"] = {
                "class_type": "VC2VideoConditioning",
                "inputs": {"positive": ["text", 0], "negative": ["text", 0], "fps": 28, "frames_per_clip": 0},
            }
            only_load["latent"] = {
                "class_type": "VC2EmptyLatentVideo",
                "inputs": {"width": 16, "height": 16, "frames": 1, "clips": 1},
            }
            only_load["decode"] = {"class_type": "VAEDecode", "inputs": {"samples": ["latent", 0], "vae": ["load", 2]}}
            only_load["save"] = {"class_type": "PreviewImage", "inputs": {"images": ["decode", 0]}}
            with Peak(server.pid) as loading:
                load = _seconds(lambda: client.run(only_load, timeout=1800))
            with Peak(server.pid) as sampling:
                sample = _seconds(lambda: client.run(graph(file.name, 2), timeout=3600))
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"{torch.get_num_threads()} CPU cores ({platform.machine()})"
    )
    rows = [
        ("file", f"{size / GIB:.2f} GiB", "1"),
        ("reading the file once, nothing else", f"{read:.1f} s", ""),
        ("loading MODEL, CLIP and VAE in ComfyUI, one latent decoded", f"{load:.1f} s", f"{load / read:.1f} x reading"),
        ("server before", f"{idle / GIB:.2f} GiB", f"{idle / size:.2f}"),
        (
            "peak while loading, resident",
            f"{loading.rss / GIB:.2f} GiB",
            f"{(loading.rss - idle) / size:.2f} above the server",
        ),
        (
            "of that its own, not the mapped file",
            f"{loading.anonymous / GIB:.2f} GiB",
            f"{(loading.anonymous - idle_own) / size:.2f} above the server",
        ),
        ("16 frames of 128x128, 2 steps with guidance, decoded and saved", f"{sample:.1f} s", ""),
        (
            "peak while sampling, resident",
            f"{sampling.rss / GIB:.2f} GiB",
            f"{(sampling.rss - idle) / size:.2f} above the server",
        ),
    ]
    table = "\n".join(f"| {a} | {b} | {c} |" for a, b, c in rows)
    text = f"""# The full-size model through a real ComfyUI

Made by `make bench-full-size` on {device}, torch {torch.__version__.split("+")[0]}: a checkpoint with the official names and shapes and random fp16 weights.
The file is mapped: its pages count as resident while they are read, but the system takes them back when memory is short. What the process needs is "its own".

| what | measured | as a share of the file |
| --- | --- | --- |
{table}
"""
    (args.out / "full_size.md").write_text(text)
    print(text)


def _seconds(action) -> float:
    start = time.monotonic()
    action()
    return time.monotonic() - start


def _read_through(file: Path) -> None:
    with open(file, "rb", buffering=0) as stream:
        buffer = bytearray(2**24)
        while stream.readinto(buffer):
            pass


if __name__ == "__main__":
    main()
