"""Context windows for the host: the model sees some frames at a time, and what it says of a frame is averaged over the
windows that the frame is in.

The host's own handler fails for models whose frames are the batch: it compares one sigma a frame with the schedule's,
and never divides conditions by frame.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...vc2.sampling import windows


def clip_length(conds: list, x: Tensor) -> int:
    """Frames of each clip in x `[clips * T, ...]`, as `HostModel.extra_conds` wrote it."""
    for cond in (c for group in conds if group for c in group):
        if (count := cond.get("model_conds", {}).get("num_video_frames")) is not None:
            return count.cond
    return x.shape[0]


def select_frames(conds: Sequence[list | None], index: Tensor, frames: int) -> list[list | None]:
    """Groups of conditions for the frames `index` of one or several clips of `frames`: whatever has an entry for each
    frame keeps those, and clips get len(index) frames.

    `index` counts through the whole batch; it holds the same frames of every clip.
    """
    within = index[index < frames]
    controls: dict[int, Any] = {}

    def pick(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim and value.shape[0] > 1:
            if value.shape[0] == frames:
                return value[within.to(value.device)]
            if value.shape[0] > frames and value.shape[0] % frames == 0:
                return value[index.to(value.device)]
        return value

    def select(cond: dict) -> dict:
        cond = {key: pick(value) for key, value in cond.items()}
        conds = {key: _with(value, pick(value.cond)) for key, value in cond.get("model_conds", {}).items()}
        if "num_video_frames" in conds:
            conds["num_video_frames"] = _with(conds["num_video_frames"], len(within))
        cond["model_conds"] = conds
        if cond.get("control") is not None:
            cond["control"] = _select_control(cond["control"], index, controls)
        return cond

    return [None if group is None else [select(cond) for cond in group] for group in conds]


def _with(condition: Any, value: Any) -> Any:
    changed = copy.copy(condition)
    changed.cond = value
    return changed


def _select_control(control: Any, index: Tensor, selected: dict[int, Any]) -> Any:
    """A ControlNet, and those before it, with the hints of the frames `index`; the network itself is shared. Hints that
    are fewer than the frames start over, as they do without windows. `selected` holds the copies already made: the host
    batches conditions only where they have the very same ControlNet.
    """
    if id(control) not in selected:
        chosen, hints = copy.copy(control), control.cond_hint_original
        if hints is not None and len(hints) > 1:
            hints = hints[index.to(hints.device) % len(hints)]
        chosen.cond_hint_original, chosen.cond_hint = hints, None
        if control.previous_controlnet is not None:
            chosen.previous_controlnet = _select_control(control.previous_controlnet, index, selected)
        selected[id(control)] = chosen
    return selected[id(control)]


class ContextWindows:
    """A context handler, as the host's samplers call it. Conditions in memory at a time are those of one window."""

    dim = 0  # where the frames are

    def __init__(
        self, length: int, stride: int, looped: bool, check_interrupt: Callable[[], None], freenoise: bool = False
    ):
        self.context_length, self.stride, self.looped, self.check_interrupt = length, stride, looped, check_interrupt
        # What the stock node's wrapper asks of the handler that stands in its place (ComfyUI 0.8.0): whether to shuffle
        # the noise, and for which windows.
        self.freenoise, self.context_overlap = freenoise, length - stride

    def should_use_context(self, model, conds, x_in, timestep, model_options) -> bool:
        return clip_length(conds, x_in) > self.context_length

    def execute(self, calc_cond_batch, model, conds, x_in: Tensor, timestep: Tensor, model_options) -> list[Tensor]:
        """What `calc_cond_batch` would give for all frames at once: a list of `[clips * T, 4, h, w]`, one for each
        group of conditions.
        """
        frames = clip_length(conds, x_in)
        starts = torch.arange(0, x_in.shape[0], frames)
        out, total = [torch.zeros_like(x_in) for _ in conds], x_in.new_zeros(x_in.shape[0], 1, 1, 1)
        for window in windows.cover(frames, self.context_length, self.stride, self.looped):
            self.check_interrupt()
            index = (starts[:, None] + window).flatten()
            weight = windows.weights(len(window)).repeat(len(starts)).to(x_in)[:, None, None, None]
            at = index.to(x_in.device)
            parts = calc_cond_batch(model, select_frames(conds, index, frames), x_in[at], timestep[at], model_options)
            for whole, part in zip(out, parts, strict=True):
                whole[at] += weight * part
            total[at] += weight
        return [whole / total for whole in out]


class ChosenFrames:
    """A context handler for a sampler that hands in only some of a clip's frames, `context_length` at a time: `index`
    says which, and the conditions follow.
    """

    dim = 0

    def __init__(self, frames: int, context_length: int):
        self.frames, self.context_length, self.index = frames, context_length, torch.arange(frames)

    def should_use_context(self, model, conds, x_in, timestep, model_options) -> bool:
        return True

    def execute(self, calc_cond_batch, model, conds, x_in: Tensor, timestep: Tensor, model_options) -> list[Tensor]:
        return calc_cond_batch(model, select_frames(conds, self.index, self.frames), x_in, timestep, model_options)
