"""Graphics cards: their memory and their speed, by the makers' data sheets."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .cost import A100
from .errors import RecipeError


@dataclass(frozen=True)
class Card:
    """`memory` in GB; `peak` in dense bf16 FLOP/s, 0 where unknown."""

    memory: float
    peak: float


# By the name of the device, as far as it tells.
PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": A100,
    "L40S": 362e12,
    "A6000": 155e12,
    "4090": 165e12,
    "3090": 71e12,
    "A10G": 70e12,
    "A10": 125e12,
}
CARDS = {
    "h200-141": Card(141, PEAKS["H200"]),
    "h100-80": Card(80, PEAKS["H100"]),
    "a100-80": Card(80, PEAKS["A100"]),
    "a100-40": Card(40, PEAKS["A100"]),
    "l40s-48": Card(48, PEAKS["L40S"]),
    "a6000-48": Card(48, PEAKS["A6000"]),
    "4090-24": Card(24, PEAKS["4090"]),
    "3090-24": Card(24, PEAKS["3090"]),
    "a10g-24": Card(24, PEAKS["A10G"]),
}


def card_of(name: str) -> Card:
    """Raises RecipeError for one that is not in the list."""
    if name not in CARDS:
        raise RecipeError(f"--card {name} is not known; use one of {', '.join(CARDS)}, or say how many GB: --memory 24")
    return CARDS[name]


def peak_of(device: str) -> float:
    """Peak bf16 FLOP/s of the device that calls itself so; 0 where unknown."""
    return next((peak for model, peak in PEAKS.items() if re.search(rf"\b{model}\b", device)), 0.0)
