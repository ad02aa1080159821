"""Which models there are for a seed: the bases, the nine finetunes of Table 3, and the controls."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...training.recipe import DOES_NOT_CHANGE_WHAT_IS_LEARNED, Recipe
from ...training.recipe_files import load_recipe
from ...training.sources.files import fingerprint
from ...training.sources.paper_world import world_hash
from .machine import PRECISION

ROOT, QUICK_ROOT, REPEAT_ROOT = Path("runs/paper"), Path("runs/paper-quick"), Path("runs/paper-repeat")
ENCODERS = ROOT / "encoders.safetensors"
DOCS = Path("docs/miniature")
GATES, RATES = DOCS / "gates.json", DOCS / "rates.jsonl"
PILOT_SEEDS = (0, 1)  # for choosing rates, steps and sampling; never counted
SNAPSHOTS = (50, 100, 200, 400)  # steps at which finetunes are scored on their way
QUICKLY = 25  # a sketch takes so many times fewer steps


@dataclass(frozen=True)
class Arm:
    """A training run: a recipe of training/recipes/paper with changes, from the weights of another arm."""

    name: str
    recipe: str
    start: str | None
    overrides: tuple[str, ...] = ()
    snapshots: tuple[int, ...] = ()
    raw: bool = False  # scored without averaging, too


def _row(name: str) -> Arm:
    return Arm(name, name, f"{name[0]}-base", snapshots=SNAPSHOTS, raw=True)


def _control(row: str, what: str, *overrides: str) -> Arm:
    return Arm(f"{row}-{what}", row, f"{row[0]}-base", overrides)


BASES = (Arm("SD", "SD", None), Arm("F-base", "F-base", "SD", raw=True), Arm("P-base", "P-base", "SD", raw=True))
ROWS = tuple(
    _row(name)
    for name in (
        "F-Spa-DIR",
        "F-Spa-LORA",
        "P-Spa-LORA",
        "F-Temp-LORA",
        "P-Temp-LORA",
        "F-Spa-Temp-DIR",
        "F-Temp-DIR",
        "F-Spa-Temp-LORA",
        "F-Spa-DIR-LAION",
    )
)
CONTROLS = (
    # The same finetuning on low-quality pictures: what it does without good pictures.
    _control("F-Spa-DIR", "sham", "data.images.domain=low-quality"),
    _control("P-Spa-LORA", "sham", "data.images.domain=low-quality"),
    # Adapters of full rank: every change of the layers that LoRA reaches, so that what is left is which layers learn.
    _control("F-Spa-LORA", "full-rank", "learn.rank=64"),
    # Images pass the temporal convolutions.
    *(
        _control(row, "full", "diffusion.image_temporal=full")
        for row in ("P-Spa-LORA", "F-Spa-LORA", "P-Temp-LORA", "F-Temp-LORA")
    ),
)
ARMS = (*BASES, *ROWS, *CONTROLS)
# Asked once the seeds that count had begun; rows of their own, no part of what was registered.
LATER = (
    # At the rate of rank 2 `full-rank` goes so far that it does not say which layers matter; this is at F-Spa-DIR's.
    _control("F-Spa-LORA", "full-rank-slow", "learn.rank=64", "optimizer.lr=3e-4"),
    # LoRA at the rate of the first pilot, where claim 1 went as in the paper.
    _control("F-Spa-LORA", "slow", "optimizer.lr=1e-3"),
    _control("P-Spa-LORA", "slow", "optimizer.lr=1e-3"),
    # VideoCrafter2's second stage from the other base, which Table 3 lacks: does the recipe need F?
    Arm("P-Spa-DIR", "F-Spa-DIR", "P-base"),
)
BY_NAME = {arm.name: arm for arm in (*ARMS, *LATER)}


@dataclass(frozen=True)
class Place:
    """Where a seed's runs are: `runs/paper` for those that count, other folders for a repetition and a sketch."""

    root: Path
    encoders: Path  # the autoencoder and the text tower, in one file
    quick: bool = False

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def folder(self, arm: Arm, seed: int) -> Path:
        return self.root / f"seed-{seed}" / arm.name

    def recipe(self, arm: Arm, seed: int, steps: int | None = None) -> Recipe:
        """The arm's recipe for a seed; `steps`: up to a snapshot. Raises RecipeError."""
        return _recipe(self, arm, seed, steps)

    def stops(self, arm: Arm, seed: int) -> list[int]:
        """Steps at which the arm is scored, the last of them its end."""
        end = self.recipe(arm, seed).steps
        return [*(step for step in arm.snapshots if step < end), end]

    def identity(self, arm: Arm) -> str:
        """Sixteen hexadecimal digits of what its clips follow from: the world, how they are sampled, and what the
        recipes say from the first arm to this one; not of seeds and paths, and not of what a recipe leaves as it is by
        default, which a row's commit tells.
        """
        return _identity(self, arm)


@cache
def _recipe(place: Place, arm: Arm, seed: int, steps: int | None) -> Recipe:
    changes = [f"seed={seed}", f"name=paper-{arm.name}-{seed}", f"init.autoencoder={place.encoders}"]
    changes += [f"init.text={place.encoders}", f"compute.precision={PRECISION}"]
    if arm.start:
        changes.append(f"init.unet={place.folder(BY_NAME[arm.start], seed) / 'model.safetensors'}")
    whole = load_recipe(f"paper/{arm.recipe}", [*changes, *arm.overrides])
    if place.quick:
        changes += [f"steps={whole.steps // QUICKLY}", "optimizer.warmup=5", "optimizer.ema=0.9"]
        changes += [f"data.{medium}.count={100 if medium == 'clips' else 600}" for medium in whole.data.sources]
    if steps is not None:
        changes.append(f"steps={steps}")
    return load_recipe(f"paper/{arm.recipe}", [*changes, *arm.overrides])


@cache
def _identity(place: Place, arm: Arm) -> str:
    # Without defaults, so that an option that the trainer gets one day leaves it as it is.
    tree = place.recipe(arm, 0).model_dump(mode="json", exclude_defaults=True)
    for key in {*DOES_NOT_CHANGE_WHAT_IS_LEARNED, "name", "seed", "init"} - {"sampling"}:
        tree.pop(key, None)
    return fingerprint(world_hash(), tree, place.identity(BY_NAME[arm.start]) if arm.start else None)
