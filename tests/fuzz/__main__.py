"""`python -m tests.fuzz --count 5000 --first 200`: read many odd files, and tell what became of them."""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

from tests.fuzz.files import GROUPS, make
from tests.fuzz.guard import judge


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="number of the first file (default: 0)")
    parser.add_argument("--count", type=int, default=len(GROUPS), help="how many files (default: one of each kind)")
    parser.add_argument("--verbose", action="store_true", help="tell what became of every one")
    args = parser.parse_args()
    outcomes: Counter[str] = Counter()
    slowest, largest = (0.0, ""), (0, "")
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.first, args.first + args.count):
            sample = make(number, Path(folder) / "file")
            label = f"{number} {sample.change} {sample.path.name}"
            try:
                verdict, cost = judge(sample.path, sample.read)
                assert not sample.trace.exists(), "it was executed"
            except Exception:  # noqa: BLE001 (whatever it is, it is this file's, and is told)
                outcomes["FAILED"] += 1
                print(f"{label}: FAILED\n{traceback.format_exc(limit=-4)}")
                continue
            outcomes["loaded" if verdict == "loaded" else "refused"] += 1
            slowest, largest = max(slowest, (cost.seconds, label)), max(largest, (cost.memory, label))
            if args.verbose:
                print(f"{label}: {verdict.replace(folder, '')[:200]}")
    print(f"{args.count} files: {', '.join(f'{count} {name}' for name, count in outcomes.items())}")
    print(f"slowest {slowest[0]:.2f} s ({slowest[1]}); most memory {largest[0] / 2**20:.0f} MiB ({largest[1]})")
    return int(outcomes["FAILED"] > 0)


if __name__ == "__main__":
    sys.exit(main())
