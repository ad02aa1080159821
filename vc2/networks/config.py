"""Typed configurations of the three networks.

Field names are those of the official YAML files (`configs/inference_t2v_512_v2.0.yaml` of the VideoCrafter repository),
so that `UNetConfig(**yaml["params"])` works.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from . import detection
from .detection import State, UnsupportedCheckpointError

C = TypeVar("C", "UNetConfig", "AutoencoderConfig", "TextConfig")


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
        _positive(
            self, "in_channels", "out_channels", "model_channels", "num_res_blocks", "num_head_channels", "context_dim"
        )
        _positive(self, "transformer_depth", "temporal_length")
        if not self.channel_mult:
            raise ValueError("UNetConfig.channel_mult must name at least one level, found none")
        for width in {self.model_channels, *(m * self.model_channels for m in self.channel_mult)}:
            if width < 1 or width % 32:
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
        """As `detection.unet_fields` reads a UNet's tensors, which see for what it raises."""
        return cls(**detection.unet_fields(state))


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
        if self.ch < 1 or self.ch % 32:
            raise ValueError(
                f"AutoencoderConfig.ch must be a multiple of 32 (GroupNorm has 32 groups), found {self.ch}"
            )
        _positive(self, "num_res_blocks", "z_channels", "embed_dim", "in_channels", "out_ch")
        if not self.ch_mult or min(self.ch_mult) < 1:
            raise ValueError(f"AutoencoderConfig.ch_mult must be positive for every level, found {self.ch_mult}")

    @property
    def downsampling(self) -> int:
        """Pixels per latent cell along one side (8 for kl-f8)."""
        return 2 ** (len(self.ch_mult) - 1)

    @classmethod
    def from_state_dict(cls, state: State) -> AutoencoderConfig:
        """As `detection.autoencoder_fields` reads a VAE's tensors."""
        return cls(**detection.autoencoder_fields(state))


@dataclass(frozen=True)
class TextConfig:
    """The open_clip text tower's shape; defaults are ViT-H/14's (VideoCrafter2 reads its second-to-last layer)."""

    context_length: int = 77
    vocab_size: int = 49408
    width: int = 1024
    heads: int = 16
    layers: int = 24

    def __post_init__(self) -> None:
        _positive(self, "context_length", "vocab_size", "width", "heads")
        if self.width % self.heads:
            raise ValueError(f"TextConfig.heads={self.heads} does not divide width={self.width}")
        if self.layers < 2:
            raise ValueError(
                f"TextConfig.layers must be at least 2 (the second-to-last layer's output is used), found {self.layers}"
            )

    @classmethod
    def from_state_dict(cls, state: State) -> TextConfig:
        """As `detection.text_fields` reads a text tower's tensors."""
        return cls(**detection.text_fields(state))


def _positive(config: Any, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{type(config).__name__}.{name} must be positive, found {getattr(config, name)}")


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
