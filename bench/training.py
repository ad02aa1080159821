"""Time a step and peak memory of the trainer, against a plain loop over the official UNet in the same run. Writes
the beginning of docs/training.md, whose sections have benches of their own.

    VIDEOCRAFTER_PATH=/path/to/VideoCrafter make bench-training

The plain loop is what one would write without this package: the official `openaimodel3d.UNetModel` (its code is read
from VIDEOCRAFTER_PATH, nothing of it is kept here), AdamW, MSE on epsilon, random latents already in memory. The
trainer does the same step with everything that it adds: prepared data from disk, the joint objective, the average of
the weights, checks, logging. Each runs in a process of its own, in turns; time is the processor's, so that what else
runs on the machine counts little.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from bench import machine, official, sections
from bench.performance import keep
from bench.tables import machines
from vc2.networks.config import UNetConfig, as_config

ROOT = Path(__file__).parent.parent
# Everything of VideoCrafter2 but its width.
SHAPE = {"model_channels": 64, "num_head_channels": 16, "context_dim": 64}
BATCH, FRAMES, SIDE = 2, 16, 16
ROUNDS, STEPS, WARM_UP = 3, 6, 2


def plain() -> dict[str, float]:
    """A training loop over the official UNet."""
    torch.manual_seed(0)
    unet = official.unet(as_config(UNetConfig, SHAPE))
    optimizer = torch.optim.AdamW(unet.parameters(), 5e-5)
    x, context = torch.randn(BATCH, 4, FRAMES, SIDE, SIDE), torch.randn(BATCH, 77, SHAPE["context_dim"])
    times = []
    for _ in range(STEPS):
        start = time.process_time()
        t = torch.randint(1000, (BATCH,))
        eps = unet(torch.randn_like(x), t, context=context, fps=torch.full((BATCH,), 8))
        torch.nn.functional.mse_loss(eps, torch.randn_like(x)).backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.process_time() - start)
    return {"seconds": min(times[WARM_UP:]), "peak": peak(), "parameters": sum(p.numel() for p in unet.parameters())}


def ours(folder: Path, changes: dict) -> dict[str, float]:
    """The trainer on the same shapes."""
    from tests import standin
    from vc2.training.loop import Trainer
    from vc2.training.prepare import prepare
    from vc2.training.recipe import Recipe

    # A whole checkpoint with weights in every layer: behind a fresh UNet's zero output nothing but that would have a
    # gradient. Written by another process, so that this one's peak is of training alone.
    start = str(folder / "start.safetensors")
    writer = multiprocessing.get_context("spawn").Process(
        target=standin.write, args=(Path(start),), kwargs={"config": as_config(UNetConfig, SHAPE)}
    )
    writer.start()
    writer.join()
    data = {
        "clips": {"kind": "procedural", "count": 20, "prepared": "moments and text"},
        "width": 8 * SIDE,
        "height": 8 * SIDE,
        "lengths": [[FRAMES, 1, 1]],
        "workers": 0,
        "held_out": 0,
    }
    settings = {"trackers": [], "validation": {"every": 0}, "save_every": 1000, "init": {"unet": start}, "data": data}
    recipe = Recipe.model_validate({"name": "bench", "steps": STEPS, "batch": BATCH, **settings, **changes})
    prepare(recipe, folder / "cache")
    trainer = Trainer(recipe, folder / "run", folder / "cache")
    batches, times = trainer.objective.batches(0, 0, 1), []
    for _ in range(STEPS):
        begun = time.process_time()
        batch = next(batches)
        trainer.train_step(batch)
        times.append(time.process_time() - begun)
        expected, shape = (BATCH, FRAMES, 8, SIDE, SIDE), tuple(batch.frames.shape)
        if shape != expected:
            raise RuntimeError(f"the plain loop computes {expected} (clips, frames, moments), and the trainer {shape}")
    return {
        "seconds": min(times[WARM_UP:]),
        "peak": peak(),
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
    }


def peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


KINDS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, gradient checkpointing": {"compute": {"gradient_checkpointing": True}},
    "ours, spatial only": {"learn": {"part": "spatial"}},
    "ours, spatial LoRA": {"learn": {"part": "spatial", "how": "lora"}},
}


def measure(kind: str) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.training", "--only", kind]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{kind}: {result.stderr.strip()[-500:]}")
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="measure one kind in this process, and print it as JSON")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "training.md")
    args = parser.parse_args()
    official.require()
    torch.set_num_threads(1)
    if args.only:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(plain() if args.only == "plain" else ours(Path(folder), KINDS[args.only])))
        return
    kinds, facts = ["plain", *KINDS], machine.facts(torch.device("cpu"))
    measured: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for _ in range(ROUNDS):
        for kind in kinds:
            measured[kind].append(measure(kind))
    figures = [{"kind": kind, "rounds": rows} for kind, rows in measured.items()]
    keep(args.out.parent / "performance" / "training.json", figures, facts, key="kind")
    # The least of the rounds: what another program took from the machine can only add.
    least = {kind: {key: min(row[key] for row in rows) for key in rows[0]} for kind, rows in measured.items()}
    base = least["plain"]
    rows = "\n".join(
        f"| {'official UNet, plain loop' if kind == 'plain' else kind} | {v['parameters'] / 1e6:.1f} M |"
        f" {v['seconds']:.2f} s | {v['seconds'] / base['seconds']:.2f}x | {v['peak']:.0f} MiB |"
        f" {v['peak'] / base['peak']:.2f}x |"
        for kind, v in least.items()
    )
    sections.begin(
        args.out,
        f"""# What a training step takes

Made by `make bench-training`, on a CPU: {BATCH} clips of {FRAMES} frames of {SIDE}x{SIDE} latents, VideoCrafter2's UNet
at a fifth of its width, in float32. Processor time, the least of {ROUNDS} rounds in turns; peak is the process's. The
networks alone, in one and the same loop, stand in [performance](performance.md#on-a-cpu).

| | parameters | step | | peak memory | |
| --- | --- | --- | --- | --- | --- |
{rows}

The official UNet runs without xformers, as it does on a CPU. The plain loop has its batch in memory and keeps no
average of the weights; the trainer reads latents and captions from disk, averages (one more copy of what learns), and
checks loss and gradient before each step.

0.2.0's table said 0.36x of the time and half of the memory: its trainer's clips were 8x8 latents, whatever the recipe
asked for, a quarter of what the plain loop computed. The bench refuses other shapes now.

{machines([{"facts": facts}])}
""",
    )
    print(args.out.read_text())


if __name__ == "__main__":
    main()
