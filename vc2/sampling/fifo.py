"""FIFO sampling: clips of any length in constant memory (FIFO-Diffusion, arXiv 2405.11473), with the dynamic rescale.

A queue of frames whose noise rises from its head to its tail. A turn takes every frame one step down the schedule,
emits the clean one at the head and appends noise at the tail. The queue is longer than the model's window, so a turn
looks at it through windows that overlap by half, and keeps of each window only the later half (lookahead denoising):
the earlier half, already cleaner, is what it looks at. All arithmetic is `ddim.step`, which knows s_t; the official
code drops it here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import ddim
from .schedule import TIMESTEPS, NoiseSchedule

FrameDenoise = Callable[[Tensor, Tensor, Tensor], Tensor]


def levels(window: int, partitions: int) -> list[int]:
    """The queue's timesteps, ascending: window x partitions of them, evenly spaced from 1 to 999."""
    return torch.linspace(1, TIMESTEPS - 1, window * partitions).round().long().tolist()


@torch.no_grad()
def sample(
    denoise: FrameDenoise,
    x_T: Tensor,
    schedule: NoiseSchedule,
    window: int = 16,
    partitions: int = 4,
    eta: float = 1.0,
    generator: torch.Generator | None = None,
    callback: Callable[[int, int, Tensor], None] | None = None,
) -> Tensor:
    """Sample one clip of any length from `x_T` (unit normal, `[1, C, T, H, W]`): the latent at t = 0, of that shape.

    `denoise(x, t, frames)` gives epsilon, guidance inside, for a window: x `[1, C, window, H, W]`, one timestep a frame
    `[1, window]`, and which frames of the clip these are `[window]`. Before the first frame and beyond the last the
    queue holds others, which are called by the nearest one's number. A clip of at most `window` frames is plain DDIM on
    these levels. Noise of the steps comes from `generator` (CPU). `callback(k, count, x0)` may raise to interrupt.
    Raises ValueError for an odd window or more than one clip.
    """
    if window % 2 or x_T.shape[0] != 1:
        raise ValueError(
            f"FIFO samples one clip with an even window, found {x_T.shape[0]} clips and a window of {window}"
        )
    length, half, timesteps = x_T.shape[2], window // 2, levels(window, partitions)
    turns = 0 if length <= window else len(timesteps) - window + length
    count = len(timesteps) + turns

    def fresh(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(like)

    # 1. The first window, plainly.
    start = x_T[:, :, :window]
    first = torch.arange(start.shape[2])
    base = ddim.sample(
        lambda x, t: denoise(x, t[:, None].expand(-1, x.shape[2]), first),
        start,
        schedule,
        timesteps,
        eta,
        lambda k: fresh(start),
        (lambda k, _, x0: callback(k, count, x0)) if callback else None,
    )
    if not turns:
        return base

    # 2. The queue: `half` clean frames to look at, then the base at rising noise. Before its first frame, that frame
    #    stands still.
    t = torch.tensor([0] * half + timesteps)[None]
    t_prev = torch.tensor([0] * (half + 1) + timesteps[:-1])[None]
    number = (
        torch.arange(half + len(timesteps)) - half - (len(timesteps) - window)
    )  # of the clip's frames, in the queue
    queue = base[:, :, number.clamp(0).to(base.device)]
    queue[:, :, half:] = schedule.add_noise(queue[:, :, half:], fresh(queue[:, :, half:]), t[:, half:])

    # 3. Turns.
    clip: list[Tensor] = []
    for turn in range(turns):
        stepped = queue.clone()
        for at in range(0, len(timesteps), half):
            part = slice(at, at + window)
            x, frames = queue[:, :, part], (number[part] + turn).clamp(0, length - 1)
            z = fresh(x) if eta else None
            x, x0 = ddim.step(
                schedule, x, denoise(x, t[:, part].to(x.device), frames), t[:, part], t_prev[:, part], eta, z
            )
            stepped[:, :, at + half : at + window] = x[:, :, half:]
        if number[half] + turn >= 0:
            clip.append(stepped[:, :, half])
        new = window + turn  # the number of the frame that joins the queue
        noise = x_T[:, :, new] if new < length else fresh(queue[:, :, 0])
        queue = torch.cat([stepped[:, :, 1:], noise[:, :, None]], 2)
        if callback:
            callback(len(timesteps) + turn, count, x0)
    return torch.stack(clip, 2)
