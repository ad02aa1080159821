"""The text encoder: OpenCLIP ViT-H/14's text tower, read at its second-to-last layer.

As the official `FrozenOpenCLIPEmbedder` with layer "penultimate" (`lvdm/modules/encoders/condition.py`). open_clip
provides the transformer and the tokenizer; it is imported where it is needed, so that ComfyUI, which has its own, does
not load it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from .config import TextConfig, as_config


class TextEncoder(nn.Module):
    """Prompts -> `[N, 77, D]`.

    Parameter names are those of `cond_stage_model.model.*`, including what is never used.
    """

    def __init__(self, config: TextConfig | dict | None = None, *, dtype: torch.dtype | None = None, device=None):
        super().__init__()
        from open_clip.transformer import Transformer

        self.config = c = as_config(TextConfig, config)
        with torch.device(device or "cpu"):
            self.token_embedding = nn.Embedding(c.vocab_size, c.width)
            self.positional_embedding = nn.Parameter(0.01 * torch.randn(c.context_length, c.width))
            self.transformer = Transformer(c.width, c.layers, c.heads)
            self.ln_final = nn.LayerNorm(c.width)
            self.text_projection = nn.Parameter(c.width**-0.5 * torch.randn(c.width, c.width))
            self.logit_scale = nn.Parameter(torch.ones([]))
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        if not self.transformer.batch_first:
            raise ImportError(
                "open_clip_torch is older than 2.24 and puts the length first; install open_clip_torch>=2.24"
            )
        if dtype:
            self.to(dtype)

    def tokenize(self, prompts: str | Sequence[str]) -> Tensor:
        """Token ids `[N, 77]`: start, the words, end, then zeros. Longer prompts are cut to fit."""
        return self._tokenizer([prompts] if isinstance(prompts, str) else list(prompts))

    @cached_property
    def _tokenizer(self):
        from open_clip import SimpleTokenizer

        return SimpleTokenizer(context_length=self.config.context_length)

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Token ids `[N, 77]` -> `[N, 77, D]`: all layers but the last, then the final norm."""
        x = self.token_embedding(tokens) + self.positional_embedding
        mask = torch.full((tokens.shape[1], tokens.shape[1]), float("-inf"), device=x.device, dtype=x.dtype).triu(1)
        for block in self.transformer.resblocks[:-1]:
            x = block(x, attn_mask=mask)
        return self.ln_final(x)

    def forward(self, prompts: str | Sequence[str]) -> Tensor:
        """Encode prompts: `[N, 77, D]`."""
        return self.encode_tokens(self.tokenize(prompts).to(self.positional_embedding.device))
