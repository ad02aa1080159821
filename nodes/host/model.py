"""The only file that touches ComfyUI's internals.

What is used, and what to do when it goes:

- `comfy.model_base.BaseModel`, `comfy.supported_models_base.BASE`: how the host wraps a UNet. Follow `comfy/sd.py`,
  `load_diffusion_model_state_dict`.
- `comfy.model_sampling.EPS`, `ModelSamplingDiscrete`: sigma tables. Only `sigmas`, `log_sigmas` and the four methods
  overridden here are relied on.
- `comfy.patcher_extension`: DIFFUSION_MODEL wrappers (EasyCache). Without it call `_forward` directly.
- `comfy.sd.CLIP`, `comfy.sd.VAE`, `comfy.sd1_clip`: text encoder and autoencoder. Follow how SD 2.1 is loaded.
- `comfy.samplers.KSAMPLER`, `comfy.sample.sample_custom`, `latent_preview.prepare_callback`: running a function of
  `samplers.py` with progress and previews.
- `comfy.conds`: how conditions are batched.
- `comfy.context_windows.IndexListContextHandler`: what the stock windows node leaves on a model. Without it that node
  does not work here.
- `comfy.patcher_extension`, OUTER_SAMPLE wrappers: FreeNoise's noise. Without them shuffle the noise in our own
  samplers.
- `comfy.patcher_extension`, PREPARE_SAMPLING wrappers: memory is then reserved for one window; without them, for all
  frames.
- `comfy.diffusers_convert`: the text encoder's official names, for the stock CheckpointSave. Follow how SD 2.1 is
  saved.
- `comfy.lora.calculate_weight`: whether patches make a model a T2V-Turbo one.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import replace

import comfy.conds
import comfy.context_windows
import comfy.diffusers_convert
import comfy.latent_formats
import comfy.lora
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.utils
import latent_preview
import torch
from comfy.cli_args import args
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

from ...vc2.files.checkpoint import TEXT, UNET, Checkpoint, schedule_buffers
from ...vc2.files.lora import GUIDANCE_LAYER, GUIDANCE_WIDTH
from ...vc2.networks.config import AutoencoderConfig, TextConfig, UNetConfig
from ...vc2.networks.unet import VideoUNet
from ...vc2.sampling.schedule import NoiseSchedule
from ...vc2.sampling.windows import reschedule_noise
from .hooks import HostHooks
from .samplers import DISTILLED
from .windows import ChosenFrames, ContextWindows, clip_length

log = logging.getLogger(__name__)

DEFAULT_FPS = 28  # the condition that the official sampling script uses
WINDOW, TEMPORAL = "vc2_window", "vc2_temporal"  # transformer_options that reach `VideoUNet.forward`, as DISTILLED does


# --- sampling space ---------------------------------------------------------------------------------------------------------------------


class RescaledSampling(comfy.model_sampling.EPS, comfy.model_sampling.ModelSamplingDiscrete):
    """Epsilon prediction with the dynamic rescale, as the variance-exploding process that the host's samplers see.

    x~ = x_t / (s sqrt(abar)), sigma' = sqrt((1 - abar) / abar) / s, model input = c_in x~ with c_in = s / sqrt(1 + (s
    sigma')^2).
    """

    def __init__(self, schedule: NoiseSchedule):
        comfy.model_sampling.ModelSamplingDiscrete.__init__(self)
        self.schedule = schedule
        self.set_sigmas(schedule.sigmas())
        self.register_buffer("scale", schedule.scale.clone())

    def signal_scale(self, sigma: Tensor) -> Tensor:
        """s at any sigma', interpolated in log sigma' between the table's timesteps."""
        table = self.log_sigmas.to(sigma.device)
        scale = self.scale.to(sigma.device)
        log_sigma = sigma.float().clamp(min=1e-10).log()
        high = torch.searchsorted(table, log_sigma.contiguous()).clamp(1, len(table) - 1)
        weight = ((log_sigma - table[high - 1]) / (table[high] - table[high - 1])).clamp(0, 1)
        return torch.lerp(scale[high - 1], scale[high], weight)

    def input_scale(self, sigma: Tensor) -> Tensor:
        """c_in: what x~ is multiplied by to become the model's input x_t."""
        s = self.signal_scale(sigma)
        return s / (1 + (s * sigma.float()) ** 2).sqrt()

    def calculate_input(self, sigma, noise):
        return noise * per_sample(self.input_scale(sigma), noise.ndim)

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        """Start from `noise`. An empty latent means sampling from the prior, which is unit noise at the model's input,
        at whatever step one starts.
        """
        sigma = torch.as_tensor(sigma, device=noise.device)
        from_prior = max_denoise or not torch.any(latent_image)
        gain = 1 / self.input_scale(sigma) if from_prior else sigma
        return noise * per_sample(gain, noise.ndim) + latent_image


