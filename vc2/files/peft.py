"""How strong PEFT's layers are, by the `adapter_config.json` that it writes beside their weights."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import CheckpointError

ALPHA = 8.0  # PEFT's default
# With any other value the tensors mean something else than W + scale B A, of the model's own W.
PLAIN: dict[str, tuple[Any, ...]] = {
    "use_dora": (False,),
    "use_qalora": (False,),
    "fan_in_fan_out": (False,),
    "peft_type": ("LORA",),
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva"),  # others (PiSSA, OLoRA) change W first
}
LONGEST = 2**20


def alphas(path: Path, ranks: Mapping[str, int]) -> dict[str, float]:
    """alpha of every layer of the adapter in the file `path`, such that its scale is alpha / rank.

    `ranks` is by the layers' paths in the model that PEFT adapted. `lora_alpha`, `alpha_pattern` and `use_rslora`
    (scale alpha / sqrt(rank), arXiv 2312.03732) are honoured; ranks are the tensors' own. Raises CheckpointError for a
    damaged configuration, and for one whose adapter is not plain LoRA.
    """
    source = path.with_name("adapter_config.json")
    config = _read(source) if source.is_file() else {}
    for name, plain in PLAIN.items():
        if config.get(name) not in (None, *plain):
            allowed = " or ".join(map(repr, plain))
            raise CheckpointError(f"{source}: {name} is {config[name]!r}; only plain LoRA is supported ({allowed})")
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise CheckpointError(f"{source}: alpha_pattern must be a JSON object, found {patterns!r}")
    for pattern in patterns:
        if not re.fullmatch(r"\^?[\w.-]+", pattern):
            raise CheckpointError(
                f"{source}: alpha_pattern has the regular expression {pattern!r}; only names of layers, or their ends,"
                " are supported"
            )

    def alpha(layer: str, rank: int) -> float:
        own = (value for pattern, value in patterns.items() if _fits(pattern, layer))
        number = _number(source, next(own, config.get("lora_alpha", ALPHA)))
        return number * math.sqrt(rank) if config.get("use_rslora") else number

    return {layer: alpha(layer, rank) for layer, rank in ranks.items()}


def _fits(pattern: str, layer: str) -> bool:
    """Whether `pattern` is the layer's path or, without a `^`, its end from a dot on."""
    exact = pattern.removeprefix("^")
    return layer == exact or (exact == pattern and layer.endswith(f".{exact}"))


def _number(source: Path, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CheckpointError(f"{source}: alpha must be a finite number, found {value!r}")
    return float(value)


def _read(source: Path) -> dict[str, Any]:
    try:
        with open(source, encoding="utf-8") as file:
            config = json.loads(file.read(LONGEST))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{source} is not a PEFT adapter configuration: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{source} is not a PEFT adapter configuration: it holds no JSON object")
    return config
