"""For `test_sharing`, in a process of ComfyUI's: what both prompts share, and whether clips stay the same."""

from __future__ import annotations

from pathlib import Path

import comfy.controlnet
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_freelunch import FreeU
from pack.nodes.host import model as host_model
from pack.nodes.host.loading import load_model
from pack.nodes.sample import VC2Sampler
from pack.vc2.files import checkpoint
from pack.vc2.networks.layers import SpatialTransformer

from tests.host.contracts import NONE, TEXT, difference

FRAMES = 4
PATCHES = (
    "attn1_output_patch",
    "attn1_patch",
    "attn2_output_patch",
    "attn2_patch",
    "emb_patch",
    "input_block_patch",
    "input_block_patch_after_skip",
    "middle_block_after_patch",
    "middle_patch",
    "output_block_patch",
)


class Control(comfy.controlnet.ControlBase):
    """Residuals for what the first convolution gives: as it goes in, or as the last of the skips comes out."""

    def __init__(self, place: str, unet):
        super().__init__()
        later = [None] * (len(unet.output_blocks) - 1)  # the last of a list is taken first
        self.place, self.residuals = place, [torch.ones(1, unet.config.model_channels, 8, 8)]
        self.residuals += later if place == "output" else []
        self.set_cond_hint(torch.zeros(FRAMES, 3, 8, 8))

    def get_control(self, x, *rest):
        return {"input": [], "middle": [], "output": []} | {self.place: list(self.residuals)}


def patched(model, name: str):
    """With a patch that leaves what it is given."""
    as_given = {
        "attn1_patch": lambda x, context, value, extra: (x, context, value),
        "attn2_patch": lambda x, context, value, extra: (x, context, value),
        "middle_block_after_patch": lambda given: given,
        "output_block_patch": lambda h, skip, options: (h, skip),
    }
    model = model.clone()
    model.set_model_patch(as_given.get(name, lambda x, *rest: x), name)
    return model


def replaced(model, name: str):
    model = model.clone()
    model.set_model_patch_replace(lambda q, k, v, extra: v.mean(1, keepdim=True).expand_as(q), name, "middle", 0)
    return model


def wrapped(model, scale: float | None):
    """With a wrapper that hands on what it is given, or the second prompt's latents at another scale."""

    def wrapper(executor, x, *rest, **named):
        if scale is not None:
            x = torch.cat([x[: len(x) // 2], scale * x[len(x) // 2 :]])
        return executor(x, *rest, **named)

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", wrapper)
    return model


def middle_patches_keep_what_they_give(model, sample) -> bool:
    """Also where that is no tensor of its own."""
    kept = []

    def expands(x, options):
        kept.append((x.mean(1, keepdim=True).expand_as(x), x.mean(1, keepdim=True).expand_as(x).clone()))
        return kept[-1][0]

    model = model.clone()
    model.set_model_patch(expands, "middle_patch")
    sample(model)
    return bool(kept) and all(torch.equal(given, copy) for given, copy in kept)


def overridden(model):
    model = model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = lambda f, *a, **kw: f(*a, **kw)
    return model


def observe(path: Path) -> dict:
    model = load_model(checkpoint.load(path))
    unet = model.model.diffusion_model
    first = next(m for m in unet.modules() if isinstance(m, SpatialTransformer)).transformer_blocks[0]

    def sample(model, fps=(8.0, 8.0), areas=(), **values):
        positive = [[TEXT, {"area": area, "strength": 1.0} | values] for area in areas] or [[TEXT, values]]
        conds = [
            host_model.with_video_conditions(c, f, 0) for c, f in zip((positive, [[NONE, values]]), fps, strict=True)
        ]
        latent = {"samples": torch.zeros(FRAMES, 4, 8, 8)}
        return VC2Sampler.execute(model, *conds, latent, seed=0, guidance=2.0, eta=0.0, steps=1, denoise=1.0).result[0][
            "samples"
        ]

    def seen(model, **values) -> list:
        """Frames of which the first attention among pixels is computed in a step, frames of which that to the text is,
        and how far the clip is from one whose prompts share nothing.
        """
        rows: list[list[int]] = [[], []]
        watched = [
            layer.register_forward_hook(lambda _, inputs, __, kept=kept: kept.append(inputs[0].shape[:-1].numel()))
            for layer, kept in zip((first.attn1, first.attn2), rows, strict=True)
        ]
        clip = sample(model, **values)
        for watch in watched:
            watch.remove()
        prompts, host_model._prompts = host_model._prompts, lambda *_: 1
        apart = sample(model, **values)
        host_model._prompts = prompts
        tokens = 4 * 8 if "areas" in values else 8 * 8  # of a frame; where there are areas, of half of one
        return [sorted({n // tokens for n in kept}) for kept in rows] + [difference(clip, apart)]

    return {
        "nothing": seen(model),
        "overridden attention": seen(overridden(model)),
        "FreeU": seen(FreeU().patch(model, 1.1, 1.2, 0.9, 0.2)[0]),
        "frame rates": seen(model, fps=(8.0, 24.0)),
        "wrapped": seen(wrapped(model, None)),
        "wrapped, others": seen(wrapped(model, 0.5)),
        "areas": seen(model, areas=((4, 8, 0, 0), (4, 8, 4, 0))),
        **{name: seen(patched(model, name)) for name in PATCHES},
        **{f"{name} replaced": seen(replaced(model, name)) for name in ("attn1", "attn2")},
        "control input": seen(model, control=Control("input", unet)),
        "control output": seen(model, control=Control("output", unet)),
        "kept": middle_patches_keep_what_they_give(model, sample),
    }