def per_sample(values: Tensor, ndim: int) -> Tensor:
    """One value, or one a sample, to multiply a batch of `ndim` dimensions with. (ComfyUI 0.3.64 has no
    `reshape_sigma`.)
    """
    return values.view(()) if values.numel() == 1 else values.view(-1, *(1,) * (ndim - 1))


# --- the UNet in the host ---------------------------------------------------------------------------------------------------------------


class HostUNet(VideoUNet):
    """VideoUNet with the host's calling convention: frames in the batch, every condition repeated for every frame."""

    def __init__(self, vc2_config: UNetConfig, *, dtype=None, device=None, operations=None, **described):
        # `described` holds the keys that stock nodes read from the model's unet_config; the network itself is built
        # from vc2_config.
        super().__init__(vc2_config, operations=operations, dtype=dtype, device=device)
        self._options: dict = {}  # of the forward pass that is running
        self.use_attention(self._attention)
        self.eval()  # ComfyUI 0.3.64 does not, and the temporal convolutions have a dropout

    def _attention(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        # SD 2.1's attention overflows in half precision.
        return optimized_attention(q, k, v, heads, attn_precision=torch.float32, transformer_options=self._options)

    def to(self, *args, memory_format=None, **kwargs):
        """As ever, but `--force-channels-last` is not for weights of three-dimensional convolutions."""
        return super().to(*args, **kwargs)

    def forward(self, x, timesteps, context=None, control=None, transformer_options=None, **conds):
        options = transformer_options if transformer_options is not None else {}
        wrappers = comfy.patcher_extension.get_all_wrappers(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, options)
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timesteps, context, control, options, **conds)

    def _forward(
        self,
        x,
        timesteps,
        context=None,
        control=None,
        transformer_options=None,
        fps=None,
        num_video_frames=None,
        shared_context=False,
        **ignored,
    ):
        """x `[B*T, 4, h, w]`, timesteps `[B*T]`, context `[B*T, S, D]`, fps `[B*T]`; T = num_video_frames."""
        frames = num_video_frames or x.shape[0]
        video = x.unflatten(0, (-1, frames)).transpose(1, 2)
        options = transformer_options or {}
        hooks = HostHooks(control, options, self.config.model_channels, x.shape)
        # Patches of the text attention expect a context for every frame, as image models have it.
        context = context[::frames] if shared_context and not hooks.patches_text else context.unflatten(0, (-1, frames))
        self._options = options
        try:
            out = super().forward(
                video,
                timesteps.unflatten(0, (-1, frames)),
                context,
                None if fps is None else fps[::frames],
                hooks=hooks,
                temporal=options.get(TEMPORAL, "full"),
                window=options.get(WINDOW),
                **options.get(DISTILLED, {}),
            )
        finally:
            self._options = {}  # every clone of the model shares this network, and a run's options hold its tensors
        return out.transpose(1, 2).flatten(0, 1)


