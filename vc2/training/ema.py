"""Exponential moving average of trainable weights, in float32, with a warm-up so that early averages are not the initial weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EMA:
    """`decay` is reached gradually: step k uses min(decay, (1 + k) / (10 + k))."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay, self.step = decay, 0
        self.shadow = {name: p.detach().float().clone() for name, p in module.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        self.step += 1
        parameters = dict(module.named_parameters())
        live = [parameters[name].detach().float() for name in self.shadow]
        torch._foreach_lerp_(list(self.shadow.values()), live, 1 - decay)

    def weights(self, module: nn.Module) -> dict[str, Tensor]:
        """The module's state dict with averaged weights in place of the trained ones."""
        return {**module.state_dict(), **self.shadow}

    def state_dict(self) -> dict:
        return {"step": self.step, "shadow": self.shadow}

    def load_state_dict(self, state: dict) -> None:
        self.step = state["step"]
        for name, tensor in state["shadow"].items():
            self.shadow[name].copy_(tensor)
