"""What surprises people though it is no error: said in a line, by whatever sampler, and the run goes on.

Uses OUTER_SAMPLE wrappers (`comfy.patcher_extension`); without them ask `surprises` in `run.run_sampler`.
"""

from __future__ import annotations

import comfy.model_patcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...vc2.networks.config import UNetConfig
from .model import WINDOW, frames_per_clip
from .progress import tell, warn

TRAINED_FRAMES = 16
FULL_WIDTH, SMALL_AREA = 320, 16 * 16  # channels of the released models; of the latent, four times the miniature's


def surprises(config: UNetConfig, latent: Tensor, frames: int, windows: bool) -> list[str]:
    """One sentence for each, about clips of `frames` in the latent `[clips * T, 4, h, w]`."""
    lines = []
    height, width = latent.shape[-2:]
    if frames > 2 * TRAINED_FRAMES and not windows:
        lines.append(
            f"{frames} frames in one pass, where the model is made for {TRAINED_FRAMES}: motion falls apart and memory"
            " runs out. Put VideoCrafter Context Windows before the sampler"
        )
    if len(latent) == 1 and latent.any():
        lines.append(
            "The latent is one still picture, so the result is one frame and no video. Repeat Latent Batch makes as"
            " many of it as the clip shall have"
        )
    if config.model_channels < FULL_WIDTH and height * width > SMALL_AREA:
        lines.append(
            f"{8 * width}x{8 * height} is large for so small a model: it shows blobs. The miniature is made for 64x64;"
            " for larger clips load VideoCrafter2"
        )
    return lines


def give_advice(model: comfy.model_patcher.ModelPatcher) -> None:
    """What every MODEL carries from the start."""
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "vc2_advice", _advise)


def _advise(executor, noise: Tensor, latent_image: Tensor, *args, **kwargs):
    guider = executor.class_obj
    options = guider.model_options
    windows = "context_handler" in options or WINDOW in options.get("transformer_options", {})
    frames = frames_per_clip(guider.conds, len(noise))
    lines = surprises(guider.model_patcher.model.model_config.vc2_config, latent_image, frames, windows)
    for line in lines:
        warn(line)
    samples = executor(noise, latent_image, *args, **kwargs)
    if lines:
        tell("\n".join(lines))  # progress may have taken its place
    return samples
