"""Sampling of the demo's clip, here and in an older checkout, in turns: the miniature on one thread, decoding left out.
Writes docs/performance/against.json and docs/performance.md.

    git worktree add --detach .cache/0.2.0 c0b9ca1
    python -m bench.against .cache/0.2.0 --version 0.2.0
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench import machine, performance_report, workloads
from bench.performance import keep
from vc2.pipeline import TextToVideo

ROOT = Path(__file__).parent.parent
# Runs in either checkout, so it uses only what both have. The first clip warms up.
SAMPLE = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import torch, vc2
from vc2.pipeline import TextToVideo
assert vc2.__file__.startswith(sys.argv[1]), vc2.__file__
torch.set_num_threads(1)
model = TextToVideo(sys.argv[2])
model.decode = lambda z: z
for _ in range(2):
    start = time.process_time()
    z = model(["a red circle moving right"], [0])
    seconds = time.process_time() - start
print(json.dumps({"seconds": seconds, "norm": float(z.norm())}))
"""


def sampled(tree: Path) -> dict[str, float]:
    command = [sys.executable, "-c", SAMPLE, str(tree), str(ROOT / "models" / "vc2-tiny.safetensors")]
    done = subprocess.run(
        command, cwd=tree, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def products(rounds: int) -> list[float]:
    """Seconds of as many floating-point operations as the clip takes, as plain products of matrices."""
    model = TextToVideo(ROOT / "models" / "vc2-tiny.safetensors")
    model.decode = lambda z: z  # type: ignore[assignment,method-assign,return-value]
    with FlopCounterMode(display=False, custom_mapping=workloads.ON_A_CPU) as counted:
        model(["a red circle moving right"], [0])
    work = workloads.products(counted.get_total_flops(), torch.float32, torch.device("cpu"))
    return machine.in_turns({"products": work}, torch.device("cpu"), rounds, warm_up=1)["products"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.against", description=__doc__)
    parser.add_argument("tree", type=Path, help="the older checkout")
    parser.add_argument("--version", required=True, help="what it is called")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rounds = [{"older": sampled(args.tree.resolve()), "now": sampled(ROOT)} for _ in range(args.rounds)]
    row = {
        "version": args.version,
        "seconds": {name: [found[name]["seconds"] for found in rounds] for name in ("older", "now")}
        | {"products": products(args.rounds)},
        "difference": abs(rounds[0]["now"]["norm"] / rounds[0]["older"]["norm"] - 1),
    }
    print(row)
    keep(args.out / "performance" / "against.json", [row], machine.facts(torch.device("cpu")), key="version")
    performance_report.write(args.out)


if __name__ == "__main__":
    main()
