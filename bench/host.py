"""The pack as a guest: what it adds to ComfyUI's start-up, memory over a hundred prompts, torch.compile.

`make bench-host` writes docs/host.md.
"""

from __future__ import annotations

import argparse
import platform
import re
import statistics
import sys
from pathlib import Path

from tqdm import tqdm

from bench import sections
from scripts.client import Client, PromptError
from scripts.comfyui import PACK_NAME, ROOT, Server
from tests.host.graphs import base, ksampler, node, run_for_latent, vc2_sampler

STARTS, PROMPTS, WARM_UP = 3, 100, 10
MINIATURE = "vc2-tiny.safetensors"


def import_seconds(log: str) -> float:
    """From ComfyUI's own list of import times."""
    line = re.search(rf"([\d.]+) seconds: .*{re.escape(PACK_NAME)}", log)
    if not line:
        raise RuntimeError(f"the server's log has no import time for {PACK_NAME}")
    return float(line[1])


def growth(server: Server, client: Client) -> list[float]:
    """Resident MiB of the server after each of the prompts, every one with a seed and a length of its own."""
    sizes = []
    for k in tqdm(range(PROMPTS), desc="prompts", unit="prompt"):
        graph = base(MINIATURE, frames=4 + k % 5, size=64)
        graph["sampler"] = vc2_sampler(seed=k, steps=2) if k % 2 else ksampler(seed=k, steps=2)
        graph["decode"] = node("VAEDecode", samples=["sampler", 0], vae=["load", 2])
        graph["save"] = node("VC2SaveVideo", images=["decode", 0], fps=10.0, filename_prefix="growth", format="mp4")
        client.run(graph)
        sizes.append(server.rss / 2**20)
    return sizes


def compiled(client: Client) -> str:
    """What the stock TorchCompileModel does to a result, as a phrase."""
    graph = base(MINIATURE, frames=4, size=64)
    plain = run_for_latent(client, graph | {"sampler": ksampler(steps=2)})
    graph["compile"] = node("TorchCompileModel", model=["load", 0], backend="inductor")
    try:
        found = run_for_latent(client, graph | {"sampler": ksampler(steps=2, model=["compile", 0])})
    except PromptError as error:
        return f"fails: {str(error).splitlines()[0][:200]}"
    return f"works; the result differs by {float((found - plain).norm() / plain.norm()):.1e} (relative RMS)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "host.md")
    args = parser.parse_args()
    times = []
    for _ in range(STARTS):
        with Server(cpu=True) as server:
            times.append(import_seconds(server.log))
    with Server(cpu=True) as server:
        client = Client(server.url)
        sizes = growth(server, client)
        inductor = compiled(client)
    settled = sizes[WARM_UP:]
    half = len(settled) // 2
    grown = statistics.mean(settled[half:]) - statistics.mean(settled[:half])
    text = f"""# As a guest in ComfyUI

Made by `make bench-host` ({platform.machine()}, a CPU), with the miniature.

| | |
| --- | --- |
| importing the pack adds to the start | {min(times):.1f} s (least of {STARTS}, by ComfyUI's list; goal 0.3 s) |
| server's memory after {WARM_UP} prompts | {sizes[WARM_UP - 1]:.0f} MiB |
| after {PROMPTS} | {sizes[-1]:.0f} MiB |
| mean of the last {len(settled) - half} prompts less that of the {half} before them | {grown:+.1f} MiB |
| torch.compile, through the stock TorchCompileModel (inductor) | {inductor} |
"""
    sections.begin(args.out, text)
    print(text)
    if min(times) > 0.3 or grown > 20:
        sys.exit("the pack costs more than it should")


if __name__ == "__main__":
    main()
