"""`python -m vc2.training profile`: where the time of a step goes, on the recipe's own data. Nothing is trained.

The parts of a step are named where they are computed (`record_function`). On a GPU, which works while the processor is
already elsewhere, each part is told by both: how long the processor was at it, and how long the kernels took that it
launched.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, record_function
from torch.profiler import profile as torch_profile

from .errors import RecipeError
from .loop import Trainer
from .recipe import Recipe

WARM_UP = 2  # steps that are not measured: allocators and kernels settle
STEP = "step"
WITHIN_LOSS = ("encode frames", "encode captions", "teacher", "target", "network")
# In the order of a step; "loss" holds those, and what it does besides is its own.
PARTS = (
    "wait for data",
    "encode frames",
    "encode captions",
    "teacher",
    "target",
    "network",
    "loss",
    "backward",
    "clip gradients",
    "exchange figures",
    "optimizer",
    "average",
)
MEANING = {
    "wait for data": "reading and decoding, as far as readers are behind",
    "encode frames": "the autoencoder, where latents are not prepared",
    "encode captions": "the text encoder, where captions are not prepared",
    "teacher": "the model that is distilled, with the caption and without",
    "target": "the UNet at the other end of the step, forward",
    "network": "the UNet, forward",
    "loss": "noise, timesteps and the error",
    "backward": "with what gradient checkpointing computes again, and the gradients' exchange",
    "exchange figures": "waiting for the other processes",
}


def profile(recipe: Recipe, folder: Path, cache: Path, steps: int) -> Iterator[str]:
    """Lines of a table: of `steps` steps from the start, in milliseconds each. Writes it to `folder`/profile/table.txt,
    and trace.json.gz beside it, which chrome://tracing and ui.perfetto.dev show. Raises RecipeError.
    """
    if recipe.steps <= WARM_UP:
        raise RecipeError(f"steps {recipe.steps}: a profile needs more than the {WARM_UP} that warm up")
    if not 0 < steps <= recipe.steps - WARM_UP:
        raise RecipeError(f"--steps {steps}: expected 1 to {recipe.steps - WARM_UP}, the recipe's less {WARM_UP}")
    # In a folder of its own, so that a run that is there neither goes on nor changes.
    folder = folder / "profile"
    trainer = Trainer(recipe.model_copy(update={"trackers": ()}), folder, cache)
    rank, world = trainer.accelerator.process_index, trainer.accelerator.num_processes
    with closing(trainer.objective.batches(0, rank, world)) as batches:
        profiler = _measured(trainer, batches, steps)
    lines = list(table(profiler.events(), steps, recipe, world))
    if trainer.accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(folder / "trace.json.gz"))
        operations = profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=20)
        (folder / "table.txt").write_text("\n".join([*lines, "", operations]), encoding="utf-8")
        yield from lines
        yield f"{folder}: table.txt has the slowest operations too, and ui.perfetto.dev shows trace.json.gz"
    trainer.part()


def _measured(trainer: Trainer, batches: Iterator[Any], steps: int) -> torch_profile:
    """`steps` steps, after others to warm up."""
    for _ in range(WARM_UP):
        trainer.train_step(next(batches))
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with torch_profile(activities=activities, acc_events=True) as profiler:
        for _ in range(steps):
            with record_function(STEP):
                with record_function("wait for data"):
                    batch = next(batches)
                trainer.train_step(batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    return profiler


def table(events: Any, steps: int, recipe: Recipe, processes: int) -> Iterator[str]:
    """Of the profiler's events: each part's share of the time of a step."""
    host, device = seconds(events)
    whole, busy = host.pop(STEP), sum(device.values())
    rows = [(part, host[part], device[part], MEANING.get(part, "")) for part in PARTS if part in host]
    rows.append(("the rest", whole - sum(host.values()), device[STEP], ""))
    yield f"{recipe.name}: {whole / steps * 1e3:,.1f} ms a step of {recipe.batch} on {processes}, the mean of {steps}"
    yield f"{'':18}{'ms':>10}{'share':>8}" + (f"{'device ms':>12}" if busy else "")
    for part, on_host, on_device, meaning in rows:
        line = f"{part:18}{on_host / steps * 1e3:10.1f}{on_host / whole:8.0%}"
        yield (line + (f"{on_device / steps * 1e3:12.1f}" if busy else "") + f"  {meaning}").rstrip()
    if busy:
        yield f"the device was busy for {busy / whole:.0%} of the time"


def seconds(events: Any) -> tuple[dict[str, float], dict[str, float]]:
    """How long the processor was at each part, and how long the kernels took that were launched in it; the innermost
    part counts.
    """
    spans = sorted(
        (event.time_range.start, event.time_range.end, event.name)
        for event in events
        if event.name in (*PARTS, STEP) and event.device_type == torch.autograd.DeviceType.CPU
    )
    host: dict[str, float] = defaultdict(float)
    device: dict[str, float] = defaultdict(float)
    for start, end, name in spans:
        host[name] += (end - start) * 1e-6
    host["loss"] -= sum(host.get(part, 0.0) for part in WITHIN_LOSS)
    starts = [start for start, _, _ in spans]
    for event in events:
        if not event.kernels:
            continue
        at = event.time_range.start  # the backward pass launches from a thread of its own: time alone tells the part
        k = bisect.bisect_right(starts, at) - 1
        while k >= 0 and spans[k][1] < at:
            k -= 1
        if k >= 0:
            device[spans[k][2]] += sum(kernel.duration for kernel in event.kernels) * 1e-6
    return host, device
