"""What a computation takes, counted operation by operation: on torch's meta device nothing is computed, so the full
size fits anywhere, and the numbers are the same on every machine.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@dataclass
class Counts:
    """`peak`: bytes of the storages that were made and live at once, at their most; `moved`: bytes read and written;
    `operations`: how many of each kind; `flops`: of products and convolutions.
    """

    peak: int = 0
    moved: int = 0
    flops: int = 0
    operations: Counter[str] = field(default_factory=Counter)


class _Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()
        self._live: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        known = {x.untyped_storage()._cdata for x in inputs}
        out = func(*args, **(kwargs or {}))
        outputs = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        for tensor in outputs:
            self._see(tensor.untyped_storage(), known)
        is_view = outputs and all(x.untyped_storage()._cdata in known for x in outputs) and func.is_view
        if not is_view:
            self.counts.operations[func.overloadpacket.__name__] += 1
            self.counts.moved += sum(x.numel() * x.element_size() for x in (*inputs, *outputs))
        return out

    def _see(self, storage: torch.UntypedStorage, known: set[int]) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._live or key in known:
            return

        def gone(_: object) -> None:
            del self._live[key]
            self._bytes -= size

        self._live[key] = weakref.ref(storage, gone)
        self._bytes += size
        self.counts.peak = max(self.counts.peak, self._bytes)


def count(work: Callable[[], object]) -> Counts:
    """What `work` takes; what it returns lives no longer than it."""
    with FlopCounterMode(display=False) as flops, _Count() as mode:
        work()
    mode.counts.flops = flops.get_total_flops()
    return mode.counts
