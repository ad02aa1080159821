"""Files into ComfyUI's own MODEL, CLIP and VAE.

Uses, and follows when they change:

- `comfy.model_patcher.ModelPatcher`, `comfy.model_management`, `comfy.utils`: devices and precision, in the order of
  `comfy/sd.py`, `load_diffusion_model_state_dict`.
- `CoreModelPatcher`, `is_dynamic` and `cached_patcher_init` of `comfy.model_patcher` (not before ComfyUI 0.28): dynamic
  VRAM, and how hooks, TorchCompileModel and further GPUs load a second copy.
- `comfy.sd.CLIP`, `comfy.sd.VAE`, `comfy.sd1_clip`: text encoder and autoencoder, as SD 2.1's are loaded.
- `comfy.sd.load_lora_for_models`; `comfy.lora.calculate_weight`: whether patches make a model a T2V-Turbo one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import comfy.lora
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.utils
import folder_paths
import torch
from torch import Tensor

from ...vc2.files import checkpoint, lora
from ...vc2.files.checkpoint import Checkpoint
from ...vc2.files.lora import GUIDANCE_LAYER, GUIDANCE_WIDTH
from ...vc2.networks.config import AutoencoderConfig, TextConfig
from .advice import give_advice
from .checks import check_when_sampled
from .flags import wants_float32_unet
from .model import ModelConfig
from .windows import support_windows


def load_model(
    loaded: Checkpoint, dtype: torch.dtype | None = None, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """The checkpoint's UNet as a MODEL; `dtype` is the weights' (None: the host decides by file, device and flags).

    `disable_dynamic` keeps the host's dynamic VRAM out: hooks and torch.compile need weights that stay where they are.
    """
    network, state = loaded.config, dict(loaded.unet)
    distilled = network.time_cond_proj_dim is not None
    if not distilled:
        # T2V-Turbo's LoRA adapts a layer that VideoCrafter2 lacks. Its release has no base weight for it: zeros.
        network = replace(network, time_cond_proj_dim=GUIDANCE_WIDTH)
        state[f"{GUIDANCE_LAYER}.weight"] = torch.zeros(
            network.model_channels, GUIDANCE_WIDTH, dtype=state["time_embed.0.weight"].dtype
        )
    config = ModelConfig(network, loaded.schedule, distilled)
    management = comfy.model_management
    load_device, offload_device = management.get_torch_device(), management.unet_offload_device()
    dtype = dtype or _weight_dtype(state, config)
    config.set_inference_dtype(
        dtype, management.unet_manual_cast(dtype, load_device, config.supported_inference_dtypes)
    )
    model = config.get_model(state).to(offload_device)
    patcher = _patcher_class(disable_dynamic)(model, load_device=load_device, offload_device=offload_device)
    # Strict, as the host's own load_model_weights is not: names and shapes were checked when the file was read, and are
    # again here.
    model.diffusion_model.load_state_dict(state, strict=True, assign=_is_dynamic(patcher))
    # With dynamic VRAM the host's Linear takes over the file's own tensors, in the file's precision.
    model.diffusion_model.to(offload_device, dtype)
    patcher.cached_patcher_init = (_reload_model, (loaded.path, dtype))
    check_when_sampled(patcher)
    support_windows(patcher)
    give_advice(patcher)
    return patcher


def _reload_model(path: Path, dtype: torch.dtype, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    return load_model(checkpoint.load(path), dtype, disable_dynamic)


def _patcher_class(disable_dynamic: bool) -> type[comfy.model_patcher.ModelPatcher]:
    """The host's choice, made when it started; before ComfyUI 0.28 there is one class."""
    plain = comfy.model_patcher.ModelPatcher
    return plain if disable_dynamic else getattr(comfy.model_patcher, "CoreModelPatcher", plain)


def _is_dynamic(patcher: comfy.model_patcher.ModelPatcher) -> bool:
    """Whether the host fetches weights from the file as they are used, so that they are not to be copied from it."""
    asked = getattr(patcher, "is_dynamic", None)
    return asked is not None and asked()