class HostModel(comfy.model_base.BaseModel):
    """ComfyUI's model object around the UNet: its sampling space, and fps and clip length as conditions."""

    def __init__(self, model_config: ModelConfig, device=None):
        super().__init__(model_config, device=device, unet_model=HostUNet)
        self.model_sampling = RescaledSampling(model_config.schedule)

    def scale_latent_inpaint(self, sigma, noise, latent_image, **kwargs):
        """What is kept while inpainting, at noise level sigma; not `noise_scaling`, which takes an empty latent for a
        start from the prior.
        """
        return latent_image + noise * per_sample(sigma, noise.ndim)

    def state_dict_for_saving(self, *args, **kwargs):
        """For the stock ModelSave and CheckpointSave: the file loads as what was saved, by its tensors' names and with
        its own rescale.
        """
        state = super().state_dict_for_saving(*args, **kwargs)
        added = f"{UNET}{GUIDANCE_LAYER}.weight"
        if not self.model_config.distilled and not state[added].float().any():  # else T2V-Turbo's LoRA gave it weights
            del state[added]
        return {**state, **schedule_buffers(self.model_config.schedule)}

    def extra_conds(self, **kwargs):
        out = super().extra_conds(**kwargs)
        total = kwargs["noise"].shape[0]
        frames = kwargs.get("frames_per_clip") or total
        if total % frames:
            raise ValueError(
                f"the latent holds {total} frames, which are not whole clips of {frames}; "
                "set frames_per_clip in VC2VideoConditioning to a divisor of the number of frames, or to 0 for one clip"
            )
        out["num_video_frames"] = comfy.conds.CONDConstant(frames)
        out["fps"] = comfy.conds.CONDRegular(torch.tensor([float(kwargs.get("fps", DEFAULT_FPS))]))
        text = kwargs.get("cross_attn")
        if text is not None:
            if text.shape[0] not in (1, frames):
                raise ValueError(
                    f"the prompts travel over {text.shape[0]} frames but a clip has {frames}; set both to the same"
                    " number"
                )
            width = self.model_config.vc2_config.context_dim
            if text.shape[-1] != width:
                raise ValueError(
                    f"the prompt was encoded to a width of {text.shape[-1]} but this model reads {width}; "
                    "connect the CLIP output of VC2LoadCheckpoint (OpenCLIP ViT-H for VideoCrafter2)"
                )
            # One prompt for the whole clip: its keys and values are computed once, not once a frame.
            out["shared_context"] = comfy.conds.CONDConstant(text.shape[0] == 1)
        return out


class ModelConfig(comfy.supported_models_base.BASE):
    """What the host asks about a model. `num_res_blocks` must stay out of unet_config: LoRA loading would take the UNet
    for a diffusers one.
    """

    unet_extra_config = {}
    latent_format = comfy.latent_formats.SD15
    distilled = False  # T2V-Turbo: the guidance scale is a condition
    memory_usage_factor = 1.0  # SD 2.1's, per frame; not yet measured on a GPU

    def __init__(self, config: UNetConfig, schedule: NoiseSchedule):
        super().__init__(
            {
                "vc2_config": config,
                "in_channels": config.in_channels,
                "model_channels": config.model_channels,
                "context_dim": config.context_dim,
                "use_linear_in_transformer": config.use_linear,
                "use_temporal_attention": True,
            }
        )
        self.vc2_config, self.schedule = config, schedule

    def get_model(self, state_dict, prefix="", device=None):
        return HostModel(self, device=device)

    def process_clip_state_dict_for_saving(self, state_dict):
        return comfy.diffusers_convert.convert_text_enc_state_dict_v20(
            {TEXT + name.removeprefix("clip_h."): t for name, t in state_dict.items()}
        )


# --- loading ----------------------------------------------------------------------------------------------------------------------------


def load_model(checkpoint: Checkpoint, dtype: torch.dtype | None = None) -> comfy.model_patcher.ModelPatcher:
    """The checkpoint's UNet as a MODEL; `dtype` is the weights' (None: the host decides by file, device and flags)."""
    management, state = comfy.model_management, dict(checkpoint.unet)
    load_device, offload_device = management.get_torch_device(), management.unet_offload_device()
    config = ModelConfig(checkpoint.config, checkpoint.schedule)
    config.distilled = checkpoint.config.time_cond_proj_dim is not None
    if not config.distilled:
        # T2V-Turbo's LoRA adapts a layer that VideoCrafter2 lacks. Its release has no base weight for it: zeros.
        config.vc2_config = replace(checkpoint.config, time_cond_proj_dim=GUIDANCE_WIDTH)
        config.unet_config["vc2_config"] = config.vc2_config
        state[f"{GUIDANCE_LAYER}.weight"] = torch.zeros(
            checkpoint.config.model_channels, GUIDANCE_WIDTH, dtype=state["time_embed.0.weight"].dtype
        )
    dtype = dtype or _weight_dtype(state, config)
    config.set_inference_dtype(
        dtype, management.unet_manual_cast(dtype, load_device, config.supported_inference_dtypes)
    )
    model = config.get_model(state).to(offload_device)
    # The host's own load_model_weights is not strict; names and shapes were checked when the file was read, and are
    # again here.
    model.diffusion_model.load_state_dict(state, strict=True)
    patcher = comfy.model_patcher.ModelPatcher(model, load_device=load_device, offload_device=offload_device)
    patcher.add_wrapper_with_key(
        comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, "vc2_stock_windows", adopt_stock_windows
    )
    patcher.add_wrapper_with_key(
        comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING, "vc2_window_memory", reserve_for_windows
    )
    return patcher


