"""What the paper's recipes take at full size, counted on the network operation by operation. Writes its section of
docs/training.md. No GPU is needed, and none was asked.

    python -m bench.training_sizes
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.sections import replace
from vc2.training import cost
from vc2.training.cards import CARDS, Card
from vc2.training.check import GB, USED
from vc2.training.estimate import computed, estimate, memory, propose
from vc2.training.recipe_files import load_recipe

ROOT = Path(__file__).parent.parent
# Recipes, on how many GPUs, and which.
RUNS = {
    "F-base": (32, ("a100-80", "a100-40", "h100-80")),
    "F-Spa-DIR": (8, ("a100-80", "a100-40", "h100-80", "4090-24")),
    "F-Spa-LORA": (8, ("a100-80", "a100-40", "4090-24")),
    "your-images": (1, ("4090-24", "12 GB", "8 GB")),
}


def proposals() -> str:
    lines = ["| recipe | card | computed again | micro-batch | memory a GPU, about | A100-hours |", "| --- " * 6 + "|"]
    for name, (processes, cards) in RUNS.items():
        recipe = load_recipe(name)
        needs = estimate(recipe)
        for label in cards:
            card = CARDS.get(label) or Card(float(label.split()[0]), 0.0)
            best = propose(recipe, needs, USED * card.memory * GB, processes)
            if best is None:
                lines.append(f"| {name} on {processes} | {label} | does not fit | | | |")
                continue
            levels = cost.checkpointed(best.recipe, needs.levels)
            again = "nothing" if not levels else "all" if len(levels) == needs.levels else f"levels {list(levels)}"
            lines.append(
                f"| {name} on {processes} | {label} | {again} | {best.recipe.compute.micro_batch or 'all'} |"
                f" {best.bytes / GB:.0f} GB | {best.a100_hours:,.{0 if best.a100_hours > 1 else 2}f} |"
            )
    return "\n".join(lines)


def levels() -> str:
    """Of F-base's clip, what checkpointing one level more saves and costs."""
    recipe = load_recipe("F-base")
    needs = estimate(recipe)
    lines = ["| computed again | TFLOP a clip | activations of a clip | memory a GPU, about |", "| --- " * 4 + "|"]
    for deepest in range(needs.levels + 1):
        tried = computed(recipe, list(range(deepest)), 1)
        total = memory(tried, needs)
        lines.append(
            f"| {f'levels {list(range(deepest))}' if deepest else 'nothing'} |"
            f" {cost.sample_flops(tried, cost.unet_config(tried), 16) / 1e12:.1f} |"
            f" {(total - needs.static) / GB:.1f} GB | {total / GB:.0f} GB |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "training.md")
    args = parser.parse_args()
    replace(
        args.out,
        "At real sizes",
        f"""Counted on the network by `python -m bench.training_sizes`, and not measured; `make bench-training-gpu`
measures where there is a GPU. What `check --card` proposes, which leaves {1 - USED:.0%} of a card free; A100-hours at
{100 * cost.UTILISATION:.0f} % of 312 TFLOP/s.

{proposals()}

What each level of gradient checkpointing saves and costs, on F-base's clip of 16 frames, one at a time:

{levels()}

Activations are those that CUDA's autocast keeps, norms and what follows them in float32; that of 0.2.0, which took all
for bf16, was a quarter too low. Tests hold the count against the peak of a forward and a backward pass in float32,
operation by operation, at this size too.""",
    )


if __name__ == "__main__":
    main()
