"""On what a number was measured, and how it is timed: the same for every bench that compares two of a thing."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parent.parent
PACKAGES = ("torch", "xformers", "triton", "open_clip_torch", "numpy")


def facts(device: torch.device) -> dict[str, Any]:
    """Machine, versions, commit and day, as a report keeps them."""
    return {
        "machine": _gpu(device)
        if device.type == "cuda"
        else f"{_processor()}, {torch.get_num_threads()} of its threads",
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **{p: v for p in PACKAGES if (v := _version(p))}},
        "commit": _commit(),
        "day": datetime.date.today().isoformat(),
    }


def _processor() -> str:
    """Its name, and its family and model, since a virtual machine's processors of all ages have one name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "model name" not in facts:
        return platform.machine()
    return f"{facts['model name']} (family {facts.get('cpu family', '?')}, model {facts.get('model', '?')})"


def _gpu(device: torch.device) -> str:
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    """Of the checkout, with a + where files differ from it; "unknown" outside of one."""

    def git(*arguments: str) -> str:
        result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return result.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "vc2", "nodes", "bench", "scripts", "tests")
    return (git("rev-parse", "--short", "HEAD") + "+" * bool(changed)) or "unknown"


def processor_seconds() -> float:
    """Of this process and of those that it waited for: what else runs on the machine counts little."""
    ended = os.times()
    return time.process_time() + ended.children_user + ended.children_system


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """What `work` takes: of a GPU, until it has done all of it; of a CPU, the processor's time."""
    if device.type != "cuda":
        start = processor_seconds()
        work()
        return processor_seconds() - start
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start


def ratio(times: Mapping[str, Sequence[float]], a: str, b: str) -> float:
    """How long `a` takes as a share of `b`: the median over rounds, in each of which both met the same machine."""
    return statistics.median(x / y for x, y in zip(times[a], times[b], strict=True))


def in_turns(
    works: Mapping[str, Callable[[], object]], device: torch.device, rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each of `works` in each round, A B A B: a machine whose speed drifts slows both."""
    for work in works.values():
        for _ in range(warm_up):
            work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds(work, device))
    return times
