"""`python -m tests.fuzz.media --first 10000 --tries 100000`: read many damaged pictures, captions, clips and rows, and
tell what became of them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

from tests.fuzz.media import Fuzzer


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.media", description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="number of the first try (default: 0)")
    parser.add_argument("--tries", type=int, default=10_000, help="how many (default: 10000)")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # Pillow's, of which there are thousands
    outcomes: Counter[str] = Counter()
    slowest = (0.0, 0)
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder))
        for number in range(args.first, args.first + args.tries):
            try:
                outcome, seconds = fuzzer.judge(number)
            except Exception:  # noqa: BLE001 (whatever it is, it is this try's, and is told)
                outcome, seconds = "FAILED", 0.0
                print(f"{number} {fuzzer.make(number)[0]}: FAILED\n{traceback.format_exc(limit=-4)}")
            outcomes[outcome] += 1
            slowest = max(slowest, (seconds, number))
    print(f"{args.tries} tries: {', '.join(f'{count} {name}' for name, count in sorted(outcomes.items()))}")
    print(f"slowest {slowest[0]:.2f} s (try {slowest[1]})")
    return int(outcomes["FAILED"] > 0)


if __name__ == "__main__":
    sys.exit(main())
