"""The model in the host: the UNet with the host's calling convention, its sampling space and its conditions.

Uses, and follows when they change:

- `comfy.model_base.BaseModel`, `comfy.supported_models_base.BASE`: how the host wraps a UNet (`comfy/sd.py`,
  `load_diffusion_model_state_dict`), and calls it (`_apply_model`).
- `comfy.patcher_extension`: DIFFUSION_MODEL wrappers (EasyCache). Without it call `_forward` directly.
- `comfy.ldm.modules.attention.optimized_attention`: the attention that the user's flags and hardware choose.
- `comfy.ops`: which layers have weights that are cast or patched while they are computed.
- `comfy.conds`: how conditions are batched. `node_helpers.conditioning_set_values`: how a node adds to them.
- `comfy.latent_formats.SD15`: the latent's scale (0.18215) and its colours in previews.
- `comfy.diffusers_convert`: the text encoder's official names, for the stock CheckpointSave, as SD 2.1 is saved.
"""

from __future__ import annotations

import comfy.conds
import comfy.diffusers_convert
import comfy.latent_formats
import comfy.model_base
import comfy.patcher_extension
import comfy.supported_models_base
import node_helpers
import torch
from comfy.ldm.modules.attention import optimized_attention
from einops import rearrange
from torch import Tensor

from ...vc2.files.checkpoint import TEXT, UNET, schedule_buffers
from ...vc2.files.lora import GUIDANCE_LAYER
from ...vc2.networks.config import UNetConfig
from ...vc2.networks.linear import Operations, Weights
from ...vc2.networks.unet import PEAK, VideoUNet
from ...vc2.sampling.schedule import NoiseSchedule
from .hooks import HostHooks
from .space import RescaledSampling, per_sample

DEFAULT_FPS = 28  # the condition that the official sampling script uses

# The keys of transformer_options that reach `VideoUNet.forward`: FreeNoise's (length, stride), what of the temporal
# layers takes part, and T2V-Turbo's scales by their arguments' names.
WINDOW, TEMPORAL, DISTILLED = "vc2_window", "vc2_temporal", "vc2_distilled"
CAST = (torch.float32, torch.float16, torch.bfloat16)  # what else weights are stored as may need a scale too


def _weights(layer, x: Tensor) -> Weights | None:
    """A Linear's weights on a CPU as the host would cast them; None where casting is not all that it does with them."""
    weight, bias = layer.weight, layer.bias
    on_a_cpu = x.device.type == weight.device.type == "cpu"
    if not on_a_cpu or type(weight) is not torch.nn.Parameter or weight.dtype not in CAST:
        return None
    casts = weight.dtype != x.dtype or (bias is not None and bias.dtype != x.dtype)
    if layer.weight_function or layer.bias_function or (casts and not layer.comfy_cast_weights):
        return None
    return weight.to(x.dtype), None if bias is None else bias.to(x.dtype)