def _weight_dtype(state: dict[str, Tensor], config: ModelConfig) -> torch.dtype:
    """The host's choice, unless it would widen a half-precision file only because the device computes in float32.

    On CPUs, then, the weights stay half and are cast layer by layer: the model needs the file's size, not twice that.
    """
    stored = comfy.utils.weight_dtype(state)
    chosen = comfy.model_management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(state),
        supported_dtypes=config.supported_inference_dtypes,
        weight_dtype=stored,
    )
    widened = chosen == torch.float32 and stored in (torch.float16, torch.bfloat16)
    return stored if widened and not wants_float32_unet() else chosen


def apply_lora(model: comfy.model_patcher.ModelPatcher, path: str, strength: float) -> comfy.model_patcher.ModelPatcher:
    """A clone with the LoRA in the file `path`, of any layout that `vc2.files.lora` reads."""
    tensors = lora.load(path, model.model.model_config.vc2_config)
    patched, _ = comfy.sd.load_lora_for_models(model, None, tensors, strength, 0)
    return patched


def is_turbo(model: comfy.model_patcher.ModelPatcher) -> bool:
    """Whether the model reads the guidance scale as a condition: its file has the layer, or a LoRA gives it weights.

    The weights themselves are no answer, as another clone's LoRA may lie in them; and patches alone are none, as a
    stock merge patches all weights, here with zeros.
    """
    config, name = model.model.model_config, f"diffusion_model.{GUIDANCE_LAYER}.weight"
    patches = model.patches.get(name, [])
    if config.distilled or not patches:
        return config.distilled
    base = torch.zeros(config.vc2_config.model_channels, GUIDANCE_WIDTH)
    return bool(comfy.lora.calculate_weight(patches, base, name).any())


def load_clip(loaded: Checkpoint, disable_dynamic: bool = False) -> comfy.sd.CLIP:
    """The checkpoint's text tower as a CLIP: SD 2.1's tokenizer (pad with 0) and its second-to-last layer.

    The tower may have any width; `disable_dynamic` as in `load_model`. Raises ValueError where the host's tower is not
    the file's.
    """
    tower = loaded.text_config
    state = comfy.utils.clip_text_transformers_convert(dict(loaded.text), "", "")

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

    clip = comfy.sd.CLIP(
        comfy.supported_models_base.ClipTarget(Tokenizer, Encoder),
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        parameters=comfy.utils.calculate_parameters(state),
        **({"disable_dynamic": True} if disable_dynamic else {}),  # asked only by hosts that know it
    )
    missing, unexpected = clip.load_sd(state)
    unexpected = [name for name in unexpected if name != "logit_scale"]
    if missing or unexpected:
        raise ValueError(
            f"{loaded.path}: the host's text encoder does not fit the file: missing {missing[:3]}, unexpected"
            f" {unexpected[:3]}"
        )
    clip.patcher.cached_patcher_init = (_reload_clip, (loaded.path,))
    return clip


def _reload_clip(path: Path, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    return load_clip(checkpoint.load(path), disable_dynamic).patcher


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


def load_vae(loaded: Checkpoint) -> comfy.sd.VAE:
    """The checkpoint's autoencoder as a VAE, of any width. Raises ValueError where the host's is not the file's."""
    config: AutoencoderConfig = loaded.vae_config
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
    vae = comfy.sd.VAE(sd=dict(loaded.vae), config={"params": {"ddconfig": ddconfig, "embed_dim": config.embed_dim}})
    vae.first_stage_model.to(vae.vae_dtype)  # as the UNet's: with dynamic VRAM it has the file's precision
    # The host only logs names that do not fit.
    if different := sorted(vae.first_stage_model.state_dict().keys() ^ loaded.vae.keys()):
        raise ValueError(
            f"{loaded.path}: the host's autoencoder does not fit the file: {len(different)} tensors are only in one of"
            f" them, {different[:3]} among them"
        )
    vae.patcher.cached_patcher_init = (_reload_vae, (loaded.path,))
    return vae


def _reload_vae(path: Path, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    # The host's VAE decides by itself, and its own factory ignores the wish too.
    return load_vae(checkpoint.load(path)).patcher
