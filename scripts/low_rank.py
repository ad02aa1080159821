"""What turns one model into another, as a LoRA of low rank that is made afterwards, not trained."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vc2.files import lora


def difference(before: Mapping[str, Tensor], after: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """What turns `before` into `after`, in `lora.load`'s layout: the best approximation of that rank to each matrix's
    change (by its singular values), and whole what would not be smaller so. A layer that `before` lacks was zero.
    """
    out: dict[str, Tensor] = {}
    for name, tensor in after.items():
        change = tensor.float() - (before[name].float() if name in before else 0)
        if not change.any():
            continue
        layer, _, leaf = name.rpartition(".")
        if change.ndim == 1 or rank * (len(change) + change[0].numel()) >= change.numel():
            out[f"{lora.PREFIX}{layer}.{'diff' if leaf == 'weight' else 'diff_b'}"] = change.half()
            continue
        u, s, v = torch.linalg.svd(change.flatten(1), full_matrices=False)
        root = s[:rank].sqrt()
        ones = (1,) * (change.ndim - 2)
        out[f"{lora.PREFIX}{layer}.{lora.UP}"] = (u[:, :rank] * root).reshape(len(change), rank, *ones).half()
        out[f"{lora.PREFIX}{layer}.{lora.DOWN}"] = (root[:, None] * v[:rank]).reshape(rank, *change.shape[1:]).half()
    return out
