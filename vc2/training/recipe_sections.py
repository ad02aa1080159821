"""The sections of a recipe: what every key in them means, checked on construction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

from pydantic import (
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from ..networks.config import AutoencoderConfig, TextConfig, UNetConfig
from .section import Section
from .sources.kinds import KINDS, AnySource
from .sources.source import MEDIA, Source

Range = TypeVar("Range", tuple[int, int], tuple[float, float])


class Init(Section):
    """Checkpoints to start from. Without `unet` and `sd` the UNet is fresh; `autoencoder` and `text` default to the
    file that it comes from, and must be named where it is fresh.
    """

    unet: Path | None = None  # a VideoCrafter checkpoint, whole or its UNet alone
    sd: Path | None = None  # Stable Diffusion 2.1, in the LDM or the diffusers layout: theta_S from it, theta_T fresh
    autoencoder: Path | None = None
    text: Path | None = None

    @model_validator(mode="after")
    def _one_start(self) -> Init:
        if self.unet and self.sd:
            raise ValueError("unet and sd are both set; a UNet starts from one of them (set the other to null)")
        return self

    @property
    def autoencoder_file(self) -> Path | None:
        return self.autoencoder or self.unet or self.sd

    @property
    def text_file(self) -> Path | None:
        return self.text or self.unet or self.sd


class Networks(Section):
    """Shapes of networks that are built and not read from a file: fields of UNetConfig (around `init.sd`, or nothing),
    AutoencoderConfig and TextConfig (where they are what learns).
    """

    unet: dict[str, Any] = Field(default_factory=dict)
    autoencoder: dict[str, Any] = Field(default_factory=dict)
    text: dict[str, Any] = Field(default_factory=dict)

    @field_validator("unet", "autoencoder", "text")
    @classmethod
    def _fields(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """Their names and types; whether they make a network, together with what a file says, is known later."""
        types = get_type_hints(
            {"unet": UNetConfig, "autoencoder": AutoencoderConfig, "text": TextConfig}[info.field_name or ""]
        )
        for name, item in value.items():
            if name not in types:
                raise ValueError(f"there is no {name}; the fields are {', '.join(types)}")
            try:
                TypeAdapter(types[name]).validate_python(item)
            except ValidationError as error:
                raise ValueError(f"{name}: {error.errors()[0]['msg']}, found {item!r}") from None
        return value


class Data(Section):
    """Clips, images or both.

    `lengths` are `[frames, smallest stride, largest stride]`, one of them drawn a step; each clip draws its stride
    within that and its own length, and the network is told fps = source fps / stride. All frames of a clip are resized
    to cover width x height and cropped alike; both are multiples of what the autoencoder makes one latent of, 8 pixels.
    Clips or images may be a list of sources, which are mixed by their `weight`.

    With `buckets`, further sizes, every image is cropped to that size (or to width x height) whose aspect is nearest to
    its own, and all images of a step have the same. `flip` is the chance that left and right of a sample are exchanged,
    alike in all frames.

    `order` is how samples are ordered, which a run keeps from its beginning: 1, what 0.2.0 did, or 2, for which orders
    of large sources need no memory. None: 2 in a run that begins, and in one that has begun what it began with.
    """

    clips: AnySource | None = None
    images: AnySource | None = None
    lengths: tuple[tuple[int, int, int], ...] = ((16, 1, 8),)
    width: int = Field(512, ge=8, multiple_of=8)
    height: int = Field(320, ge=8, multiple_of=8)
    buckets: tuple[tuple[int, int], ...] = ()  # [width, height] each
    crop: Literal["center", "random"] = "center"
    flip: float = Field(0.0, ge=0, le=1)
    caption_dropout: float = Field(0.1, ge=0, le=1)
    held_out: int = Field(64, ge=0)  # samples a source, kept for validation and never trained on
    workers: int = Field(4, ge=0)  # processes that read and decode; 0: in the training process
    broken_share: float = Field(0.05, ge=0, le=1)  # the run stops when more of what it read was broken
    order: Literal[1, 2] | None = None

    @field_validator("lengths")
    @classmethod
    def _lengths(cls, value: tuple[tuple[int, int, int], ...]) -> tuple[tuple[int, int, int], ...]:
        for frames, low, high in value:
            if frames < 1 or not 1 <= low <= high:
                raise ValueError(
                    f"a length is [frames, smallest stride, largest stride], such as [16, 1, 8], found [{frames},"
                    f" {low}, {high}]"
                )
        if not value:
            raise ValueError("must name at least one length, such as [16, 1, 8]")
        return value

    @field_validator("buckets")
    @classmethod
    def _buckets(cls, value: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        for size in value:
            if any(side < 8 or side % 8 for side in size):
                raise ValueError(f"a bucket is [width, height], multiples of 8 such as [576, 448], found {list(size)}")
        return value

    @model_validator(mode="after")
    def _sources(self) -> Data:
        for medium, source in self.all_members():
            if medium not in source.media:
                others = ", ".join(kind for kind, cls in KINDS.items() if medium in cls.media)
                raise ValueError(f"data.{medium}: {source.kind} lists {' and '.join(source.media)}; use {others}")
        frozen = any(
            medium == "clips" and source.prepared != "no" and not source.stored_whole
            for medium, source in self.all_members()
        )
        if frozen and len(self.lengths) > 1:
            raise ValueError(
                "data.lengths: clips that are prepared have their stride drawn once, when they are encoded; name one"
                " length, or prepared: no"
            )
        return self

    @property
    def sources(self) -> dict[str, Source]:
        """Those that there are, by medium."""
        return {medium: source for medium in MEDIA if (source := getattr(self, medium))}

    def all_members(self) -> Iterator[tuple[str, Source]]:
        """(medium, source) of every one, those in lists too."""
        for medium, source in self.sources.items():
            for member in source.members:
                yield medium, member

    @property
    def image_sizes(self) -> tuple[tuple[int, int], ...]:
        """[width, height] that images are cropped to."""
        return ((self.width, self.height), *self.buckets)


class Learn(Section):
    """What learns (theta_S, theta_T or both, paper section 3.2) and how: its own weights, or LoRA beside them.

    `targets` are the layers that get an adapter: q, k, v and out of attention, ff (feed-forward), proj (into and out of
    transformers), conv. None: q, k, v and out of spatial transformers; all but q and k of temporal ones, and their
    convolutions.
    """

    part: Literal["spatial", "temporal", "all"] = "all"
    how: Literal["direct", "lora"] = "direct"
    rank: int = Field(16, ge=1)
    alpha: float | None = Field(None, gt=0)  # an adapter adds alpha / rank times its product; None: the rank
    targets: tuple[Literal["q", "k", "v", "out", "ff", "proj", "conv"], ...] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _lora_alone(self) -> Learn:
        given = [name for name in ("alpha", "targets") if getattr(self, name) is not None]
        if given and self.how != "lora":
            raise ValueError(f"{' and '.join(given)} are of a LoRA, and how is {self.how}; use how: lora, or leave out")
        return self


def _ascending(value: Range, example: str) -> Range:
    """A range that numbers are drawn from. Raises ValueError for one that is upside down, or begins below 0."""
    if not 0 <= value[0] <= value[1]:
        raise ValueError(f"must be [lowest, highest], such as {example}, found {list(value)}")
    return value


class Diffusion(Section):
    """The noise-prediction objective. `scale_end` is what the scale of latents falls to at the noisiest timesteps (the
    dynamic rescale; null: none), and must be that of the checkpoint that a run starts from. `image_share` is the share
    of steps on images (None: 1 / frames where there are both, so that clips and images are about one to one in count;
    an image step takes batch x frames images).

    `image_temporal` is how an image passes the temporal layers. identity: as one frame, which attends only to itself,
    and convolutions are skipped; full: as one frame through all of them; bypass: past all of them.

    The paper's objective is plain MSE on epsilon with t uniform: `noisy_share` 0 and `max_weight` 1. But at the
    noisiest timesteps, which decide where things are and which way they go, a wrong x0 hardly changes epsilon, and a
    small model trained for a short time does not learn them. `noisy_share` of the samples then draw t from
    `noisy_from`..999, and a sample of signal-to-noise ratio r weighs 1 / r, within 1..max_weight.
    """

    scale_end: float | None = 0.7
    image_share: float | None = Field(None, ge=0, le=1)
    image_temporal: Literal["identity", "full", "bypass"] = "identity"
    image_fps: tuple[int, int] = (100, 100)  # drawn uniformly within
    dropout: float = Field(0.1, ge=0, lt=1)  # in the temporal convolutions, where they learn
    noisy_share: float = Field(0.0, ge=0, le=1)
    noisy_from: int = Field(850, ge=0, lt=1000)
    max_weight: float = Field(1.0, ge=1)

    @field_validator("image_fps")
    @classmethod
    def _image_fps(cls, value: tuple[int, int]) -> tuple[int, int]:
        return _ascending(value, "[4, 30]")


class Consistency(Section):
    """The consistency objective: a model of few steps from one of many (T2V-Turbo's without its reward models, arXiv
    2405.18750). What learns starts as a copy of `init.unet` that also reads the guidance scale; the copy that stays as
    it is is asked for one DDIM step with guidance, and from both ends of that step the result is to be the same.

    `timesteps` of the 1000 are what is distilled, evenly spaced: fewer make larger steps, so that training is shorter
    and less exact. `guidance` is the scale w in cond + w (cond - uncond), one less than the samplers' guidance, drawn
    uniformly within.
    """

    timesteps: int = Field(200, ge=1, le=1000)
    guidance: tuple[float, float] = (5.0, 15.0)

    @field_validator("timesteps")
    @classmethod
    def _timesteps(cls, value: int) -> int:
        if 1000 % value:
            raise ValueError(f"must divide 1000, such as 50 or 200, found {value}")
        return value

    @field_validator("guidance")
    @classmethod
    def _guidance(cls, value: tuple[float, float]) -> tuple[float, float]:
        return _ascending(value, "[5, 15]")


class Optimizer(Section):
    """AdamW; the learning rate warms up, then stays or falls along a cosine to `final_lr`. `adamw8bit` needs
    bitsandbytes.
    """

    kind: Literal["adamw", "adamw8bit"] = "adamw"
    lr: float = Field(5e-5, gt=0)
    final_lr: float | None = None
    warmup: int = Field(1000, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = Field(0.5, gt=0)
    ema: float = Field(0.9999, ge=0, lt=1)

    @field_validator("betas")
    @classmethod
    def _betas(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError(f"must be two numbers from 0 to below 1, found {list(value)}")
        return value


class Compute(Section):
    """How a step is computed; it changes speed and memory, and the result by rounding only (and, as the number of
    processes does, which activations dropout drops). `check --card` proposes `gradient_checkpointing` and
    `micro_batch`.
    """

    precision: Literal["fp32", "bf16"] = "fp32"
    # of a LoRA run: what the UNet's Linears are held in. int8 takes bitsandbytes, and 0.6 GB off VideoCrafter2's bf16
    frozen: Literal["float", "int8"] = "float"
    # true: of all layers; or a list of the UNet's levels, 0 being the one of full resolution, whose activations are the
    # largest for what computing them again costs
    gradient_checkpointing: bool | tuple[int, ...] = False
    compile: bool = False  # torch.compile, the UNet's layers each by itself; needs a C++ compiler
    # full: weights, gradients and optimizer state are split among the processes (FSDP)
    sharding: Literal["none", "full"] = "none"
    # clips (or images, on image-only data) a process computes at once; the rest is accumulated. None: all
    micro_batch: int | None = Field(None, ge=1)

    @field_validator("gradient_checkpointing", mode="wrap")
    @classmethod
    def _levels(cls, value: Any, validate: ValidatorFunctionWrapHandler) -> bool | tuple[int, ...]:
        try:
            levels = validate(value)
        except ValidationError:
            raise ValueError(f"must be true, false or a list of levels, such as [0], found {value!r}") from None
        return levels if isinstance(levels, bool) else tuple(sorted(set(levels)))


class Validation(Section):
    """Every `every` steps (0: never) the loss on the held-out samples, of the weights and of their average, each time
    at the same quantiles of the timesteps and with the same noise.

    `metrics` are measured of the clips that `samples` makes, and logged as samples/<metric>: names of metrics or of
    single measures, such as [sharpness, flicker, warping_error] (`python -m vc2.evaluation list`).
    """

    every: int = Field(1000, ge=0)
    quantiles: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    metrics: tuple[str, ...] = ()

    @field_validator("quantiles")
    @classmethod
    def _quantiles(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or not all(0 <= q < 1 for q in value):
            raise ValueError(f"must be numbers from 0 to below 1, found {list(value)}")
        return value

    @field_validator("metrics")
    @classmethod
    def _metrics(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value:
            from ..metrics.registry import chosen  # imports torch, which a recipe without metrics does not need

            if others := [metric.name for metric in chosen(value) if metric.kind != "clip"]:
                raise ValueError(f"{others[0]} is of many clips; use metrics of single ones, such as sharpness")
        return value


class Samples(Section):
    """Every `every` steps (0: never) a clip of each prompt, as mp4, with the averaged weights and the recipe's
    `sampling` settings; of a LoRA run the LoRA too.
    """

    every: int = Field(0, ge=0)
    prompts: tuple[str, ...] = ()


class Sampling(Section):
    """Settings (`vc2.pipeline.Settings`) for sample clips, which the exported file recommends for itself. Those that
    are left out are the starting file's.
    """

    width: int | None = Field(None, ge=8, multiple_of=8)
    height: int | None = Field(None, ge=8, multiple_of=8)
    frames: int | None = Field(None, ge=1)
    steps: int | None = Field(None, ge=1, le=1000)
    guidance: float | None = Field(None, ge=0)
    eta: float | None = Field(None, ge=0, le=1)
    fps: float | None = Field(None, ge=0)
    negative: str | None = None
