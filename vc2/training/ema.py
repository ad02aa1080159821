"""Exponential moving average of the weights that learn, in float32, with a warm-up so that early averages are not the
initial weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from .checkpoint import like, on_host, whole


class EMA:
    """`decay` is reached gradually: step k uses min(decay, (1 + k) / (10 + k)). Sharded parameters have sharded
    averages.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay, self.step = decay, 0
        self.shadow = {name: p.detach().float().clone() for name, p in module.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        self.step += 1
        parameters = dict(module.named_parameters())
        live = [_local(parameters[name].detach()).float() for name in self.shadow]
        torch._foreach_lerp_([_local(tensor) for tensor in self.shadow.values()], live, 1 - decay)

    def weights(self, keep: bool = True, copy: Callable[[Tensor], Tensor] = on_host) -> dict[str, Tensor]:
        """The averages, whole, on the CPU. Every process must call it, and those that do not `keep` them get none."""
        return whole(self.shadow, keep, copy)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Within it the module has the averages for its weights."""
        self._swap(module)
        try:
            yield
        finally:
            self._swap(module)

    @torch.no_grad()
    def _swap(self, module: nn.Module) -> None:
        """Exchange the module's weights and the averages."""
        for name, parameter in module.named_parameters():
            if name in self.shadow:
                live, average = _local(parameter.data), _local(self.shadow[name])
                before = live.clone()
                live.copy_(average)
                average.copy_(before)

    def state_dict(self, keep: bool = True, copy: Callable[[Tensor], Tensor] = on_host) -> dict:
        return {"step": self.step, "shadow": self.weights(keep, copy)}

    def load_state_dict(self, state: dict) -> None:
        self.step = state["step"]
        for name, tensor in state["shadow"].items():
            self.shadow[name].copy_(like(tensor, self.shadow[name]))


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
