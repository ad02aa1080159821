"""A network's configuration, told from the names and shapes of its tensors alone, never from a file's name.

Each function returns the fields of the config class that `vc2.networks.config` builds from them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

State = Mapping[str, Any]  # tensor name -> anything with a .shape

# More of these no model of the family has; a file of a few bytes can claim any number, and take for ever to check.
MOST_BLOCKS, MOST_DEPTH, MOST_LEVELS, MOST_LAYERS = 64, 12, 8, 64


class UnsupportedCheckpointError(ValueError):
    """The tensors do not describe a network that this package implements."""


def unet_fields(state: State) -> dict[str, Any]:
    """Of a UNet (no `model.diffusion_model.` prefix), for UNetConfig.

    Raises UnsupportedCheckpointError where the tensors are not a VideoCrafter text-to-video UNet (an SD 2.1 one, say).
    """
    first = state.get("input_blocks.0.0.weight")
    if first is None:
        raise UnsupportedCheckpointError("no tensor input_blocks.0.0.weight: this is not a UNet in the LDM layout")
    if any(".to_k_ip." in name for name in state):
        raise UnsupportedCheckpointError(
            "the UNet has image cross-attention (to_k_ip): VideoCrafter1 image-to-video is not supported; use a"
            " text-to-video checkpoint"
        )
    if not any(name.startswith("init_attn.") or ".temopral_conv." in name for name in state):
        kind = "a Stable Diffusion image UNet" if "middle_block.1.proj_in.weight" in state else "not a video UNet"
        raise UnsupportedCheckpointError(
            f"no temporal layers (init_attn, temopral_conv): this is {kind}; expected a VideoCrafter text-to-video"
            " checkpoint"
        )

    def any_shape(*names: str, dims: int = 1) -> tuple[int, ...] | None:
        return next((_shape(state, name, dims) for name in names if name in state), None)

    width, in_channels, *_ = _shape(state, "input_blocks.0.0.weight", 4)
    levels = _walk_input_blocks(state)
    spatial = f"input_blocks.{levels.first_attention}.1."
    block = spatial + "transformer_blocks.0."
    init = "init_attn.0.transformer_blocks.0."
    # Every answer comes from whichever of several tensors is there, so that one that is missing is later named and
    # not mistaken for another family.
    inner = any_shape("init_attn.0.proj_in.weight", *(f"{init}attn{i}.to_{p}.weight" for i in (1, 2) for p in "qkv"))
    text = any_shape(f"{block}attn2.to_k.weight", f"{block}attn2.to_v.weight", dims=2)
    table = any_shape(*(name for name in state if name.endswith(".embeddings_table")), dims=2)
    temporal_conv = any(".temopral_conv." in name for name in state)
    if not temporal_conv and table is None:
        raise UnsupportedCheckpointError(
            "temporal attention with neither temporal convolutions (VideoCrafter2) nor relative positions"
            " (VideoCrafter1): no known model"
        )
    return dict(
        in_channels=in_channels,
        out_channels=(any_shape("out.2.weight", "out.2.bias") or (4,))[0],
        model_channels=width,
        channel_mult=tuple(w // width for w in levels.widths),
        num_res_blocks=levels.num_res_blocks,
        attention_resolutions=levels.attention_resolutions,
        # init_attn always has 8 heads; a table of relative positions is as wide as a head.
        num_head_channels=inner[0] // 8 if inner else table[1] if table else 64,
        context_dim=text[1] if text else 1024,
        transformer_depth=_count(state, re.escape(spatial) + r"transformer_blocks\.(\d+)\.", MOST_DEPTH),
        use_linear=len(any_shape(f"{spatial}proj_in.weight", f"{spatial}proj_out.weight") or (0, 0)) == 2,
        temporal_conv=temporal_conv,
        temporal_attention=any(name.startswith(f"input_blocks.{levels.first_attention}.2.") for name in state),
        use_relative_position=table is not None,
        temporal_length=(table[0] - 1) // 2 if table else 16,
        addition_attention=any(name.startswith("init_attn.") for name in state),
        fps_cond=any(name.startswith("fps_embedding.") for name in state),
        time_cond_proj_dim=(any_shape("time_cond_proj.weight", dims=2) or (0, None))[1],
        motion_cond_proj_dim=(any_shape("motion_cond_proj.weight", dims=2) or (0, None))[1],
    )


def autoencoder_fields(state: State) -> dict[str, Any]:
    """Of a VAE (no `first_stage_model.` prefix), for AutoencoderConfig. Raises UnsupportedCheckpointError."""
    if "encoder.conv_in.weight" not in state or "decoder.conv_in.weight" not in state:
        raise UnsupportedCheckpointError(
            "no encoder.conv_in.weight and decoder.conv_in.weight: this is not a KL autoencoder in the LDM layout"
        )
    ch, in_channels, *_ = _shape(state, "encoder.conv_in.weight", 4)
    levels = _count(state, r"encoder\.down\.(\d+)\.", MOST_LEVELS)
    return dict(
        ch=ch,
        ch_mult=tuple(_shape(state, f"encoder.down.{i}.block.0.conv1.weight", 4)[0] // ch for i in range(levels)),
        num_res_blocks=_count(state, r"encoder\.down\.0\.block\.(\d+)\.", MOST_LEVELS),
        z_channels=_shape(state, "decoder.conv_in.weight", 4)[1],
        embed_dim=_shape(state, "post_quant_conv.weight", 4)[1],
        in_channels=in_channels,
        out_ch=_shape(state, "decoder.conv_out.weight", 4)[0],
    )


def text_fields(state: State) -> dict[str, Any]:
    """Of a text tower (no `cond_stage_model.model.` prefix), for TextConfig. Raises UnsupportedCheckpointError.

    The number of heads is not visible in any shape: open_clip's towers use 64 channels a head, narrow ones at least
    four heads.
    """
    if "token_embedding.weight" not in state:
        raise UnsupportedCheckpointError("no token_embedding.weight: this is not an open_clip text tower")
    vocab_size, width = _shape(state, "token_embedding.weight", 2)
    return dict(
        context_length=_shape(state, "positional_embedding", 2)[0],
        vocab_size=vocab_size,
        width=width,
        heads=max(4, width // 64),
        layers=_count(state, r"transformer\.resblocks\.(\d+)\.", MOST_LAYERS),
    )


@dataclass
class _Levels:
    widths: list[int]
    num_res_blocks: int
    first_attention: int
    attention_resolutions: tuple[int, ...]


def _walk_input_blocks(state: State) -> _Levels:
    """Follow `input_blocks.1..n`: a downsampler (`.0.op`) ends a level, a ResBlock (`.0.` anything else) belongs to
    one, a transformer is its `.1.`.
    """
    widths: list[int] = []
    resolutions: list[int] = []
    per_level, factor, first_attention = [0], 1, 0
    for index in range(1, _count(state, r"input_blocks\.(\d+)\.", MOST_BLOCKS)):
        names = [name for name in state if name.startswith(f"input_blocks.{index}.")]
        if any(name.startswith(f"input_blocks.{index}.0.op.") for name in names):
            per_level.append(0)
            factor *= 2
            continue
        outputs = [
            _shape(state, n, 1)[0]
            for n in names
            if re.search(r"\.0\.(in_layers\.2|out_layers\.[03]|emb_layers\.1)\.(weight|bias)$", n)
        ]
        if not outputs:
            break
        if per_level[-1] == 0:
            widths.append(outputs[0])
        per_level[-1] += 1
        if any(name.startswith(f"input_blocks.{index}.1.") for name in names):
            first_attention = first_attention or index
            if factor not in resolutions:
                resolutions.append(factor)
    if not widths or len(set(per_level)) != 1 or not resolutions:
        raise UnsupportedCheckpointError(
            f"input_blocks do not form a regular UNet: ResBlocks per level {per_level}, attention at factors"
            f" {resolutions}"
        )
    return _Levels(widths, per_level[0], first_attention, tuple(reversed(resolutions)))


def _count(state: State, pattern: str, at_most: int) -> int:
    """How many indices `pattern`'s only group matches at the start of a name.

    Raises UnsupportedCheckpointError unless they are 0, 1, 2 ... without a gap, and at most so many.
    """
    names = {m.group(1): name for name in state if (m := re.match(pattern, name))}
    expected = {str(index) for index in range(len(names))}
    if odd := sorted(names.keys() - expected):
        missing = min(expected - names.keys(), key=int)
        raise UnsupportedCheckpointError(
            f"{names[odd[0]]} is there and number {missing} of its kind is not; expected {len(names)} of them to be"
            f" numbered from 0 to {len(names) - 1}"
        )
    if len(names) > at_most:
        raise UnsupportedCheckpointError(
            f"{names[str(at_most)]} is one of {len(names)} of its kind; no model has over {at_most}"
        )
    return len(names)


def _shape(state: State, name: str, dims: int) -> tuple[int, ...]:
    """A tensor's shape. Raises UnsupportedCheckpointError for fewer dimensions, and for none along one of them."""
    shape = tuple(state[name].shape)
    if len(shape) < dims or 0 in shape:
        raise UnsupportedCheckpointError(
            f"{name} has shape {shape}; expected {dims} dimensions or more, none of them 0"
        )
    return shape
