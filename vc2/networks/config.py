"""Typed configurations of the three networks, and how to read them off a state dict.

Field names are those of the official YAML files (`configs/inference_t2v_512_v2.0.yaml` of the VideoCrafter repository),
so that `UNetConfig(**yaml["params"])` works. A checkpoint's family and widths are told from tensor names and shapes
alone, never from a file name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

State = Mapping[str, Any]  # tensor name -> anything with a .shape
C = TypeVar("C", "UNetConfig", "AutoencoderConfig", "TextConfig")


class UnsupportedCheckpointError(ValueError):
    """The tensors do not describe a network that this package implements."""


@dataclass(frozen=True)
class UNetConfig:
    """The denoiser's shape; defaults are VideoCrafter2's.

    `attention_resolutions` are downsampling factors (4 means "at a quarter of the latent's height"), as in the official
    file. `temporal_length` is the clip length the model was trained at; it bounds relative positions and nothing else.
    """

    in_channels: int = 4
    out_channels: int = 4
    model_channels: int = 320
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (4, 2, 1)
    num_head_channels: int = 64
    context_dim: int = 1024
    transformer_depth: int = 1
    use_linear: bool = True
    temporal_conv: bool = True
    temporal_attention: bool = True
    temporal_selfatt_only: bool = True
    use_relative_position: bool = False
    use_causal_attention: bool = False
    temporal_length: int = 16
    addition_attention: bool = True
    fps_cond: bool = True
    use_checkpoint: bool = False
    time_cond_proj_dim: int | None = None  # T2V-Turbo: width of the embedded guidance scale
    motion_cond_proj_dim: int | None = None  # T2V-Turbo v2: width of the embedded motion guidance

    def __post_init__(self) -> None:
        # YAML gives lists; a frozen dataclass must stay hashable and comparable.
        object.__setattr__(self, "channel_mult", tuple(self.channel_mult))
        object.__setattr__(self, "attention_resolutions", tuple(self.attention_resolutions))
        if not self.temporal_selfatt_only:
            raise UnsupportedCheckpointError(
                "temporal_selfatt_only=False: no released VideoCrafter model attends to text in time; expected True"
            )
        if self.use_causal_attention:
            raise UnsupportedCheckpointError(
                "use_causal_attention=True: no released VideoCrafter model is causal in time; expected False"
            )
        if self.motion_cond_proj_dim and not self.time_cond_proj_dim:
            raise UnsupportedCheckpointError(
                "motion_cond_proj without time_cond_proj: T2V-Turbo has the latter, or both"
            )
        for name in ("model_channels", "num_head_channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"UNetConfig.{name} must be positive, found {getattr(self, name)}")
        for width in {self.model_channels, *(m * self.model_channels for m in self.channel_mult)}:
            if width % 32:
                raise ValueError(
                    f"every level's width must be a multiple of 32 (GroupNorm has 32 groups), found {width}"
                )
            if width % self.num_head_channels:
                raise ValueError(f"num_head_channels={self.num_head_channels} does not divide the width {width}")

    @classmethod
    def vc2(cls) -> UNetConfig:
        """VideoCrafter2, text to video, 512x320 (`configs/inference_t2v_512_v2.0.yaml`)."""
        return cls()

    @classmethod
    def vc1_512(cls) -> UNetConfig:
        """VideoCrafter1, text to video, 512x320: relative positions, no temporal convolution, no fps condition."""
        return cls(temporal_conv=False, use_relative_position=True, fps_cond=False)

    @classmethod
    def vc1_1024(cls) -> UNetConfig:
        """VideoCrafter1, text to video, 1024x576: as `vc1_512`, with the fps condition."""
        return cls(temporal_conv=False, use_relative_position=True, fps_cond=True)

    @property
    def family(self) -> str:
        """Human name of the model family, for logs and error messages."""
        if self.time_cond_proj_dim:
            return "T2V-Turbo"
        if self.temporal_conv:
            return "VideoCrafter2"
        return "VideoCrafter1 T2V 1024" if self.fps_cond else "VideoCrafter1 T2V 512"

    @classmethod
    def from_state_dict(cls, state: State) -> UNetConfig:
        """Tell family and widths from the names and shapes of a UNet's tensors (no `model.diffusion_model.` prefix).

        Raises UnsupportedCheckpointError where the tensors are not a VideoCrafter text-to-video UNet (an SD 2.1 one,
        say).
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

        def any_shape(*names: str) -> tuple[int, ...] | None:
            return next((tuple(state[name].shape) for name in names if name in state), None)

        width = first.shape[0]
        levels = _walk_input_blocks(state)
        spatial = f"input_blocks.{levels.first_attention}.1."
        block = spatial + "transformer_blocks.0."
        init = "init_attn.0.transformer_blocks.0."
        # Every answer comes from whichever of several tensors is there, so that one that is missing is later named and
        # not mistaken for another family.
        inner = any_shape(
            "init_attn.0.proj_in.weight", *(f"{init}attn{i}.to_{p}.weight" for i in (1, 2) for p in "qkv")
        )
        text = any_shape(f"{block}attn2.to_k.weight", f"{block}attn2.to_v.weight")
        table = any_shape(*(name for name in state if name.endswith(".embeddings_table")))
        temporal_conv = any(".temopral_conv." in name for name in state)
        if not temporal_conv and table is None:
            raise UnsupportedCheckpointError(
                "temporal attention with neither temporal convolutions (VideoCrafter2) nor relative positions"
                " (VideoCrafter1): no known model"
            )
        return cls(
            in_channels=first.shape[1],
            out_channels=(any_shape("out.2.weight", "out.2.bias") or (4,))[0],
            model_channels=width,
            channel_mult=tuple(w // width for w in levels.widths),
            num_res_blocks=levels.num_res_blocks,
            attention_resolutions=levels.attention_resolutions,
            # init_attn always has 8 heads; a table of relative positions is as wide as a head.
            num_head_channels=inner[0] // 8 if inner else table[1] if table else 64,
            context_dim=text[1] if text else 1024,
            transformer_depth=_count(state, re.escape(spatial) + r"transformer_blocks\.(\d+)\."),
            use_linear=len(any_shape(f"{spatial}proj_in.weight", f"{spatial}proj_out.weight") or (0, 0)) == 2,
            temporal_conv=temporal_conv,
            temporal_attention=any(name.startswith(f"input_blocks.{levels.first_attention}.2.") for name in state),
            use_relative_position=table is not None,
            temporal_length=(table[0] - 1) // 2 if table else 16,
            addition_attention=any(name.startswith("init_attn.") for name in state),
            fps_cond=any(name.startswith("fps_embedding.") for name in state),
            time_cond_proj_dim=(any_shape("time_cond_proj.weight") or (0, None))[1],
            motion_cond_proj_dim=(any_shape("motion_cond_proj.weight") or (0, None))[1],
        )


@dataclass(frozen=True)
class AutoencoderConfig:
    """The KL autoencoder's shape; defaults are the official kl-f8 (`first_stage_config.ddconfig`)."""

    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    z_channels: int = 4
    embed_dim: int = 4
    in_channels: int = 3
    out_ch: int = 3
    resolution: int = 512
    attn_resolutions: tuple[int, ...] = ()
    double_z: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "ch_mult", tuple(self.ch_mult))
        object.__setattr__(self, "attn_resolutions", tuple(self.attn_resolutions))
        if not self.double_z:
            raise ValueError("AutoencoderConfig.double_z must be True: the encoder predicts a mean and a log variance")
        if self.attn_resolutions:
            raise ValueError("AutoencoderConfig.attn_resolutions must be empty: kl-f8 attends in its middle block only")
        if self.ch % 32:
            raise ValueError(
                f"AutoencoderConfig.ch must be a multiple of 32 (GroupNorm has 32 groups), found {self.ch}"
            )

    @property
    def downsampling(self) -> int:
        """Pixels per latent cell along one side (8 for kl-f8)."""
        return 2 ** (len(self.ch_mult) - 1)

    @classmethod
    def from_state_dict(cls, state: State) -> AutoencoderConfig:
        """Read the widths off a VAE's tensors (no `first_stage_model.` prefix)."""
        if "encoder.conv_in.weight" not in state or "decoder.conv_in.weight" not in state:
            raise UnsupportedCheckpointError(
                "no encoder.conv_in.weight and decoder.conv_in.weight: this is not a KL autoencoder in the LDM layout"
            )
        ch = state["encoder.conv_in.weight"].shape[0]
        levels = _count(state, r"encoder\.down\.(\d+)\.")
        return cls(
            ch=ch,
            ch_mult=tuple(state[f"encoder.down.{i}.block.0.conv1.weight"].shape[0] // ch for i in range(levels)),
            num_res_blocks=_count(state, r"encoder\.down\.0\.block\.(\d+)\."),
            z_channels=state["decoder.conv_in.weight"].shape[1],
            embed_dim=state["post_quant_conv.weight"].shape[1],
            in_channels=state["encoder.conv_in.weight"].shape[1],
            out_ch=state["decoder.conv_out.weight"].shape[0],
        )


@dataclass(frozen=True)
class TextConfig:
    """The open_clip text tower's shape; defaults are ViT-H/14's (VideoCrafter2 reads its second-to-last layer)."""

    context_length: int = 77
    vocab_size: int = 49408
    width: int = 1024
    heads: int = 16
    layers: int = 24

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"TextConfig.heads={self.heads} does not divide width={self.width}")
        if self.layers < 2:
            raise ValueError(
                f"TextConfig.layers must be at least 2 (the second-to-last layer's output is used), found {self.layers}"
            )

    @classmethod
    def from_state_dict(cls, state: State, heads: int | None = None) -> TextConfig:
        """Read the widths off a text tower's tensors (no `cond_stage_model.model.` prefix).

        The number of heads is not visible in any shape. open_clip's towers use 64 channels a head; narrow ones at least
        four heads.
        """
        if "token_embedding.weight" not in state:
            raise UnsupportedCheckpointError("no token_embedding.weight: this is not an open_clip text tower")
        vocab_size, width = state["token_embedding.weight"].shape
        return cls(
            context_length=state["positional_embedding"].shape[0],
            vocab_size=vocab_size,
            width=width,
            heads=heads or max(4, width // 64),
            layers=_count(state, r"transformer\.resblocks\.(\d+)\."),
        )


def as_config(cls: type[C], value: C | Mapping[str, Any] | None) -> C:
    """`value` as an instance of the config class: an instance, a mapping of its fields, or None for the defaults."""
    if value is None:
        return cls()
    if not isinstance(value, Mapping):
        return value
    known = {f.name for f in fields(cls)}
    unknown = sorted(set(value) - known)
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    return cls(**value)


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
    for index in range(1, _count(state, r"input_blocks\.(\d+)\.")):
        names = [name for name in state if name.startswith(f"input_blocks.{index}.")]
        if any(name.startswith(f"input_blocks.{index}.0.op.") for name in names):
            per_level.append(0)
            factor *= 2
            continue
        outputs = [
            state[n].shape[0]
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


def _count(state: State, pattern: str) -> int:
    """One more than the largest index that `pattern`'s only group matches at the start of a name."""
    found = [int(m.group(1)) for name in state if (m := re.match(pattern, name))]
    return max(found) + 1 if found else 0
