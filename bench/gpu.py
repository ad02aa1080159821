"""The goals for one GPU, in one call of under eight minutes. Writes docs/performance/goals.json and
docs/performance.md.

    make bench-gpu

Weights are random, of the official size and layout. What does not fit into the time that is left is left out, and says
so; so does what fails, and what is stopped because it takes too long. Each result is on disk as soon as it is there:
Ctrl-C leaves those. `--tiny` tries the bench itself on any machine, with small networks; it writes what it finds beside
nothing, in a folder that `--out` names.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench import machine, performance_report, training_gpu
from bench.cases import Case
from bench.full_size import write_checkpoint
from bench.performance import keep
from bench.stages import Found, Stage, stages
from bench.tables import NOT_MEASURED, rows_in
from bench.workloads import Networks, Row, measure
from scripts.client import Client
from scripts.comfyui import Server
from tests import standin
from tests.host.graphs import base, node, vc2_sampler
from vc2.networks.attention import torch_attention
from vc2.networks.compiled import compile_layers
from vc2.networks.unet import PEAK
from vc2.pipeline import Settings, TextToVideo, override

ROOT = Path(__file__).parent.parent
LIMIT = 460  # seconds, from the process's start
GRACE = 15  # seconds after which a call that hangs in spite of all is over, too


@dataclass
class Bench:
    folder: Path
    device: torch.device
    tiny: bool

    @cached_property
    def case(self) -> Case:
        full = Case("guided step", "full", 16, 512, 320, "bf16")
        return replace(full, network="fifth", frames=4, width=64, height=64, precision="fp32") if self.tiny else full

    @cached_property
    def checkpoint(self) -> Path:
        path = self.folder / "models" / "checkpoints" / "model.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():  # written whole, by a process that was ended since
            return path
        if self.tiny:
            standin.write(path)
        else:
            write_checkpoint(path)
        return path

    @cached_property
    def step(self) -> Row:
        return measure(
            self.case, Networks(self.case.network, self.device, with_official=False), rounds=1 if self.tiny else 5
        )

    @cached_property
    def compiled_step(self) -> Row:
        case = replace(self.case, compiled=not self.tiny)
        return measure(case, Networks(case.network, self.device, with_official=False), rounds=1 if self.tiny else 5)

    @cached_property
    def model(self) -> TextToVideo:
        model = TextToVideo(self.checkpoint, self.device, torch.float32 if self.tiny else torch.bfloat16)
        if not self.tiny:
            compile_layers(model.unet)
        return model

    def leave_device(self) -> None:
        """What another process measures shall have all of it."""
        self.__dict__.pop("model", None)
        gc.collect()
        torch.cuda.empty_cache()

    @property
    def settings(self) -> Settings:
        return override(Settings(), frames=self.case.frames, width=self.case.width, height=self.case.height)

    def clip_seconds(self, **changes: float) -> float:
        settings = override(self.settings, **changes)
        self.model(["a cat"], [0], replace(settings, steps=1))  # compiles
        return machine.seconds(lambda: self.model(["a cat"], [0], settings), self.device)


def guided_step(bench: Bench) -> Found:
    return milliseconds(bench.step), ""


def compiled_step(bench: Bench) -> Found:
    return milliseconds(bench.compiled_step), "not compiled" if bench.tiny else ""


def milliseconds(row: Row) -> str:
    return f"{1000 * min(row.seconds['ours']):.0f} ms"


def clip(bench: Bench) -> Found:
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = bench.clip_seconds(steps=2 if bench.tiny else 50)
    return f"{seconds:.2f} s", f"{bench.case.precision}, text encoder included"


def four_steps(bench: Bench) -> Found:
    """T2V-Turbo's passes are the UNet's own, one a step; its weights are not needed to time them."""
    return f"{bench.clip_seconds(steps=4, guidance=1.0, eta=0.0):.2f} s", "one pass a step, as T2V-Turbo's"


def clip_peak(bench: Bench) -> Found:
    if bench.device.type != "cuda":
        raise NotImplementedError("no GPU")
    bench.clip_seconds(steps=2)
    return f"{torch.cuda.max_memory_allocated() / 1e9:.2f} GB", "all three networks on the card"


def estimate(bench: Bench) -> Found:
    case, peak = bench.case, bench.step.peak
    if peak is None:
        raise NotImplementedError("no GPU")
    counted = PEAK * 2 * case.frames * (case.height // 8) * (case.width // 8) * 2
    return f"{peak / counted:.2f}", f"measured {peak / 2**20:.0f} MiB"


class HostStep:
    """A guided step in ComfyUI: seconds, from runs of two lengths, and the device's memory at its most (bytes)."""

    def __init__(self, bench: Bench, *arguments: str):
        few, many = (1, 3) if bench.tiny else (2, 12)
        bench.checkpoint  # noqa: B018 (written before the server looks)
        bench.leave_device()
        rounds = 1 if bench.tiny else 3
        with Server(base=bench.folder, extra_args=arguments, cpu=True if bench.tiny else None) as server:
            client = Client(server.url)
            with _DevicePeak(bench.device) as peak:
                client.run(self._graph(bench, few, 0))  # loads
                times = [
                    [_wall(partial(client.run, self._graph(bench, steps, seed))) for steps in (few, many)]
                    for seed in range(1, 1 + rounds)
                ]
        each = [(longer - shorter) / (many - few) for shorter, longer in times]
        self.seconds, self.peak = statistics.median(each), peak.bytes

    @staticmethod
    def _graph(bench: Bench, steps: int, seed: int) -> dict:
        graph = base(bench.checkpoint.name, frames=bench.case.frames)
        graph["latent"]["inputs"] |= {"width": bench.case.width, "height": bench.case.height}
        graph["load"]["inputs"]["weight_dtype"] = "bf16"
        graph["sampler"] = vc2_sampler(seed=seed, steps=steps)
        return graph | {"keep": node("SaveLatent", samples=["sampler", 0], filename_prefix="bench")}


