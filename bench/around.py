"""Ways of computing around a pass of the UNet: what both prompts share, texts, decoding, training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from bench.cases import Case
from bench.counted import Counts, Step
from bench.ways import Beside, Within, plain, within
from bench.workloads import Networks, Works, random_weights, training_step, works
from vc2 import pipeline
from vc2.networks.text import TextEncoder
from vc2.networks.unet import VideoUNet


def nothing_shared(case: Case, networks: Networks) -> Works:
    """A guided step whose prompts are two clips to the network."""
    ours = works(case, networks)["ours"]
    return {"ours": ours, "changed": within(partial(_clips_apart, networks.unet), ours)}


def count_nothing_shared() -> Counts:
    return Step().count(_clips_apart)


def _clips_apart(unet: VideoUNet) -> Within:
    forward = unet.forward

    def run(x: Tensor, t: Tensor, context: Tensor, fps: Tensor, **options: Any) -> Tensor:
        copies = len(context) // len(x)
        return forward(x.repeat(copies, 1, 1, 1, 1), t.repeat(copies), context, fps.repeat(copies), **options)

    return patch.object(unet, "forward", run)


def texts_apart(_: Case, networks: Networks) -> Works:
    text = random_weights(TextEncoder(device="meta"), networks.device)
    prompts = ["a panda playing guitar", ""]

    @torch.no_grad()
    def together() -> Tensor:
        return text(prompts)

    @torch.no_grad()
    def apart() -> Tensor:
        return torch.cat([text([prompt]) for prompt in prompts])

    return {"ours": together, "changed": apart}


def frames_apart(case: Case, networks: Networks) -> Works:
    ours = works(case, networks)["ours"]
    return {"ours": ours, "changed": within(lambda: patch.object(pipeline, "DECODED", 1), ours)}


def training_with(kind: type[nn.Module]) -> Callable[[Case, Networks], Works]:
    """Training whose convolutions of a kind are torch's own."""

    def make(case: Case, networks: Networks) -> Works:
        changed = VideoUNet(networks.config, device="meta")
        plain(kind)(changed)
        return {"ours": works(case, networks)["ours"], "changed": training_step(changed, case, networks)}

    return make


TRAINING = Case("training step", "fifth", 8, 128, 128)
BESIDE = {
    "guided step: nothing shared by both prompts": Beside(
        nothing_shared,
        Case("guided step", "fifth", 16, 128, 128),
        "the layers before the first text are computed once",
        count_nothing_shared,
    ),
    "two texts, one by one": Beside(
        texts_apart, Case("two texts", "full", 1, 0, 0), "one pass is used, for GPUs: half as many kernels"
    ),
    "decoding frame by frame": Beside(
        frames_apart, Case("decode", "fifth", 16, 64, 64), "all sixteen at once, where they are small"
    ),
    "training: temporal convolutions as conv3d": Beside(
        training_with(nn.Conv3d), TRAINING, "conv2d over [B, C, T, H W] is used"
    ),
    "training: init_attn's projections as conv1d": Beside(training_with(nn.Conv1d), TRAINING, "a Linear is used"),
}
