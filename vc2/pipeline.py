"""Text to video in one object: text encoder, guided DDIM (T2V-Turbo models: their own few steps), autoencoder."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from .files import checkpoint
from .files.checkpoint import CheckpointError
from .files.tensors import PRECISIONS
from .networks.autoencoder import SCALE_FACTOR, AutoencoderKL
from .networks.text import TextEncoder
from .networks.unet import VideoUNet
from .sampling import ddim, turbo
from .sampling.schedule import NoiseSchedule

log = logging.getLogger(__name__)

LARGEST = 2**16  # of any number that a file recommends: it must not decide to take all memory
DECODED = 64 * 64  # latent pixels at a time, one frame of 512x512, which takes what a step of sampling at 512x320 does
DISTILLED = {"steps": 4, "guidance": 7.5, "fps": 16}  # what T2V-Turbo was made for


@dataclass(frozen=True)
class Settings:
    """How to sample. The defaults are the official script's; a checkpoint's metadata (`sampling`) may carry its own.

    `fps` is the condition, not the playback rate; `original_steps` is of T2V-Turbo models alone, and the timesteps that
    they were distilled on.
    """

    width: int = 512
    height: int = 320
    frames: int = 16
    steps: int = 50
    guidance: float = 12.0
    eta: float = 1.0
    fps: float = 28
    negative: str = ""
    original_steps: int = 200

    @classmethod
    def of(cls, metadata: dict[str, str], distilled: bool = False) -> Settings:
        """The settings that a checkpoint recommends for itself, else T2V-Turbo's for a `distilled` one.

        Raises ValueError where the metadata's `sampling` is not what it should be.
        """
        own = {name: value for name, value in recommended(metadata).items() if name in get_type_hints(cls)}
        return cls(**{**(DISTILLED if distilled else {}), **own})

    def check(self, factor: int = 8) -> None:
        """Raise ValueError for what cannot be sampled."""
        for name in ("width", "height"):
            if getattr(self, name) < factor or getattr(self, name) % factor:
                raise ValueError(f"{name} must be a positive multiple of {factor}, found {getattr(self, name)}")
        if self.frames < 1:
            raise ValueError(f"frames must be at least 1, found {self.frames}")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must be between 0 and 1, found {self.eta}")
        for name in ("guidance", "fps"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number from 0, found {getattr(self, name)}")
        ddim.ddim_timesteps(self.steps)


def recommended(metadata: dict[str, str]) -> dict[str, Any]:
    """The settings that a checkpoint's metadata names: a JSON object under `sampling`, with Settings' fields and types.

    Raises ValueError for what is no such object. Names that Settings does not have are left in.
    """
    try:
        sampling = json.loads(metadata.get("sampling", "{}"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the metadata 'sampling' is not JSON ({error})") from error
    if not isinstance(sampling, dict):
        raise ValueError(f"the metadata 'sampling' must be a JSON object, found {sampling!r}")
    for name, kind in get_type_hints(Settings).items():
        value = sampling.get(name, kind())
        if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
            raise ValueError(f"the metadata 'sampling' must hold {name} as {kind.__name__}, found {value!r}")
        if kind is not str and not abs(value) <= LARGEST:
            raise ValueError(f"the metadata 'sampling' must hold a {name} that can be sampled, found {value!r}")
    return sampling


class TextToVideo:
    """A checkpoint ready to sample on one device."""

    def __init__(self, path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None):
        loaded = checkpoint.load(path, dtype)
        if not (loaded.vae and loaded.vae_config and loaded.text and loaded.text_config):
            raise CheckpointError(
                f"{path} holds only a UNet; text to video needs a whole checkpoint, with first_stage_model.* and"
                " cond_stage_model.*"
            )
        for what, given, read in (
            ("text encoder", loaded.text_config.width, loaded.config.context_dim),
            ("autoencoder", loaded.vae_config.embed_dim, loaded.config.in_channels),
        ):
            if given != read:
                raise CheckpointError(
                    f"{path}: the {what} gives {given} channels and the UNet reads {read}; expected parts of one model"
                )
        self.device = torch.device(device)
        self.distilled = loaded.config.time_cond_proj_dim is not None
        if self.distilled:
            log.info(
                "%s is a T2V-Turbo model: it reads the guidance scale itself; negative prompt and eta do nothing", path
            )
        try:
            self.settings = Settings.of(loaded.metadata, self.distilled)
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error
        self.schedule: NoiseSchedule = loaded.schedule
        self.dtype = dtype or next(iter(loaded.unet.values())).dtype
        if self.dtype.itemsize not in (2, 4):  # fp8 is for storing alone, and nothing gains from fp64
            self.dtype = torch.float16 if self.dtype.itemsize == 1 else torch.float32
        if self.device.type == "cpu" and self.dtype == torch.float16:
            log.info("computing in fp32: CPUs compute fp16 slowly, and not every layer")
            self.dtype = torch.float32
        self.unet = self._ready(checkpoint.assemble(VideoUNet(loaded.config, device="meta"), loaded.unet))
        self.unet.use_attention("auto")
        self.vae = self._ready(checkpoint.assemble(AutoencoderKL(loaded.vae_config, device="meta"), loaded.vae))
        self.text = self._ready(checkpoint.assemble(TextEncoder(loaded.text_config, device="meta"), loaded.text))

    def _ready(self, module):
        return module.to(self.device, self.dtype).eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        settings: Settings | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Clips of the prompts, uint8 `[B, T, H, W, 3]`; of a prompt the first 77 tokens are read.

        A clip depends on its own prompt and seed alone, not on what it is sampled together with. Seeds are 0 to 2^64 -
        1. `progress(done, steps)` may raise to interrupt.
        """
        s = settings or self.settings
        s.check(self.vae.config.downsampling)
        if len(prompts) != len(seeds):
            raise ValueError(f"every prompt needs a seed: found {len(prompts)} prompts and {len(seeds)} seeds")
        # Every text once, all in one pass.
        texts = list(dict.fromkeys([*prompts, s.negative]))
        context = self.text(texts)
        cond, uncond = (context[[texts.index(t) for t in wanted]] for wanted in (prompts, [s.negative] * len(prompts)))
        fps = torch.full((len(prompts),), float(s.fps), device=self.device)

        # Noise is drawn on the CPU so that a seed means the same clip on every device.
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        shape = (4, s.frames, s.height // self.vae.config.downsampling, s.width // self.vae.config.downsampling)

        def fresh_noise(_: int = 0) -> Tensor:
            return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(self.device)

        report = (lambda k, count, x0: progress(k + 1, count)) if progress else None
        if self.distilled:

            def denoise(x: Tensor, t: Tensor) -> Tensor:
                motion = turbo.MOTION_GUIDANCE if t[0] >= turbo.MOTION_FROM else 0.0
                return self.unet(x.to(cond.dtype), t, cond, fps, guidance=s.guidance, motion_guidance=motion).float()

            return self.decode(turbo.sample(denoise, fresh_noise(), s.steps, s.original_steps, fresh_noise, report))
        guided = Guided(self.unet, cond, uncond, fps, s.guidance)
        return self.decode(ddim.sample(guided, fresh_noise(), self.schedule, s.steps, s.eta, fresh_noise, report))

    def steps_run(self, settings: Settings) -> int:
        """How many steps `settings.steps` makes: DDIM runs more where the count does not divide 1000."""
        return settings.steps if self.distilled else len(ddim.ddim_timesteps(settings.steps))

    @torch.no_grad()
    def decode(self, z: Tensor) -> np.ndarray:
        """Latents `[B, 4, T, h, w]` -> frames uint8 `[B, T, H, W, 3]`.

        In the precision of the checkpoint; once that was too narrow, in fp32. Raises RuntimeError for latents that
        are not finite.
        """
        if not z.isfinite().all():
            wider = {torch.float16: "--dtype bf16, or ", torch.bfloat16: "--dtype fp32, or "}.get(self.dtype, "")
            raise RuntimeError(
                f"the UNet's numbers left what {_named(self.dtype)} can hold; expected finite latents;"
                f" try {wider}another checkpoint or LoRA"
            )
        return np.stack([to_bytes(self._decoded(clip)) for clip in z])

    def _decoded(self, z: Tensor) -> Tensor:
        frames = decoded(self.vae, z)
        if (narrow := next(self.vae.parameters()).dtype) != torch.float32 and not frames.isfinite().all():
            log.warning("the autoencoder's numbers left what %s can hold; decoding in fp32", _named(narrow))
            frames = decoded(self.vae.float(), z)
        return frames


def _named(dtype: torch.dtype) -> str:
    return next(name for name, known in PRECISIONS.items() if known == dtype)


def to_pixels(vae: AutoencoderKL, z: Tensor) -> np.ndarray:
    """A clip's latents `[4, T, h, w]` -> frames uint8 `[T, H, W, 3]`."""
    return to_bytes(decoded(vae, z))


def decoded(vae: AutoencoderKL, z: Tensor) -> Tensor:
    """A clip's latents `[4, T, h, w]` -> frames `[T, 3, H, W]`, -1 to 1; large ones one at a time, small ones many."""
    latents = rearrange(z / SCALE_FACTOR, "c t h w -> t c h w").to(next(vae.parameters()).dtype)
    return torch.cat([vae.decode(some).float() for some in latents.split(max(1, DECODED // latents[0, 0].numel()))])


def to_bytes(frames: Tensor) -> np.ndarray:
    """Frames `[T, 3, H, W]`, -1 to 1 -> uint8 `[T, H, W, 3]`."""
    pixels = ((frames.clamp(-1, 1) + 1) * 127.5).round().byte()
    return rearrange(pixels, "t c h w -> t h w c").cpu().numpy()


class Guided:
    """epsilon with classifier-free guidance, u + g (c - u).

    Both passes run in one batch, or one after the other once memory has run out.
    """

    def __init__(self, unet: VideoUNet, cond: Tensor, uncond: Tensor, fps: Tensor, guidance: float):
        self.unet, self.cond, self.uncond, self.fps, self.guidance = unet, cond, uncond, fps, guidance
        self.one_batch = True

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        if self.guidance == 1:
            return self._eps(x, t, self.cond, self.fps)
        if self.one_batch:
            try:
                both = self._eps(x, t, torch.cat([self.cond, self.uncond]), self.fps)
            except torch.cuda.OutOfMemoryError:
                log.warning("not enough memory for guidance in one batch; running two passes a step")
                self.one_batch = False
            else:
                return self._guide(*both.chunk(2))
        return self._guide(self._eps(x, t, self.cond, self.fps), self._eps(x, t, self.uncond, self.fps))

    def _eps(self, x: Tensor, t: Tensor, context: Tensor, fps: Tensor) -> Tensor:
        return self.unet(x.to(context.dtype), t, context, fps).float()

    def _guide(self, cond: Tensor, uncond: Tensor) -> Tensor:
        return uncond + self.guidance * (cond - uncond)


def override(settings: Settings, **changes) -> Settings:
    """`settings` with every change that is not None."""
    return replace(settings, **{name: value for name, value in changes.items() if value is not None})


def warn_of_cut(prompts: Iterable[str], length: int) -> None:
    """Name every prompt that is longer than the text encoder's `length` tokens (77), and what of it is not read."""
    from open_clip import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    for prompt in dict.fromkeys(prompts):
        # Two of the tokens mark start and end.
        if rest := tokenizer.encode(prompt)[length - 2 :]:
            unread = tokenizer.decode(rest).strip()
            log.warning('the prompt "%.40s..." has over %d tokens; its end is not read: %s', prompt, length, unread)