def apply_lora(
    model: comfy.model_patcher.ModelPatcher, tensors: dict[str, Tensor], strength: float
) -> comfy.model_patcher.ModelPatcher:
    """A clone with the LoRA (`vc2.lora.load`'s layout, so every name is the model's own)."""
    patched, _ = comfy.sd.load_lora_for_models(model, None, tensors, strength, 0)
    return patched


def is_turbo(model: comfy.model_patcher.ModelPatcher) -> bool:
    """Whether the model reads the guidance scale as a condition: its file has the layer, or a LoRA gives it weights.
    (Another clone's LoRA may lie in the weights themselves, so they are no answer; and a stock merge patches all
    weights, here with zeros.)
    """
    name = f"diffusion_model.{GUIDANCE_LAYER}.weight"
    patches = model.patches.get(name, [])
    if model.model.model_config.distilled or not patches:
        return model.model.model_config.distilled
    base = torch.zeros(model.model.model_config.vc2_config.model_channels, GUIDANCE_WIDTH)
    return bool(comfy.lora.calculate_weight(patches, base, name).any())


def _weight_dtype(state: dict[str, Tensor], config: ModelConfig) -> torch.dtype:
    """The host's choice; but where it would widen a half-precision file to float32 only because the device computes so
    (CPUs), the weights stay half and are cast layer by layer: the model then needs the file's size, not twice that.
    """
    stored = comfy.utils.weight_dtype(state)
    chosen = comfy.model_management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(state),
        supported_dtypes=config.supported_inference_dtypes,
        weight_dtype=stored,
    )
    asked_for = args.fp32_unet or args.force_fp32
    return stored if chosen == torch.float32 and stored in (torch.float16, torch.bfloat16) and not asked_for else chosen


def load_clip(checkpoint: Checkpoint) -> comfy.sd.CLIP:
    """The checkpoint's text tower as a CLIP: SD 2.1's tokenizer (pad with 0) and its second-to-last layer, at the
    tower's own width.
    """
    tower = checkpoint.text_config
    state = comfy.utils.clip_text_transformers_convert(dict(checkpoint.text), "", "")

    class Tokenizer(comfy.sd1_clip.SD1Tokenizer):
        def __init__(self, embedding_directory=None, tokenizer_data=None):
            super().__init__(embedding_directory, tokenizer_data or {}, clip_name="h", tokenizer=build_tokenizer)

    def build_tokenizer(tokenizer_path=None, embedding_directory=None, tokenizer_data=None):
        return comfy.sd1_clip.SDTokenizer(
            tokenizer_path,
            pad_with_end=False,
            embedding_directory=embedding_directory,
            embedding_size=tower.width,
            embedding_key="clip_h",
            tokenizer_data=tokenizer_data or {},
        )

    class Encoder(comfy.sd1_clip.SD1ClipModel):
        def __init__(self, device="cpu", dtype=None, model_options=None):
            super().__init__(device, dtype, model_options or {}, clip_name="h", clip_model=build_tower)

    def build_tower(device="cpu", dtype=None, model_options=None):
        return comfy.sd1_clip.SDClipModel(
            device=device,
            dtype=dtype,
            layer="hidden",
            layer_idx=-2,
            textmodel_json_config=_tower_json(tower),
            special_tokens={"start": 49406, "end": 49407, "pad": 0},
            model_options=model_options or {},
        )

    target = comfy.supported_models_base.ClipTarget(Tokenizer, Encoder)
    clip = comfy.sd.CLIP(
        target, embedding_directory=_embedding_directories(), parameters=comfy.utils.calculate_parameters(state)
    )
    missing, unexpected = clip.load_sd(state)
    unexpected = [name for name in unexpected if name != "logit_scale"]
    if missing or unexpected:
        raise ValueError(
            f"{checkpoint.path}: the host's text encoder does not fit the file: missing {missing[:3]}, unexpected"
            f" {unexpected[:3]}"
        )
    return clip


def _tower_json(tower: TextConfig) -> dict:
    return {
        "num_hidden_layers": tower.layers,
        "hidden_size": tower.width,
        "intermediate_size": 4 * tower.width,
        "num_attention_heads": tower.heads,
        "max_position_embeddings": tower.context_length,
        "vocab_size": tower.vocab_size,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "eos_token_id": 49407,
        "projection_dim": tower.width,
    }


def _embedding_directories() -> list[str]:
    import folder_paths

    return folder_paths.get_folder_paths("embeddings")


