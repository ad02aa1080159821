"""What users plug into a MODEL (ControlNet, FreeU, attention patches), run at the UNet's hooks.

Nothing of ComfyUI is imported. Relied on are the keys of transformer_options and of the control dict, and the order in
which its own UNet runs patches: follow `comfy/ldm/modules/diffusionmodules/openaimodel.py` (UNetModel) and
`comfy/ldm/modules/attention.py` (BasicTransformerBlock) when they change.
"""

from __future__ import annotations

from torch import Tensor

from ...vc2.networks.attention import Attention
from ...vc2.networks.hooks import Hooks

# The last has the embedding among its inputs.
BEFORE_TEXT = (
    "emb_patch",
    "input_block_patch",
    "input_block_patch_after_skip",
    "attn1_patch",
    "attn1_output_patch",
    "middle_patch",
    "middle_block_after_patch",
)


class HostHooks(Hooks):
    """`control`: residuals for "input", "middle" and "output", taken from the end; `options`: transformer_options.

    `inputs`: what the host gave the UNet, every frame in the batch (x, timesteps, context).
    """

    def __init__(self, control: dict | None, options: dict, model_channels: int, inputs: dict[str, Tensor]):
        self.control, self.options, self.channels, self.inputs = control, options, model_channels, dict(inputs)
        self.patches: dict = options.get("patches", {})
        self.replacements: dict = options.get("patches_replace", {})
        self.options |= {"transformer_index": 0, "original_shape": list(inputs["x"].shape)}

    @property
    def see_what_comes_before_text(self) -> bool:
        """Whether anything plugged in is given activations, or an embedding, before the first attention to the text."""
        return bool(
            any(self.patches.get(name) for name in BEFORE_TEXT)
            or self.replacements.get("attn1")
            or (self.control or {}).get("input")
            or self.options.get("optimized_attention_override")
        )

    @property
    def patches_text(self) -> bool:
        """Whether anything is plugged into the attention to the text."""
        return bool(
            self.patches.get("attn2_patch") or self.patches.get("attn2_output_patch") or self.replacements.get("attn2")
        )

    def embedding(self, emb):
        for patch in self.patches.get("emb_patch", ()):
            emb = patch(emb, self.channels, self.options)
        self.inputs["emb"] = emb
        return emb

    def enter(self, place, index):
        self.options["block"] = (place, index)

    def input(self, index, h):
        h = self._controlled(h, "input")
        for patch in self.patches.get("input_block_patch", ()):
            h = patch(h, self.options)
        skip = h
        for patch in self.patches.get("input_block_patch_after_skip", ()):
            h = patch(h, self.options)
        return h, skip

    def middle(self, h):
        h = self._controlled(h, "middle")
        for patch in self.patches.get("middle_block_after_patch", ()):
            h = patch(self.inputs | {"h": h, "y": None, "transformer_options": self.options})["h"]
        return h

    def output(self, index, h, skip):
        skip = self._controlled(skip, "output")
        for patch in self.patches.get("output_block_patch", ()):
            h, skip = patch(h, skip, self.options)
        return h, skip

    def attention(self, name: str, depth: int, layer: Attention, x: Tensor, context: Tensor | None = None) -> Tensor:
        """As the host: patches of (x, context, value), a replacement of the attention, then patches of its output."""
        self.options["block_index"] = depth
        extra = self._without_patches() | {"n_heads": layer.heads, "dim_head": layer.head_dim, "attn_precision": None}
        context = x if context is None else context
        value = context
        for patch in self.patches.get(f"{name}_patch", ()):
            x, context, value = patch(x, context, value, extra)
            value = context if value is None else value
        block = self.options["block"]
        replacements = self.replacements.get(name, {})
        replace = replacements.get((*block, depth), replacements.get(block))
        if replace:
            x = layer.to_out(replace(layer.to_q(x), layer.to_k(context), layer.to_v(value), extra))
        else:
            x = layer(x, context, value)
        for patch in self.patches.get(f"{name}_output_patch", ()):
            x = patch(x, extra)
        return x

    def between(self, x):
        patches = self.patches.get("middle_patch", ())
        for patch in patches:
            x = patch(x, self._without_patches())
        return x.clone() if patches else x  # a sum goes into it, and the patch may keep what it gave

    def leave_transformer(self):
        self.options["transformer_index"] += 1

    def _without_patches(self) -> dict:
        return {key: value for key, value in self.options.items() if key not in ("patches", "patches_replace")}

    def _controlled(self, h: Tensor, place: str) -> Tensor:
        residuals = (self.control or {}).get(place)
        residual = residuals.pop() if residuals else None
        if residual is None:
            return h
        if residual.shape[1:] != h.shape[1:] or residual.shape[0] not in (1, h.shape[0]):
            raise ValueError(
                f"a ControlNet residual of shape {tuple(residual.shape)} does not fit this model's {tuple(h.shape)};"
                " use a ControlNet for SD 2.1"
            )
        return h + residual.to(h.dtype)
