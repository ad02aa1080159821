"""Wide activations a slice of the batch at a time, where no gradient needs them all."""

from __future__ import annotations

from torch import Tensor

# Of activations; one slice keeps a GPU busy.
SLICE = 2**26  # bytes
# And at least so many tokens for each of their channels: a layer's weights are read again for every slice, and moved or
# cast again where ComfyUI does that. Of a feed-forward they are then an eighth of the activations at most.
TOKENS = 12


def rows_of_a_slice(x: Tensor, times: int) -> int:
    """How many rows of x `[N, L, dim]` go at once through a computation whose activations are `times` as wide."""
    row = x.shape[1] * x.shape[2] * x.element_size()  # nbytes is not to be had while sizes are compiled as unknowns
    return max(1, SLICE // (times * row), TOKENS * x.shape[2] // x.shape[1])