class HostUNet(VideoUNet):
    """VideoUNet with the host's calling convention: frames in the batch, every condition repeated for every frame."""

    def __init__(self, vc2_config: UNetConfig, *, dtype=None, device=None, operations=None, **unet_config):
        # `unet_config` is what stock nodes read of a model; the network itself is built from vc2_config.
        super().__init__(vc2_config, operations=Operations(operations, _weights), dtype=dtype, device=device)
        self._options: dict = {}  # of the forward pass that is running
        self.use_attention(self._attention)
        self.eval()  # ComfyUI 0.3.64 does not, and the temporal convolutions have a dropout

    def _attention(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        # SD 2.1's attention overflows in half precision. The host's basic, split and sub-quadratic functions heed it;
        # fused kernels sum in float32 anyway.
        return optimized_attention(q, k, v, heads, attn_precision=torch.float32, transformer_options=self._options)

    def to(self, *args, memory_format=None, **kwargs):
        """As ever, but `--force-channels-last` is not for weights of three-dimensional convolutions."""
        return super().to(*args, **kwargs)

    def forward(self, x, timesteps, context=None, control=None, transformer_options=None, prompts=1, **conds):
        """`_forward` within whatever wraps it: if that hands on other tensors, they may differ among `prompts`."""
        options = transformer_options if transformer_options is not None else {}
        given = (prompts, x, timesteps, conds.get("fps"))
        wrappers = comfy.patcher_extension.get_all_wrappers(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, options)
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timesteps, context, control, options, given=given, **conds)

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
        given=(1, None, None, None),
        **ignored,
    ):
        """x `[B*T, 4, h, w]`, timesteps `[B*T]`, context `[B*T, S, D]`, fps `[B*T]`; T = num_video_frames. `given`: for
        how many prompts x, timesteps and fps are the same clips, and these three as they were then.
        """
        frames = num_video_frames or x.shape[0]
        options = transformer_options or {}
        inputs = {"x": x, "timesteps": timesteps, "context": context}
        hooks = HostHooks(control, options, self.config.model_channels, inputs)
        # Patches of the text attention expect a context for every frame, as image models have it.
        if shared_context and not hooks.patches_text:
            context = context[::frames]
        else:
            context = rearrange(context, "(b t) s d -> b t s d", t=frames)
        prompts, *clips = given
        as_given = all(a is b for a, b in zip(clips, (x, timesteps, fps), strict=True))
        if prompts > 1 and as_given and not hooks.see_what_comes_before_text:
            x, timesteps, fps = (None if t is None else t[: len(t) // prompts] for t in (x, timesteps, fps))
        self._options = options
        try:
            out = super().forward(
                rearrange(x, "(b t) c h w -> b c t h w", t=frames),
                rearrange(timesteps, "(b t) -> b t", t=frames),
                context,
                None if fps is None else fps[::frames],
                hooks=hooks,
                temporal=options.get(TEMPORAL, "full"),
                window=options.get(WINDOW),
                **options.get(DISTILLED, {}),
            )
        finally:
            self._options = {}  # every clone of the model shares this network, and a run's options hold its tensors
        return rearrange(out, "b c t h w -> (b t) c h w")


def _prompts(chunks: int, frames: int, *inputs: Tensor | None) -> int:
    """How many prompts are of the very same clips: all chunks, or 1. Chunks with areas or frame rates of their own have
    other numbers.
    """
    tensors = [t for t in inputs if t is not None]
    if chunks < 2 or any(len(t) % (chunks * frames) for t in tensors):
        return 1
    same = [(t.unflatten(0, (chunks, -1)) == t[: len(t) // chunks]).all().to(tensors[0].device) for t in tensors]
    return chunks if torch.stack(same).all() else 1  # asked once, since the answer waits for a GPU


class HostModel(comfy.model_base.BaseModel):
    """ComfyUI's model object around the UNet: its sampling space, and fps and clip length as conditions."""

    def __init__(self, model_config: ModelConfig, device=None):
        super().__init__(model_config, device=device, unet_model=HostUNet)
        self.model_sampling = RescaledSampling(model_config.schedule)

    def _apply_model(self, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **conds):
        """As the host's; it also tells the UNet how many prompts it has for a clip, since the UNet may be compiled, and
        then cannot ask whether numbers are equal.
        """
        options = transformer_options or {}
        chunks, frames = len(options.get("cond_or_uncond", ())), conds.get("num_video_frames") or len(x)
        conds["prompts"] = _prompts(chunks, frames, x, t, conds.get("fps"))
        return super()._apply_model(x, t, c_concat, c_crossattn, control, options, **conds)

    def scale_latent_inpaint(self, sigma, noise, latent_image, **kwargs):
        """What is kept while inpainting, at noise level sigma.

        Not `noise_scaling`, which takes an empty latent for a start from the prior.
        """
        return latent_image + noise * per_sample(sigma, noise.ndim)

    def state_dict_for_saving(self, *args, **kwargs):
        """For the stock ModelSave and CheckpointSave: the file loads as what was saved.

        Its tensors' names tell the family, and it has its own rescale.
        """
        state = super().state_dict_for_saving(*args, **kwargs)
        added = f"{UNET}{GUIDANCE_LAYER}.weight"
        # Else T2V-Turbo's LoRA gave it weights. From ComfyUI 0.28 on only `.to` shows what patches make of a weight.
        if not self.model_config.distilled and not state[added].to("cpu").float().any():
            del state[added]
        return {**state, **schedule_buffers(self.model_config.schedule)}

    def extra_conds(self, **kwargs):
        """The conditions of `_forward`. Raises ValueError where latent, prompt and model do not fit one another."""
        out = super().extra_conds(**kwargs)
        total = kwargs["noise"].shape[0]
        frames = kwargs.get("frames_per_clip") or total
        if total % frames:
            raise ValueError(
                f"the latent holds {total} frames, which are not whole clips of {frames}; "
                "set frames_per_clip in VideoCrafter Video Conditioning to a divisor of the number of frames, or to 0"
                " for one clip"
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
                    "connect the CLIP of Load VideoCrafter Checkpoint (OpenCLIP ViT-H for VideoCrafter2)"
                )
            # One prompt for the whole clip: its keys and values are computed once, not once a frame.
            out["shared_context"] = comfy.conds.CONDConstant(text.shape[0] == 1)
        return out


class ModelConfig(comfy.supported_models_base.BASE):
    """What the host asks about a model. `distilled`: T2V-Turbo, the guidance scale is a condition.

    `num_res_blocks` must stay out of unet_config: LoRA loading would take the UNet for a diffusers one.
    """

    unet_extra_config = {}
    latent_format = comfy.latent_formats.SD15
    # The host reserves so many hundredths of a MiB for each byte of one channel of the latent. As for its own SD 2.1, a
    # quarter more than is counted.
    memory_usage_factor = 1.26 * PEAK / 2**20 * 100

    def __init__(self, config: UNetConfig, schedule: NoiseSchedule, distilled: bool):
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
        self.vc2_config, self.schedule, self.distilled = config, schedule, distilled

    def get_model(self, state_dict, prefix="", device=None):
        return HostModel(self, device=device)

    def process_clip_state_dict_for_saving(self, state_dict):
        # As above; and what is not patched yet cannot be put together (queries, keys and values become one tensor).
        return comfy.diffusers_convert.convert_text_enc_state_dict_v20(
            {TEXT + name.removeprefix("clip_h."): t.to("cpu") for name, t in state_dict.items()}
        )


def with_video_conditions(conditioning: list, fps: float, frames: int) -> list:
    """A CONDITIONING with what `HostModel.extra_conds` reads; `frames` of a clip, or 0 where the batch is one clip."""
    return node_helpers.conditioning_set_values(conditioning, {"fps": fps, "frames_per_clip": frames})


def frames_per_clip(conds: dict[str, list[dict]], total: int) -> int:
    """Of conditions that `HostModel.extra_conds` has not seen yet, for a batch of `total` frames."""
    return next((c["frames_per_clip"] for group in conds.values() for c in group if c.get("frames_per_clip")), total)


def clip_length(conds: list, x: Tensor) -> int:
    """Frames of each clip in x `[clips * T, ...]`, as `HostModel.extra_conds` wrote it."""
    for cond in (c for group in conds if group for c in group):
        if (count := cond.get("model_conds", {}).get("num_video_frames")) is not None:
            return count.cond
    return x.shape[0]
