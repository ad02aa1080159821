"""What `compute.compile` does to the miniature's recipes on a CPU, compiling included. Writes its section of
docs/training.md.

    make bench-training-compile

Both trainers of a recipe live in one process and take the same batches in turns. Time is the processor's, the
compiler's included, so that what else runs on the machine counts little.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import torch

from bench.machine import processor_seconds
from bench.sections import replace

ROOT = Path(__file__).parent.parent
RECIPES = ("F-base", "F-Spa-DIR", "F-Spa-LORA")
STEPS = 6  # of each shape of batch


def measure(name: str, folder: Path) -> dict[str, float]:
    from vc2.training.loop import Trainer
    from vc2.training.prepare import prepare
    from vc2.training.recipe_files import load_recipe

    torch.set_num_threads(1)
    written = load_recipe(f"tiny/{name}")
    changes = [
        f"init={{unet: {ROOT / 'models' / 'vc2-tiny.safetensors'}}}",
        "trackers=[]",
        "validation.every=0",
        "data.held_out=0",
        *(f"data.{medium}.count=64" for medium in written.data.sources),
    ]
    plain, compiled = (
        load_recipe(f"tiny/{name}", [*changes, f"name={kind}", f"compute.compile={kind == 'compiled'}"])
        for kind in ("plain", "compiled")
    )
    prepare(plain, folder / "cache")
    trainers = [Trainer(recipe, folder / recipe.name, folder / "cache") for recipe in (plain, compiled)]
    shapes = {(frames, medium) for frames, _, _ in written.data.lengths for medium in written.data.sources}
    times: dict[tuple[int, int], list[list[float]]] = defaultdict(list)
    drawn: dict[tuple[int, int], int] = defaultdict(int)
    for batch in trainers[0].objective.batches(0, 0, 1):
        shape = tuple(batch.frames.shape[:2])
        drawn[shape] += 1
        done = len(times) == len(shapes) and all(len(rows) > STEPS for rows in times.values())
        if done or sum(drawn.values()) >= 400:
            break
        if len(times[shape]) > STEPS:
            continue
        row = []
        for trainer in trainers:
            start = processor_seconds()
            trainer.train_step(batch)
            row.append(processor_seconds() - start)
        times[shape].append(row)
        print(name, shape, [round(value, 2) for value in row], file=sys.stderr, flush=True)
    step = [
        sum(drawn[shape] * min(row[k] for row in rows[1:]) for shape, rows in times.items()) / sum(drawn.values())
        for k in (0, 1)
    ]
    compiling = sum(rows[0][1] - rows[0][0] for rows in times.values())
    whole = written.steps * step[0]
    return {
        "shapes": len(times),
        "plain": step[0],
        "compiled": step[1],
        "compiling": compiling,
        "steps": written.steps,
        "whole": (compiling + written.steps * step[1]) / whole,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", nargs="+", default=RECIPES, help="of training/recipes/tiny")
    parser.add_argument("--only", help="measure one recipe in this process, and print it as JSON")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "training.md")
    args = parser.parse_args()
    if args.only:
        with tempfile.TemporaryDirectory() as name:
            print(json.dumps(measure(args.only, Path(name))))
        return
    rows = []
    for name in args.recipes:
        with tempfile.TemporaryDirectory() as cache:
            # Nothing compiled before counts, and nothing compiles elsewhere.
            fresh = {"TORCHINDUCTOR_CACHE_DIR": cache, "TORCHINDUCTOR_COMPILE_THREADS": "1", "OMP_NUM_THREADS": "1"}
            command = [sys.executable, "-m", "bench.training_compile", "--only", name]
            output = subprocess.run(
                command, cwd=ROOT, env=os.environ | fresh, stdout=subprocess.PIPE, text=True, check=True
            ).stdout
        m = json.loads(output.splitlines()[-1])
        rows.append(
            f"| tiny/{name} | {m['plain']:.2f} s | {m['compiled'] / m['plain']:.2f}x | {m['shapes']} |"
            f" {m['compiling']:.0f} s | {m['whole']:.2f}x of {m['steps']} steps |"
        )
    replace(
        args.out,
        "compute.compile on a CPU",
        f"""Made by `make bench-training-compile` (torch {torch.__version__}, one thread; processor time, the
compiler's included): the miniature's recipes on the bundled miniature, each step computed by both in turns.

| recipe | step | compiled | shapes of batch | compiling them | the whole run, compiled |
| --- | --- | --- | --- | --- | --- |
"""
        + "\n".join(rows)
        + """

Below 1.00x in the last column it pays. Another run of the same recipe finds what was compiled in torch's cache.""",
    )


if __name__ == "__main__":
    main()