def _wall(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class _DevicePeak:
    """By how much the memory in use on the device, by whomever, rose."""

    def __init__(self, device: torch.device):
        self.device, self.bytes, self._done = device, 0, threading.Event()

    def _used(self) -> int:
        if self.device.type != "cuda":
            return 0
        free, total = torch.cuda.mem_get_info(self.device)
        return total - free

    def __enter__(self) -> _DevicePeak:
        before = self._used()

        def watch() -> None:
            while not self._done.wait(0.01):
                self.bytes = max(self.bytes, self._used() - before)

        self._thread = threading.Thread(target=watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()


def overhead(bench: Bench) -> Found:
    own, host = statistics.median(bench.step.seconds["ours"]), HostStep(bench).seconds
    return f"{host / own - 1:.1%}", f"{1000 * host:.0f} ms a step, all told"


def low_vram(bench: Bench) -> Found:
    step = HostStep(bench, *([] if bench.tiny else ["--lowvram"]))  # which ComfyUI refuses on a CPU
    if not step.peak:
        raise NotImplementedError("no GPU")
    return f"{step.peak / 1e9:.2f} GB", f"{1000 * step.seconds:.0f} ms a step"


def temporal_attention(bench: Bench) -> Found:
    """The first level's, of both prompts: `[B h w, T, heads C]`, which is many short sequences. The network leaves the
    choice to torch, whose own is the first of the note.
    """
    case, dtype = bench.case, torch.float32 if bench.tiny else torch.bfloat16
    rows = 2 * case.height // 8 * case.width // 8
    q, k, v = torch.randn(3, rows, case.frames, 320, device=bench.device, dtype=dtype)
    kernels = {
        "torch's choice": None,
        "flash": SDPBackend.FLASH_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
        "cuDNN": SDPBackend.CUDNN_ATTENTION,
        "products": SDPBackend.MATH,
    }

    def repeated(kernel: SDPBackend | None) -> None:
        with sdpa_kernel(kernel) if kernel else contextlib.nullcontext():
            for _ in range(20):
                torch_attention(q, k, v, 5)

    works: dict[str, Callable[[], object]] = {}
    for name, kernel in kernels.items():
        with contextlib.suppress(RuntimeError):  # of those that are not for this device or this shape
            repeated(kernel)
            works[name] = partial(repeated, kernel)
    times = {name: min(each) / 20 for name, each in machine.in_turns(works, bench.device, 3, warm_up=0).items()}
    fastest = min((name for name in times if kernels[name]), key=lambda name: times[name])
    return fastest, ", ".join(f"{name} {1e6 * seconds:.0f} us" for name, seconds in times.items())


def mfu(recipe: str, bench: Bench) -> Found:
    data = bench.folder / "training"
    weights = data / "model.safetensors"  # the last of what is written there
    bench.leave_device()
    if not weights.exists():
        shutil.rmtree(data, ignore_errors=True)
        training_gpu.write_data(data, bench.tiny, clips=8, pictures=32)
        weights.symlink_to(bench.checkpoint)
    command = [sys.executable, "-m", "bench.training_gpu", "--only", recipe, "--folder", str(data)]
    command += ["--miniature"] * bench.tiny + ([] if bench.tiny else ["--set", "steps=12"])
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    result = training_gpu.Result(**json.loads(done.stdout.splitlines()[-1]))
    note = f"{result.step:.2f} s a step, {result.peak:.1f} GB (estimated {result.estimated:.1f})"
    return f"{result.mfu:.1%}" if result.mfu else "unknown peak of this device", note


# By what it takes on an H100, about, in seconds: estimated, until it has run on one. Most wanted first, and what uses
# another's networks next to it. Compiling is some thirty graphs of some two seconds each for a batch of two, prompt and
# negative prompt, and nearly as many again for the batch of one of a pass without guidance.
STAGES: dict[str, tuple[float, Stage]] = {
    "guided step, bf16": (15, guided_step),
    "peak of a guided step against PEAK": (1, estimate),
    "guided step, bf16, compiled": (75, compiled_step),
    "prompt to frames, 50 steps, compiled": (60, clip),
    "peak of prompt to frames, weights included": (5, clip_peak),
    "T2V-Turbo's four steps to frames, compiled": (65, four_steps),
    "ComfyUI's overhead for a step": (45, overhead),
    "peak in ComfyUI with --lowvram": (45, low_vram),
    "kernel of attention over time": (2, temporal_attention),
    "MFU of F-base": (55, partial(mfu, "F-base")),
    "MFU of F-Spa-LORA": (40, partial(mfu, "F-Spa-LORA")),
    "MFU of F-Spa-DIR": (40, partial(mfu, "F-Spa-DIR")),
}


def remember(path: Path, row: dict[str, str], facts: dict[str, Any]) -> None:
    """Keep a stage's row; one that found nothing does not take the place of what an earlier call measured."""
    measured = {old["what"] for old in rows_in(path) if old["found"] != NOT_MEASURED}
    if row["found"] != NOT_MEASURED or row["what"] not in measured:
        keep(path, [row], facts, key="what")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the bench itself; needs --out")
    parser.add_argument("--limit", type=float, default=LIMIT, help=f"seconds for all of it (default: {LIMIT})")
    parser.add_argument("--out", type=Path, help="(default: docs)")
    args = parser.parse_args()
    if not args.tiny and not torch.cuda.is_available():
        sys.exit("there is no CUDA device here; --tiny --out FOLDER tries the bench on a CPU")
    if args.tiny and not args.out:
        sys.exit("--tiny is no measurement: give it a folder of its own with --out")
    age = max(0.0, time.time() - psutil.Process().create_time())  # imports take long on some machines
    left = args.limit - age
    end = time.monotonic() + left
    faulthandler.dump_traceback_later(max(0.0, left) + GRACE, exit=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` means the same as Ctrl-C here
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(os.cpu_count()))
    out, device = args.out or ROOT / "docs", torch.device("cuda" if torch.cuda.is_available() else "cpu")
    facts = machine.facts(device)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="vc2-bench-", ignore_cleanup_errors=True) as folder,
            contextlib.closing(stages(STAGES, Bench(Path(folder), device, args.tiny), end)) as rows,
        ):
            for row in rows:
                remember(out / "performance" / "goals.json", row, facts)
                print(row, flush=True)
    except KeyboardInterrupt:
        sys.exit(f"stopped; what was measured is in {out / 'performance'}")
    finally:
        performance_report.write(out)


if __name__ == "__main__":
    main()
