"""Where the time goes that ComfyUI takes to load a checkpoint with this pack, in turns with an older checkout of it: in
processes with ComfyUI's modules and no server. Writes docs/performance/loading.json and docs/performance.md.

    git worktree add --detach .cache/0.2.0 c0b9ca1
    python -m bench.loading --older .cache/0.2.0 --version 0.2.0

Needs 4 GB of disk and some 8 of memory, and Linux, whose pages it counts.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from bench import machine, performance_report
from bench.full_size import checkpoint_in
from bench.performance import keep
from scripts.comfyui import ROOT, comfyui_tree
from tests.host.inside import import_pack

KINDS = ("seconds", "programs", "system", "pages")  # by the clock; of the processor; how often a page was asked for
STAGES = ("read and checked", "networks built", "numbers copied into them")


def so_far() -> list[float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return [time.perf_counter(), usage.ru_utime, usage.ru_stime, usage.ru_minflt]


def since(began: list[float]) -> list[float]:
    return [now - then for now, then in zip(so_far(), began, strict=True)]


def stages(file: Path, root: Path) -> dict[str, list[float]]:
    """What the three networks of a checkpoint cost the pack in `root`, each of `STAGES` in `KINDS`."""
    import_pack(str(comfyui_tree()), str(root))
    loading = _module("pack.nodes.host.loading", "pack.nodes.host")
    checkpoint = _module("pack.vc2.files.checkpoint", "pack.vc2.checkpoint")
    copying, load_state_dict = [0.0] * len(KINDS), torch.nn.Module.load_state_dict

    def timed(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        nonlocal copying
        began = so_far()
        found = load_state_dict(self, *args, **kwargs)
        copying = [a + b for a, b in zip(copying, since(began), strict=True)]
        return found

    began = so_far()
    loaded = checkpoint.load(file)
    checking = since(began)
    with patch.object(torch.nn.Module, "load_state_dict", timed):
        began = so_far()
        made = [part(loaded) for part in (loading.load_model, loading.load_clip, loading.load_vae)]
        building = [a - b for a, b in zip(since(began), copying, strict=True)]
        del made  # not before it is measured: memory given back would be had again
    return dict(zip(STAGES, (checking, building, copying), strict=True))


def _module(name: str, before: str) -> Any:
    """By its name, or that of 0.2.0."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return importlib.import_module(before)


def measured(file: Path, root: Path, **environment: str) -> dict[str, list[float]]:
    command = [sys.executable, "-m", "bench.loading", "--only", str(file), "--older", str(root)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def medians(rounds: list[list[float]]) -> dict[str, float]:
    return {kind: statistics.median(each[k] for each in rounds) for k, kind in enumerate(KINDS)}


def total(found: dict[str, list[float]]) -> dict[str, float]:
    return {kind: sum(stage[k] for stage in found.values()) for k, kind in enumerate(KINDS)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.loading", description=__doc__)
    parser.add_argument("--older", type=Path, required=True, help="an older checkout")
    parser.add_argument("--version", default="0.2.0", help="what it is called (default: 0.2.0)")
    parser.add_argument("--folder", type=Path, help="of a checkpoint that `bench.full_size --folder` has written")
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--only", type=Path, metavar="FILE", help="load it here with the pack in --older; print JSON")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    args = parser.parse_args()
    if args.only:
        print(json.dumps(stages(args.only, args.older.resolve())))
        return
    facts = machine.facts(torch.device("cpu"))
    with checkpoint_in(args.folder) as file:
        size = file.stat().st_size
        ways: dict[str, tuple[Path, dict[str, str]]] = {
            args.version: (args.older.resolve(), {}),
            "now": (ROOT, {}),
            "now, in huge pages": (ROOT, {"THP_MEM_ALLOC_ENABLE": "1"}),
        }
        rounds: dict[str, list[dict[str, list[float]]]] = {name: [] for name in ways}
        for _ in range(args.rounds):
            for name, (root, environment) in ways.items():
                rounds[name].append(measured(file, root, **environment))
                print(name, total(rounds[name][-1]), flush=True)
    rows = [
        {
            "what": name,
            "bytes": size,
            "stages": {stage: medians([each[stage] for each in found]) for stage in STAGES},
            "rounds": [total(each) for each in found],
        }
        for name, found in rounds.items()
    ]
    keep(args.out / "performance" / "loading.json", rows, facts, key="what")
    performance_report.write(args.out)


if __name__ == "__main__":
    main()
