"""What a way of computing is that `bench.changes` times in turns with ours: of the UNet, or of what is around it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import Tensor, nn

from bench.cases import Case
from bench.counted import Counts, Step
from bench.workloads import Networks, Works, forward
from vc2.networks.unet import VideoUNet

Within = AbstractContextManager[object]
Change = Callable[[VideoUNet], Within | None]  # changes the network, or gives what its passes are to be within


@dataclass(frozen=True)
class Way:
    """A pass of the UNet without gradients, with one thing done in another way."""

    change: Change
    note: str
    counts: bool = True  # whether counting sees it: not how a kernel computes, nor which of them become one
    case: Case | None = None  # another than the table's

    def works(self, case: Case, networks: Networks) -> Works:
        unet, _ = networks.of(case)
        changed = VideoUNet(networks.config, device="meta").eval().requires_grad_(False)
        changed.load_state_dict(unet.state_dict(), assign=True)
        changed.use_attention("auto")
        anew = self.change(changed) is not None  # who changed the network did so once
        context = (lambda: self.change(changed) or nullcontext()) if anew else nullcontext
        return {
            "ours": forward(unet, case, networks),
            "changed": within(context, forward(changed, case, networks)),
        }

    def count(self) -> Counts | None:
        return Step().count(self.change) if self.counts else None


@dataclass(frozen=True)
class Beside:
    """Something else than such a pass; `works` has "ours" and "changed"."""

    works: Callable[[Case, Networks], Works]
    case: Case
    note: str
    count: Callable[[], Counts | None] = lambda: None


def within(context: Callable[[], Within], work: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """`work` within what `context` makes anew each time: a context manager serves once."""

    def run() -> Tensor:
        with context():
            return work()

    return run


def as_class(kind: type[nn.Module], made_of: Callable[[type], type]) -> Change:
    """Layers of a kind with another class, made of their own."""

    def change(unet: VideoUNet) -> None:
        for module in unet.modules():
            if isinstance(module, kind):
                module.__class__ = made_of(module.__class__)

    return change


def plain(kind: type[nn.Module]) -> Change:
    """Convolutions of a kind as torch computes them."""
    return as_class(kind, lambda _: kind)
