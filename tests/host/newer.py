"""What newer versions of ComfyUI do inside, for those that do not do it yet: the least of it that a pack can notice.

Each stand-in names what it stands for; where the running ComfyUI has the thing itself, that is used instead. For a
process of its own (`contracts.py`): nothing is put back.
"""

from __future__ import annotations

from collections import namedtuple

import comfy.lora
import comfy.model_patcher
import comfy.ops
import comfy.sd
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

FakeDevice = namedtuple("FakeDevice", ["type", "index"])


def lazy_linears() -> None:
    """`comfy/ops.py` with dynamic VRAM, 0.33 (on Windows 0.28): no weight until one is loaded, and then the file's."""
    linear = comfy.ops.disable_weight_init.Linear
    if hasattr(comfy.ops.disable_weight_init, "_lazy_load_from_state_dict"):
        comfy.memory_management.aimdo_enabled = True
        comfy.model_management.WINDOWS = True
        return

    def construct(self, in_features, out_features, bias=True, device=None, dtype=None):
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = in_features, out_features
        self.weight, self.bias, self.needs_bias = None, None, bias

    def load(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs):
        for name in ("weight", "bias") if self.needs_bias else ("weight",):
            tensor = state_dict.get(prefix + name)
            if tensor is None:
                missing_keys.append(prefix + name)
                continue
            assign = local_metadata.get("assign_to_params_buffers", False)
            setattr(self, name, torch.nn.Parameter(tensor if assign else tensor.clone(), requires_grad=False))

    linear.__init__, linear._load_from_state_dict = construct, load


def padded_convolutions() -> None:
    """`Conv3d` of `comfy/ops.py` with an `autopad`, which is passed on by name."""
    conv = comfy.ops.disable_weight_init.Conv3d
    if "autopad" in conv.forward_comfy_cast_weights.__code__.co_varnames:
        return

    def cast(self, input, autopad=None):
        weight, bias = comfy.ops.cast_bias_weight(self, input)
        return self._conv_forward(input, weight, bias, autopad=autopad)

    conv.forward_comfy_cast_weights = cast


class DeferredWeight(torch.nn.Parameter):
    """`LazyCastingParam` of `comfy/model_patcher.py`, 0.28: a weight that only `.to` patches, on no device."""

    def __new__(cls, patcher, key: str, weight: Tensor):
        return super().__new__(cls, weight, requires_grad=False)

    def __init__(self, patcher, key: str, weight: Tensor):
        self.patcher, self.key = patcher, key

    @property
    def device(self):
        return FakeDevice("lazy", 0)

    def to(self, *args, **kwargs) -> Tensor:
        plain = self.data.as_subclass(Tensor)
        patches = self.patcher.patches.get(self.key)
        return comfy.lora.calculate_weight(patches, plain.float(), self.key).to(plain.dtype) if patches else plain


def state_to_save(model, clip, vae) -> dict[str, Tensor]:
    """What the host hands to safetensors of a model that is not loaded."""
    if hasattr(comfy.model_patcher, "LazyCastingParam"):
        return model.state_dict_for_saving(clip.state_dict_for_saving(), vae.get_sd())

    def deferred(patcher, module, prefix=""):
        return {
            name: DeferredWeight(patcher, prefix + name, t) if name.endswith((".weight", ".bias")) else t
            for name, t in module.state_dict().items()
        }

    unet, text = (
        deferred(model, model.model.diffusion_model, "diffusion_model."),
        deferred(clip.patcher, clip.patcher.model),
    )
    model.model.diffusion_model.state_dict = lambda: unet
    state = model.model.state_dict_for_saving(text, vae.get_sd())
    del model.model.diffusion_model.state_dict
    return state


class DynamicPatcher(comfy.model_patcher.ModelPatcher):
    """`ModelPatcherDynamic`, 0.28, as far as it is what loaders ask: `is_dynamic`, and a clone that is not."""

    def is_dynamic(self) -> bool:
        return True


def dynamic_patchers() -> None:
    """`main.py` with dynamic VRAM, 0.28: the class that loaders are to use, and a CLIP that can be told not to."""
    comfy.model_patcher.CoreModelPatcher = DynamicPatcher
    if "disable_dynamic" in comfy.sd.CLIP.__init__.__code__.co_varnames:
        return
    construct = comfy.sd.CLIP.__init__

    def accepting(self, *args, disable_dynamic=False, **kwargs):
        construct(self, *args, **kwargs)
        if not kwargs.get("no_init"):
            kind = comfy.model_patcher.ModelPatcher if disable_dynamic else DynamicPatcher
            self.patcher.__class__ = kind

    comfy.sd.CLIP.__init__ = accepting


def loaded_anew(patcher, **options):
    """`ModelPatcher.clone(disable_dynamic=True)` and `deepclone_multigpu`, 0.28: the copy that the factory makes."""
    factory, arguments, *index = patcher.cached_patcher_init
    made = factory(*arguments, **options)
    return made[index[0]] if index else made


def with_stock_windows(model, **options):
    """A clone as the stock Context Windows node leaves it, 0.28: length 4, `options` its newer ones."""
    stock = comfy.context_windows
    model = model.clone()
    handler = model.model_options["context_handler"] = stock.IndexListContextHandler(
        stock.get_matching_context_schedule("standard_static"),
        stock.get_matching_fuse_method("pyramid"),
        context_length=4,
        context_overlap=options.pop("context_overlap", 2),
    )
    for name, value in options.items():
        setattr(handler, name, value)
    stock.create_prepare_sampling_wrapper(model)
    if options.get("freenoise"):

        def ask(executor, guider, sigmas, extra_args, callback, noise, *args, **kwargs):
            handler = extra_args["model_options"]["context_handler"]
            conds = [guider.conds.get("positive", guider.conds.get("negative", []))]
            noise = handler._apply_freenoise(noise, conds, extra_args["seed"])
            return executor(guider, sigmas, extra_args, callback, noise, *args, **kwargs)

        own = getattr(stock, "_sampler_sample_wrapper", ask) if hasattr(handler, "_apply_freenoise") else ask
        model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "ContextWindows_sampler_sample", own)
    return model
