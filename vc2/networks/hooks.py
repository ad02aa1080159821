"""Points at which a caller may look at or change activations of the UNet."""

from __future__ import annotations

from torch import Tensor

from .attention import Attention


class Hooks:
    """This one changes nothing; the host's subclass runs ComfyUI's patches. `[B*T, C, H, W]` stands for the activations
    of all frames.
    """

    def embedding(self, emb: Tensor) -> Tensor:
        """The timestep's (and fps') embedding, `[B, E]` or `[B*T, E]`."""
        return emb

    def enter(self, place: str, index: int) -> None:
        """Before block `index` of "input", "middle" or "output" runs."""

    def input(self, index: int, h: Tensor) -> tuple[Tensor, Tensor]:
        """After input block `index`: what goes on, and what the decoder will meet as a skip, both `[B*T, C, H, W]`."""
        return h, h

    def middle(self, h: Tensor) -> Tensor:
        """After the middle block."""
        return h

    def output(self, index: int, h: Tensor, skip: Tensor) -> tuple[Tensor, Tensor | None]:
        """Before output block `index`: its two inputs; without the second, the first has the channels of both."""
        return h, skip

    def attention(self, name: str, depth: int, layer: Attention, x: Tensor, context: Tensor | None = None) -> Tensor:
        """A spatial transformer's "attn1" (among a frame's pixels) or "attn2" (to the text) in its block number
        `depth`; x is normed.
        """
        return layer(x, context)

    def between(self, x: Tensor) -> Tensor:
        """Between the two attentions of a spatial transformer's block, `[B*T, H*W, C]`."""
        return x

    def leave_transformer(self) -> None:
        """After a spatial transformer."""


NO_HOOKS = Hooks()
