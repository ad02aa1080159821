"""How many kernels norms, activations, sums and copies are, as torch goes through them and with the layers compiled:
counted in a pass of the UNet on this processor, at a fifth of the width. Writes docs/performance/compiled.json and
docs/performance.md.

python -m bench.compiled_kernels
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import torch
from torch._inductor import config
from torch.profiler import ProfilerActivity, profile

from bench import machine, performance_report
from bench.cases import Case
from bench.counted import count
from bench.performance import keep
from bench.workloads import Networks, works

ROOT = Path(__file__).parent.parent
# One kernel of its own wherever it is: products, convolutions, attention.
LARGE = re.compile(r"linear|convolution|mm$|attention")
KERNEL = re.compile(r"graph_\d+_cpp_")  # how the profiler calls what was compiled
CASE = Case("UNet forward", "fifth", 4, 64, 64)


def as_it_is(networks: Networks) -> int:
    """Operations that compute, of the uncompiled network, but for the large ones."""
    found = count(works(CASE, networks)["ours"])
    return sum(number for name, number in found.operations.items() if not LARGE.search(name))


def compiled(networks: Networks) -> int:
    """Kernels of the compiled network, and what is left outside of its graphs (skips are joined there)."""
    with config.patch({"cpp.enable_kernel_profile": True, "cpp.descriptive_names": False}):
        work = works(Case(**{**vars(CASE), "compiled": True}), networks)["ours"]
        for _ in range(2):
            work()
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            work()
    names = [event.name for event in seen.events() or []]
    return sum(bool(KERNEL.match(name)) or name in ("aten::cat", "aten::clone") for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.compiled_kernels", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cpu")
    networks = Networks(CASE.network, device, with_official=False)
    row = {"case": vars(CASE), "as it is": as_it_is(networks), "compiled": compiled(networks)}
    print(row)
    keep(args.out / "performance" / "compiled.json", [row], machine.facts(device))
    performance_report.write(args.out)


if __name__ == "__main__":
    main()
