"""What this machine computes with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Of what the processor can do, torch tells since 2.11.
_CAPABILITIES: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
# On a processor with AVX512-BF16 a step takes 0.6x the time that it takes in fp32; on one without, 9x.
PRECISION = "bf16" if DEVICE == "cuda" or _CAPABILITIES.get("avx512_bf16", False) else "fp32"


def autocast() -> torch.autocast:
    """For sampling, as training has it."""
    return torch.autocast(DEVICE, torch.bfloat16, enabled=PRECISION == "bf16")
