"""Clips longer than the model's window: the model sees some frames at a time, or FreeNoise's windows inside the UNet.

The host's own windows fail for models whose frames are the batch: they compare one sigma a frame with the schedule's,
and never divide conditions by frame. Uses, of ComfyUI:

- `context_handler` in model_options, asked by `comfy.samplers.calc_cond_batch`. Without it wrap CALC_COND_BATCH.
- `comfy.context_windows.IndexListContextHandler`: what the stock windows node leaves on a model. Without it that node
  does not work here.
- `comfy.patcher_extension`, OUTER_SAMPLE wrappers: where ours take the stock windows' place, and FreeNoise's noise.
  Without them shuffle the noise in our own samplers.
- PREPARE_SAMPLING wrappers: memory is then reserved for one window; without them, for all frames.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import comfy.context_windows
import comfy.model_management
import comfy.model_patcher
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...vc2.sampling.windows import cover, reschedule_noise, weights
from .model import WINDOW, clip_length, frames_per_clip
from .progress import tell

log = logging.getLogger(__name__)

# Of the stock windows node, by its inputs' names.
RETAINED = ("cond_retain_index_list", "latent_retain_index_list")
STOCK_OPTIONS = (*RETAINED, "freenoise", "split_conds_to_windows", "causal_window_fix")


def select_frames(conds: Sequence[list | None], index: Tensor, frames: int) -> list[list | None]:
    """Groups of conditions for the frames `index` of one or several clips of `frames`.

    Whatever has an entry for each frame keeps those, and clips get len(index) frames. `index` counts through the whole
    batch; it holds the same frames of every clip.
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
    """A ControlNet, and those before it, with the hints of the frames `index`; the network itself is shared.

    Hints that are fewer than the frames start over, as they do without windows. `selected` holds the copies already
    made: the host batches conditions only where they have the very same ControlNet.
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
    """A context handler: what the model says of a frame is averaged over the windows that the frame is in.

    Conditions in memory at a time are those of one window. `split_conds`: of several prompts for one clip each window
    reads the one whose share of the clip its middle is in. Clones of a model share their handler, so that it holds
    nothing of a run.
    """

    dim = 0  # where the frames are

    def __init__(self, length: int, stride: int, looped: bool, freenoise: bool = False, split_conds: bool = False):
        self.context_length, self.stride, self.looped, self.split_conds = length, stride, looped, split_conds
        # What the stock node's wrapper asks of the handler that stands in its place (ComfyUI 0.8.0): whether to shuffle
        # the noise, and for which windows.
        self.freenoise, self.context_overlap = freenoise, length - stride

    def _apply_freenoise(self, noise: Tensor, conds: list, seed: int) -> Tensor:
        """The initial noise `[clips * T, 4, h, w]`, which the wrapper leaves to the handler from ComfyUI 0.28 on."""
        clips = noise.split(clip_length(conds, noise))
        window = self.context_length, self.stride
        return torch.cat([reschedule_noise(clip, *window, torch.Generator().manual_seed(seed)) for clip in clips])

    def should_use_context(self, model, conds, x_in, timestep, model_options) -> bool:
        return clip_length(conds, x_in) > self.context_length

    def execute(self, calc_cond_batch, model, conds, x_in: Tensor, timestep: Tensor, model_options) -> list[Tensor]:
        """What `calc_cond_batch` would give for all frames at once.

        A list of `[clips * T, 4, h, w]`, one for each group of conditions.
        """
        frames = clip_length(conds, x_in)
        starts = torch.arange(0, x_in.shape[0], frames)
        sums, total = [torch.zeros_like(x_in) for _ in conds], x_in.new_zeros(x_in.shape[0], 1, 1, 1)
        windows = cover(frames, self.context_length, self.stride, self.looped)
        for number, window in enumerate(windows, 1):
            tell(f"window {number} of {len(windows)}")
            comfy.model_management.throw_exception_if_processing_interrupted()
            index = (starts[:, None] + window).flatten()
            weight = weights(len(window)).repeat(len(starts)).to(x_in)[:, None, None, None]
            at = index.to(x_in.device)
            read = select_frames(self._read_in(window, conds, frames), index, frames)
            seen = calc_cond_batch(model, read, x_in[at], timestep[at], model_options)
            for out, x0 in zip(sums, seen, strict=True):
                out[at] += weight * x0
            total[at] += weight
        return [out / total for out in sums]

    def _read_in(self, window: Tensor, conds: list, frames: int) -> list:
        """The conditions that a window of a clip's `frames` frames reads: those of its middle, also where a looped one
        runs on from the clip's end to its start.
        """
        if not self.split_conds:
            return conds
        middle = (int(window[0]) + (len(window) - 1) / 2) % frames / frames
        return [group and [group[min(int(middle * len(group)), len(group) - 1)]] for group in conds]


class ChosenFrames:
    """A context handler for a sampler that hands in only some of a clip's frames, `context_length` at a time.

    `index` says which, and the conditions follow.
    """

    dim = 0

    def __init__(self, frames: int, context_length: int):
        self.frames, self.context_length, self.index = frames, context_length, torch.arange(frames)

    def should_use_context(self, model, conds, x_in, timestep, model_options) -> bool:
        return True

    def execute(self, calc_cond_batch, model, conds, x_in: Tensor, timestep: Tensor, model_options) -> list[Tensor]:
        return calc_cond_batch(model, select_frames(conds, self.index, self.frames), x_in, timestep, model_options)


def has_windows(model: comfy.model_patcher.ModelPatcher) -> bool:
    """Whether a node before has set windows, the stock one or ours."""
    return "context_handler" in model.model_options or WINDOW in model.model_options["transformer_options"]


def set_context_windows(model: comfy.model_patcher.ModelPatcher, length: int, stride: int, looped: bool) -> None:
    """On a clone: windows of `length` frames, `stride` apart; looped ones run on from the end to the start."""
    model.model_options["context_handler"] = ContextWindows(length, stride, looped)


def choose_frames(
    model: comfy.model_patcher.ModelPatcher, frames: int, window: int
) -> comfy.model_patcher.ModelPatcher:
    """A clone for `samplers.sample_fifo`, which hands in `window` of a clip's frames at a time."""
    model = model.clone()
    model.model_options["context_handler"] = ChosenFrames(frames, window)
    return model