def load_vae(checkpoint: Checkpoint) -> comfy.sd.VAE:
    """The checkpoint's autoencoder as a VAE, of any width."""
    config: AutoencoderConfig = checkpoint.vae_config
    ddconfig = {
        "double_z": True,
        "z_channels": config.z_channels,
        "resolution": 256,
        "in_channels": config.in_channels,
        "out_ch": config.out_ch,
        "ch": config.ch,
        "ch_mult": list(config.ch_mult),
        "num_res_blocks": config.num_res_blocks,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    vae = comfy.sd.VAE(
        sd=dict(checkpoint.vae), config={"params": {"ddconfig": ddconfig, "embed_dim": config.embed_dim}}
    )
    vae.first_stage_model.load_state_dict(checkpoint.vae, strict=True)  # the host's own loading is not strict
    return vae


# --- patches of a MODEL, always a clone's ------------------------------------------------------------------------------------------------


def check_interrupt() -> None:
    comfy.model_management.throw_exception_if_processing_interrupted()


def has_windows(model: comfy.model_patcher.ModelPatcher) -> bool:
    return "context_handler" in model.model_options or WINDOW in model.model_options["transformer_options"]


def set_context_windows(model: comfy.model_patcher.ModelPatcher, length: int, stride: int, looped: bool) -> None:
    model.model_options["context_handler"] = ContextWindows(length, stride, looped, check_interrupt)


def choose_frames(
    model: comfy.model_patcher.ModelPatcher, frames: int, window: int
) -> comfy.model_patcher.ModelPatcher:
    """A clone for `samplers.sample_fifo`, which hands in `window` of a clip's frames at a time."""
    model = model.clone()
    model.model_options["context_handler"] = ChosenFrames(frames, window)
    return model


def adopt_stock_windows(executor, *args, **kwargs):
    """The stock context windows node fails for models whose frames are the batch; ours runs in its place, with its
    length, overlap and loop.
    """
    options = executor.class_obj.model_options  # this run's own copy
    stock = options.get("context_handler")
    if isinstance(stock, comfy.context_windows.IndexListContextHandler):
        apart = stock.context_schedule.name == comfy.context_windows.ContextSchedules.BATCHED
        overlap = 0 if apart else min(stock.context_overlap, stock.context_length - 1)
        log.info(
            "context windows of %d frames, %d of them shared with the next, blended as by VC2ContextWindows",
            stock.context_length,
            overlap,
        )
        looped = (
            stock.closed_loop and stock.context_schedule.name == comfy.context_windows.ContextSchedules.UNIFORM_LOOPED
        )
        freenoise = getattr(stock, "freenoise", False)  # not before ComfyUI 0.8.0
        options["context_handler"] = ContextWindows(
            stock.context_length, stock.context_length - overlap, looped, check_interrupt, freenoise
        )
    return executor(*args, **kwargs)


def reserve_for_windows(executor, model, noise_shape, conds, *args, model_options=None, **kwargs):
    """The host reserves memory for all frames; the model sees a window of each clip at a time. The stock wrapper, which
    knows of no clips, is then left out.
    """
    options = dict(model_options or {})
    handler = options.get("context_handler")
    if isinstance(handler, (ContextWindows, ChosenFrames)):
        del options["context_handler"]
        total = noise_shape[0]
        clips = max(1, total // frames_per_clip(conds, total))
        noise_shape = [min(total, clips * handler.context_length), *noise_shape[1:]]
    return executor(model, noise_shape, conds, *args, model_options=options, **kwargs)


def frames_per_clip(conds: dict, total: int) -> int:
    """As set in conditions that `HostModel.extra_conds` has not seen yet."""
    return next((c["frames_per_clip"] for group in conds.values() for c in group if c.get("frames_per_clip")), total)


def set_free_noise(model: comfy.model_patcher.ModelPatcher, length: int, stride: int) -> None:
    """FreeNoise: windows of temporal attention inside the UNet, and initial noise that repeats."""

    def reschedule(executor, noise: Tensor, *args, **kwargs):
        return executor(reschedule_clips(noise, executor.class_obj.conds, (length, stride)), *args, **kwargs)

    model.model_options["transformer_options"][WINDOW] = (length, stride)
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, WINDOW, reschedule)


def reschedule_clips(noise: Tensor, conds: dict, window: tuple[int, int]) -> Tensor:
    """`windows.reschedule_noise` for each clip in `[clips * T, 4, h, w]`. The order is always the same; the seed
    decides the noise itself.
    """
    clips = noise.split(frames_per_clip(conds, noise.shape[0]))
    return torch.cat([reschedule_noise(clip, *window, torch.Generator().manual_seed(0)) for clip in clips])


def add_temporal_guidance(model: comfy.model_patcher.ModelPatcher, scale: float) -> None:
    """x0 += scale (x0 - x0 without temporal attention), both given the prompt."""

    def guide(args: dict) -> Tensor:
        options = comfy.model_patcher.create_model_options_clone(args["model_options"])
        options["transformer_options"] = {**options.get("transformer_options", {}), TEMPORAL: "conv"}
        # Caches (EasyCache) keep a pass by its condition's id, and this is not the condition's pass.
        cond = [{**c, "uuid": uuid.uuid5(c["uuid"], TEMPORAL)} for c in args["cond"]]
        (frames_apart,) = comfy.samplers.calc_cond_batch(args["model"], [cond], args["input"], args["sigma"], options)
        return args["denoised"] + scale * (args["cond_denoised"] - frames_apart)

    model.set_model_sampler_post_cfg_function(guide)


def add_guidance_rescale(model: comfy.model_patcher.ModelPatcher, multiplier: float) -> None:
    """Rescaled guidance (Lin et al., arXiv 2305.08891, section 3.4), in velocity, by one factor a clip.

    With z = s x0 the model's input is x_t = a z + b eps with a^2 + b^2 = 1, an ordinary variance-preserving process,
    whose velocity is v = a eps - b z.
    """

    def rescale(args: dict) -> Tensor:
        sampling: RescaledSampling = args["model"].model_sampling
        x, sigma = args["input"], args["sigma"]
        frames = min(clip_length([args["cond"]], x), x.shape[0])  # FIFO hands in part of a clip

        def per_frame(values: Tensor) -> Tensor:
            return values[:, None, None, None]

        s = per_frame(sampling.signal_scale(sigma))
        a = 1 / (1 + (s * per_frame(sigma)) ** 2).sqrt()
        b = s * per_frame(sigma) * a
        x_t = x * s * a

        def velocity(x0: Tensor) -> Tensor:
            return (a * x_t - s * x0) / b  # from x_t = a z + b eps

        def spread(v: Tensor) -> Tensor:
            return v.unflatten(0, (-1, frames)).flatten(1).std(1).repeat_interleave(frames)[:, None, None, None]

        guided, conditional = velocity(args["denoised"]), velocity(args["cond_denoised"])
        factor = multiplier * spread(conditional) / spread(guided) + 1 - multiplier
        return (a * x_t - b * factor * guided) / s

    model.set_model_sampler_post_cfg_function(rescale)


# --- sampling ---------------------------------------------------------------------------------------------------------------------------


def sampling_of(model: comfy.model_patcher.ModelPatcher, asked_by: str) -> RescaledSampling:
    """The model's sampling space; raises where it is not a VideoCrafter model, or where another node replaced it and so
    dropped the rescale.
    """
    sampling = model.get_model_object("model_sampling")
    if not isinstance(model.model, HostModel):
        raise ValueError(
            f"{asked_by} needs a VideoCrafter MODEL; found {type(model.model).__name__}. Load it with VC2LoadCheckpoint"
        )
    if not isinstance(sampling, RescaledSampling):
        raise ValueError(
            f"{asked_by}: a node before this one replaced the model's sampling by {type(sampling).__name__}, which"
            " drops the dynamic rescale; take it out"
        )
    return sampling


def sampler(function, **options) -> comfy.samplers.KSAMPLER:
    """A function of `nodes/samplers.py` as a SAMPLER."""
    return comfy.samplers.KSAMPLER(function, extra_options=options)


def run_sampler(model, sampler, sigmas: Tensor, seed: int, guidance: float, positive, negative, latent: dict) -> dict:
    """What the stock custom sampling nodes do: noise from the seed, progress, previews, interrupt; returns the new
    latent.
    """
    samples = latent["samples"]
    if samples.ndim != 4 or samples.shape[1] != 4:
        raise ValueError(
            f"the latent must be [frames, 4, height / 8, width / 8], found {list(samples.shape)}; make it with"
            " VC2EmptyLatentVideo or VAEEncode"
        )
    noise = comfy.sample.prepare_noise(samples, seed, latent.get("batch_index"))
    callback = latent_preview.prepare_callback(model, len(sigmas) - 1)
    samples = comfy.sample.sample_custom(
        model,
        noise,
        guidance,
        sampler,
        sigmas,
        positive,
        negative,
        samples,
        noise_mask=latent.get("noise_mask"),
        callback=callback,
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    return {**latent, "samples": samples}
