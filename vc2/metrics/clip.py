"""Does a clip show what was asked for, and do its frames go together? By CLIP's embeddings (Radford et al., 2021)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .frames import best_device
from .metric import Clip, ClipMetric, Measure

BATCH = 16  # frames


class ClipScores(ClipMetric):
    name = "clip"
    measures = (
        Measure("clip_score", "100 times the cosine of a frame and the prompt, mean over the frames", "higher"),
        Measure("clipsim", "the same cosine, 0 to 1 (Wu et al., GODIVA)", "higher"),
        Measure("clip_temporal", "cosine of each frame and the next, mean", "higher"),
    )
    table = "Table 1 (EvalCrafter: CLIP score, CLIP-Temp); supplement's Table 1 (CLIPSIM)"
    library = ("open_clip_torch",)
    modules = ("open_clip",)
    licence = "MIT"
    file = "ViT-B-32.pt"
    preprocessing = "every frame: short side to the model's size (bicubic), cropped to its middle, normalised; fp32"
    warning = "CLIP hardly tells directions and counts; a frozen clip has the best clip_temporal, a line above `freeze`"

    @cached_property
    def _network(self) -> Any:
        from open_clip.openai import load_openai_model

        return load_openai_model(str(self.needed_file), precision="fp32", device="cpu").eval().to(best_device())

    @torch.no_grad()
    def embed_frames(self, clip: Clip) -> Tensor:
        """`[T, D]`, of length 1."""
        from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, image_transform
        from PIL import Image

        side = self._network.visual.image_size
        mean, std = OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
        prepare = image_transform(side, is_train=False, mean=mean, std=std, interpolation="bicubic")
        device = next(self._network.parameters()).device
        images = torch.stack([prepare(Image.fromarray(frame)) for frame in clip.frames])
        batches = [self._network.encode_image(batch.to(device)) for batch in images.split(BATCH)]
        return torch.nn.functional.normalize(torch.cat(batches).float(), dim=-1).cpu()

    @torch.no_grad()
    def embed_prompt(self, prompt: str) -> Tensor:
        """`[D]`, of length 1."""
        from open_clip import SimpleTokenizer

        tokens = SimpleTokenizer(context_length=self._network.context_length)([prompt])
        text = self._network.encode_text(tokens.to(next(self._network.parameters()).device))
        return torch.nn.functional.normalize(text.float(), dim=-1)[0].cpu()

    def measure(self, clip: Clip) -> dict[str, float]:
        frames, figures = self.embed_frames(clip), dict[str, float]()
        if clip.prompt:
            cosine = float((frames @ self.embed_prompt(clip.prompt)).mean())
            figures |= {"clip_score": 100 * cosine, "clipsim": cosine}
        if len(frames) > 1:
            figures["clip_temporal"] = float((frames[:-1] * frames[1:]).sum(-1).mean())
        return figures
