"""Ways of computing beside a pass of the UNet without gradients: what both prompts share, texts, decoding, training.

Each is what `bench.changes` times in turns: ours, and the same in another way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn

from bench.cases import Case
from bench.counted import Counts, Decoding, Step
from bench.workloads import GUIDANCE, Networks, Works, random_weights, works
from vc2 import pipeline
from vc2.networks.text import TextEncoder
from vc2.networks.unet import VideoUNet

CASE = Case("guided step", "fifth", 16, 128, 128)
TRAINING = Case("training step", "fifth", 8, 128, 128)


class Beside(NamedTuple):
    works: Callable[[Networks], Works]  # "ours" and "changed"
    case: Case
    note: str
    counts: Callable[[], Counts] | None = None


def nothing_shared(networks: Networks) -> Works:
    """A guided step whose prompts are two clips to the network."""
    x, t = networks.draw(*CASE.latents), torch.full((1,), 500)
    texts = torch.cat([networks.draw(1, 77, networks.config.context_dim, seed=seed) for seed in (1, 2)])

    def guided(copies: int) -> Callable[[], Tensor]:
        @torch.no_grad()
        def run() -> Tensor:
            cond, uncond = networks.unet(x.repeat(copies, 1, 1, 1, 1), t.repeat(copies), texts, None).chunk(2)
            return uncond + GUIDANCE * (cond - uncond)

        return run

    return {"ours": guided(1), "changed": guided(2)}


def count_nothing_shared() -> Counts:
    """Of two clips with a prompt each, as 0.2.0 had it."""
    return Step().count(lambda unet: patch.object(unet, "forward", _apart(unet.forward)))


def _apart(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(x: Tensor, t: Tensor, context: Tensor, fps: Tensor, **options: object) -> Tensor:
        copies = len(context) // len(x)
        return forward(x.repeat(copies, 1, 1, 1, 1), t.repeat(copies), context, fps.repeat(copies), **options)

    return run


def texts_apart(networks: Networks) -> Works:
    text = random_weights(TextEncoder(device="meta"), networks.device)
    prompts = ["a panda playing guitar", ""]

    @torch.no_grad()
    def together() -> Tensor:
        return text(prompts)

    @torch.no_grad()
    def apart() -> Tensor:
        return torch.cat([text([prompt]) for prompt in prompts])

    return {"ours": together, "changed": apart}


def frames_apart(networks: Networks) -> Works:
    decode = works(Case("decode", "fifth", 16, 64, 64), networks)["ours"]

    def apart() -> Tensor:
        with patch.object(pipeline, "DECODED", 1):
            return decode()

    return {"ours": decode, "changed": apart}


def count_frames_apart() -> Counts:
    with patch.object(pipeline, "DECODED", 1):
        return Decoding(64, 64).count()


def training_with(kind: type[nn.Module]) -> Callable[[Networks], Works]:
    """Training whose convolutions of a kind are torch's own."""

    def make(networks: Networks) -> Works:
        ours = works(TRAINING, networks)["ours"]
        init = VideoUNet.__init__

        def and_change(self: VideoUNet, *args: object, **kwargs: object) -> None:
            init(self, *args, **kwargs)  # type: ignore[arg-type]
            for module in self.modules():
                if isinstance(module, kind):
                    module.__class__ = kind

        with patch.object(VideoUNet, "__init__", and_change):
            changed = works(TRAINING, networks)["ours"]
        return {"ours": ours, "changed": changed}

    return make


BESIDE = {
    "guided step: nothing shared by both prompts": Beside(
        nothing_shared, CASE, "the layers before the first text are computed once", count_nothing_shared
    ),
    "two texts, one by one": Beside(
        texts_apart,
        Case("two texts", "full", 1, 0, 0),
        "one pass is used, for GPUs: half as many kernels",
    ),
    "decoding frame by frame": Beside(
        frames_apart, Case("decode", "fifth", 16, 64, 64), "all sixteen at once, where they are small"
    ),
    "training: temporal convolutions as conv3d": Beside(
        training_with(nn.Conv3d), TRAINING, "conv2d over [B, C, T, H W] is used"
    ),
    "training: init_attn's projections as conv1d": Beside(training_with(nn.Conv1d), TRAINING, "a Linear is used"),
}
