"""How fast ours is, beside the official code in the same run: same weights, same inputs, same precision, results
compared. Writes docs/performance/cpu.json (or gpu.json) and docs/performance.md.

    make bench
    VIDEOCRAFTER_PATH=/path/to/VideoCrafter make bench
    make bench ARGS="--workloads 'guided step' --network full --sizes 256x256 512x320 --frames 8 16 --precisions bf16"

Without a choice it measures what this machine does in a quarter of an hour. A row that was measured before stays until
its case is measured again. `make bench-gpu` has the goals for one GPU.
"""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from bench import machine, official, performance_report
from bench.cases import ON_A_CPU, ON_A_GPU, WORKLOADS, Case
from bench.tables import rows_in
from bench.workloads import DTYPES, WIDTHS, Networks, Row, measure
from vc2.evaluation.writing import replace_text

ROOT = Path(__file__).parent.parent


def chosen(args: argparse.Namespace, device: torch.device) -> list[Case]:
    """The cases that the options name; those of the device without any."""
    options = (args.workloads, args.network, args.frames, args.sizes, args.precisions, args.compiled, args.steps)
    if not any(options):
        return ON_A_GPU if device.type == "cuda" else ON_A_CPU
    every = product(
        args.workloads or WORKLOADS,
        [args.network or "fifth"],
        args.frames or [16],
        [size.split("x") for size in args.sizes or ["128x128"]],
        args.precisions or ["fp32"],
        [args.compiled],
    )
    steps = args.steps or 10
    return [
        Case(workload, network, frames, int(w), int(h), precision, compiled, steps if "frames" in workload else 1)
        for workload, network, frames, (w, h), precision, compiled in every
    ]


def measured(cases: Iterable[Case], device: torch.device, rounds: int) -> Iterator[Row]:
    """Every case, its networks held only as long as cases need them."""
    networks: Networks | None = None
    held = None
    for case in tqdm(list(cases), desc="cases"):
        if held != case.network:
            networks = None
            gc.collect()
            held = case.network
        networks = networks or Networks(case.network, device, official.given())
        try:
            yield measure(case, networks, rounds)
        except torch.OutOfMemoryError as error:  # the others may fit
            print(f"{case.title}: {str(error).splitlines()[0]}", flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def keep(path: Path, rows: Iterable[dict[str, Any]], facts: dict[str, Any], key: str = "case") -> None:
    """Rows into a JSON file, in place of those of the same case; each knows on what it was measured."""
    rows = [row | {"facts": facts} for row in json.loads(json.dumps(list(rows)))]
    kept = [row for row in rows_in(path) if row[key] not in [new[key] for new in rows]] + rows
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps({"rows": kept}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.performance", description=__doc__)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS)
    parser.add_argument("--network", choices=list(WIDTHS), help="full or a fifth of VideoCrafter2's width")
    parser.add_argument("--frames", nargs="+", type=int)
    parser.add_argument("--sizes", nargs="+", metavar="WxH", help="of the clip, in pixels")
    parser.add_argument("--precisions", nargs="+", choices=list(DTYPES))
    parser.add_argument("--compiled", action="store_true", help="ours with its layers compiled")
    parser.add_argument("--steps", type=int, help="of 'prompt to frames' (default: 10)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="of a CPU (default: 1)")
    parser.add_argument("--report", action="store_true", help="measure nothing: write the report of what is there")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if not args.report:
        device = torch.device(args.device)
        file = args.out / "performance" / ("gpu.json" if device.type == "cuda" else "cpu.json")
        facts = machine.facts(device)
        for row in measured(chosen(args, device), device, args.rounds):
            print(row.case.title, {name: min(times) for name, times in row.seconds.items()}, row.difference, flush=True)
            keep(file, [row.as_json()], facts)
    performance_report.write(args.out)


if __name__ == "__main__":
    main()
