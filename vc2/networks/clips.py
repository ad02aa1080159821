"""What one forward pass carries to every layer besides the activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..sampling import windows
from .attention import Attention
from .hooks import Hooks
from .slices import rows_of_a_slice


@dataclass(frozen=True)
class Clips:
    """How the batch divides into clips, and which temporal layers take part.

    Training passes single images through with `attention` or `conv` off. `window` is FreeNoise's (length, stride):
    temporal attention then happens within windows of frames; None: among all frames.
    """

    count: int
    frames: int
    attention: bool = True
    conv: bool = True
    window: tuple[int, int] | None = None

    def attend(self, attention: Attention, x: Tensor) -> Tensor:
        """Self-attention among frames: x `[N, T, dim]` -> the same shape.

        Windows that do not overlap go in one batch. They are copies, which for all rows at once would take more memory
        than all frames' attention does; hence, without gradients, half of the rows at a time.
        """
        if self.window is None or self.frames <= self.window[0]:
            return attention(x)
        length, stride = self.window
        weight = windows.weights(length).to(x)[:, None]
        out, total = torch.zeros_like(x), x.new_zeros(1, self.frames, 1)
        halves = [(x, out)]
        if not torch.is_grad_enabled():  # which knows nothing of a part that changes in place
            rows = max(rows_of_a_slice(x, 8), -(-len(x) // 2))
            halves = list(zip(x.split(rows), out.split(rows), strict=True))
        for starts in windows.disjoint(self.frames, length, stride):

            def unfolded(t: Tensor, starts: range = starts) -> Tensor:
                """The windows in t `[N, T, dim]`, as a view `[N, len(starts), length, dim]`."""
                return t[:, starts[0] : starts[-1] + length].unfold(1, length, starts.step).transpose(-1, -2)

            for part, into in halves:
                attended = attention(unfolded(part).flatten(0, 1))
                unfolded(into).addcmul_(attended.unflatten(0, (len(part), -1)), weight)
            unfolded(total).add_(weight)
        return out.div_(total)


def for_each_prompt(x: Tensor, rows: int) -> Tensor:
    """x, which is the same for all prompts of a clip, as often as makes `rows` of its batch."""
    return x if len(x) == rows else x.repeat(rows // len(x), *(1,) * (x.ndim - 1))


@dataclass(frozen=True)
class Pass:
    """`embedding` of timestep and fps `[B, E]`, or one a frame `[B*T, E]`; text `context` `[B, S, D]` or `[B*T, S, D]`.

    There may be several prompts for each clip, one after the other along the context's batch. Activations have `frames`
    rows from where they first meet the text; what comes before is the same for all prompts and computed once.

    `skip_size`: height and width of the skip that comes next, which an Upsample must reach.
    """

    embedding: Tensor
    context: Tensor
    clips: Clips
    hooks: Hooks
    frames: int
    skip_size: torch.Size | None = None

    @property
    def embedding_a_clip(self) -> bool:
        """Whether all frames of a clip have one timestep."""
        return len(self.embedding) == self.clips.count
