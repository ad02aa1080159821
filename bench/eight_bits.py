"""Does a LoRA beside frozen weights of eight bits learn what it learns beside floats? On the miniature, with the
arithmetic that each device has. Prints its table of docs/training.md.

    python -m bench.eight_bits

On a CPU bitsandbytes multiplies with the dequantised weights where it trains, on a GPU it quantises the activations
too; the third run here does as a GPU does.
"""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import bitsandbytes
from bitsandbytes.autograd import _functions
from torch import Tensor

from vc2.training.loop import Trainer
from vc2.training.prepare import prepare
from vc2.training.recipe_files import load_recipe

ROOT = Path(__file__).parent.parent
RECIPE = [
    f"init.unet={ROOT / 'models' / 'vc2-tiny.safetensors'}",
    *("init.autoencoder=null", "init.text=null", "networks={}"),
    *("data.images.count=800", "data.held_out=48", "steps=150", "batch=16", "learn.rank=8", "optimizer.lr=1e-3"),
    *("optimizer.warmup=10", "optimizer.ema=0.95", "validation.every=50", "save_every=1000", "trackers=[]"),
]
RUNS = (
    ("floats", "float", False),
    ("eight bits, as a CPU trains", "int8", False),
    ("eight bits, as a GPU trains", "int8", True),
)


def as_on_a_gpu(a: Tensor, b: Tensor, out=None, state=None, threshold: float = 0.0, bias=None) -> Tensor:
    """bitsandbytes.matmul's way where a GPU trains; the threshold is the state's."""
    return _functions.MatMul8bitLt.apply(a, b, out, bias, state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs") / "eight-bits", help="a folder that is not there yet")
    folder = parser.parse_args().runs
    rows = []
    for k, (label, frozen, gpu) in enumerate(RUNS):
        recipe = load_recipe("tiny/F-Spa-LORA", [*RECIPE, f"name=run-{k}", f"compute.frozen={frozen}"])
        prepare(recipe, folder / "cache")
        with mock.patch.object(bitsandbytes, "matmul", as_on_a_gpu) if gpu else nullcontext():
            Trainer(recipe, folder / recipe.name, folder / "cache").run()
        lines = map(json.loads, (folder / recipe.name / "history.jsonl").read_text().splitlines())
        losses = [line["held_out"]["average"]["images"] for line in lines if "held_out" in line]
        rows.append(f"| {label} | " + " | ".join(f"{loss:.4f}" for loss in losses) + " |")
    print("| frozen Linears in | step 50 | step 100 | step 150 |", "| --- | --- | --- | --- |", *rows, sep="\n")


if __name__ == "__main__":
    main()
