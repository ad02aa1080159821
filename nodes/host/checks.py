"""What a MODEL of ours refuses to sample, whichever node asks it to.

Uses `comfy.patcher_extension`, OUTER_SAMPLE wrappers; without them only our own samplers refuse it.
"""

from __future__ import annotations

from collections.abc import Sequence

import comfy.model_patcher
from comfy.patcher_extension import WrappersMP

from .space import RescaledSampling


def check_sampling(sampling: object, asked_by: str) -> RescaledSampling:
    """The model's sampling space; ValueError where another node replaced it and so dropped the rescale."""
    if not isinstance(sampling, RescaledSampling):
        raise ValueError(
            f"{asked_by}: a node before this one replaced the model's sampling by {type(sampling).__name__}, which"
            " drops the dynamic rescale; take it out"
        )
    return sampling


def check_latent(shape: Sequence[int]) -> None:
    """ValueError unless it is [frames, 4, h, w]."""
    if len(shape) != 4 or shape[1] != 4:
        raise ValueError(
            f"the latent must be [frames, 4, height / 8, width / 8], found {list(shape)}; make it with"
            " Empty VideoCrafter Latent or VAE Encode"
        )


def check_when_sampled(model: comfy.model_patcher.ModelPatcher) -> None:
    """Have every sampler, the stock ones too, refuse a replaced sampling space and another model's latent."""
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "vc2_checks", _check)


def _check(executor, noise, *args, **kwargs):
    check_sampling(executor.class_obj.model_patcher.get_model_object("model_sampling"), "VideoCrafter MODEL")
    check_latent(noise.shape)
    return executor(noise, *args, **kwargs)