def set_free_noise(model: comfy.model_patcher.ModelPatcher, length: int, stride: int) -> None:
    """On a clone: FreeNoise, windows of temporal attention inside the UNet, and initial noise that repeats."""

    def reschedule(executor, noise: Tensor, *args, **kwargs):
        return executor(reschedule_clips(noise, executor.class_obj.conds, (length, stride)), *args, **kwargs)

    model.model_options["transformer_options"][WINDOW] = (length, stride)
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, WINDOW, reschedule)


def reschedule_clips(noise: Tensor, conds: dict, window: tuple[int, int]) -> Tensor:
    """`vc2.sampling.windows.reschedule_noise` for each clip in `[clips * T, 4, h, w]`.

    The order is always the same; the seed decides the noise itself.
    """
    clips = noise.split(frames_per_clip(conds, noise.shape[0]))
    return torch.cat([reschedule_noise(clip, *window, torch.Generator().manual_seed(0)) for clip in clips])


def support_windows(model: comfy.model_patcher.ModelPatcher) -> None:
    """What every MODEL carries from the start, so that the stock windows node works and memory is reserved as used."""
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "vc2_stock_windows", _adopt_stock_windows)
    model.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, "vc2_window_memory", _reserve_for_windows)


def _adopt_stock_windows(executor, *args, **kwargs):
    """Ours in the place of the stock node's windows.

    With their length, overlap, loop, FreeNoise and split prompts. Raises ValueError for what only models that continue
    an image can do. Where `causal_window_fix` is on, and by default it is, the log says that it is left out.
    """
    options = executor.class_obj.model_options  # this run's own copy
    stock = options.get("context_handler")
    if isinstance(stock, comfy.context_windows.IndexListContextHandler):
        # Before ComfyUI 0.8.0 or 0.28 the node does not ask for these.
        asked = {name: getattr(stock, name, False) for name in STOCK_OPTIONS}
        if retained := [name for name in RETAINED if asked[name]]:
            raise ValueError(
                f"Context Windows: {' and '.join(retained)} would keep an image in every window, which this"
                " text-to-video model has none of; leave it empty"
            )
        schedule, schedules = stock.context_schedule.name, comfy.context_windows.ContextSchedules
        overlap = 0 if schedule == schedules.BATCHED else min(stock.context_overlap, stock.context_length - 1)
        log.info(
            "context windows of %d frames, %d of them shared with the next, blended as by VideoCrafter Context"
            " Windows%s",
            stock.context_length,
            overlap,
            "; no causal_window_fix, which is for models that compress time" if asked["causal_window_fix"] else "",
        )
        looped = stock.closed_loop and schedule == schedules.UNIFORM_LOOPED
        options["context_handler"] = ContextWindows(
            stock.context_length,
            stock.context_length - overlap,
            looped,
            freenoise=asked["freenoise"],
            split_conds=asked["split_conds_to_windows"],
        )
    return executor(*args, **kwargs)


def _reserve_for_windows(executor, model, noise_shape, conds, *args, model_options=None, **kwargs):
    """Memory for what the model sees, a window of each clip at a time, where the host would reserve it for all frames.

    The stock wrapper, which knows of no clips, finds no handler and does nothing.
    """
    options = dict(model_options or {})
    handler = options.get("context_handler")
    if isinstance(handler, (ContextWindows, ChosenFrames)):
        del options["context_handler"]
        total = noise_shape[0]
        clips = max(1, total // frames_per_clip(conds, total))
        noise_shape = [min(total, clips * handler.context_length), *noise_shape[1:]]
    return executor(model, noise_shape, conds, *args, model_options=options, **kwargs)
