"""For `test_inside`, in a process of ComfyUI's: what is reserved for a run, and what it leaves behind."""

from __future__ import annotations

import gc
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock, patch

import comfy.context_windows as stock
import comfy.controlnet
import comfy.ops
import comfy.sampler_helpers
import folder_paths
import torch
import torch.nn.functional as F
from pack.nodes.host import model as host_model
from pack.nodes.host.loading import load_model
from pack.nodes.host.windows import ContextWindows
from pack.nodes.long import VC2ContextWindows, VC2FIFOSampler
from pack.nodes.sample import VC2Sampler
from pack.nodes.video import VC2SaveVideo
from pack.vc2.files import checkpoint
from pack.vc2.networks import linear
from pack.vc2.networks.config import UNetConfig
from pack.vc2.networks.layers import SpatialTransformer, TemporalTransformer
from pack.vc2.sampling.windows import cover

from bench.counted import count, fused_attention


def attention(unet) -> dict[str, list[str]]:
    """What computes it among pixels and to the text, and among frames."""
    kinds = {"spatial": SpatialTransformer, "temporal": TemporalTransformer}
    return {
        name: sorted({layer.backend.__name__ for transformer in unet.modules() if isinstance(transformer, kind)
                      for layer in transformer.modules() if hasattr(layer, "backend")})
        for name, kind in kinds.items()
    }  # fmt: skip


def peak() -> int:
    """Bytes of activations of a guided step at 512x320 and full width, as the host asks for it."""
    unet = host_model.HostUNet(
        UNetConfig.vc2(), dtype=torch.bfloat16, device="meta", operations=comfy.ops.disable_weight_init
    )
    unet.use_attention(fused_attention, fused_attention)
    with torch.no_grad(), torch.device("meta"):
        x, t = torch.zeros(32, 4, 40, 64, dtype=torch.bfloat16), torch.zeros(32)
        context = torch.zeros(32, 77, 1024, dtype=torch.bfloat16)
        return count(lambda: unet(x, t, context, fps=t, num_video_frames=16, shared_context=True)).peak


def linears(unet) -> dict[str, float]:
    """How far a Linear is from what it should be, with its weights as they are, and where the host patches them while
    it computes, as it does for a LoRA when memory is short; and how often it was taken from the host.
    """
    layer, x = unet.time_embed[0], torch.randn(3, unet.time_embed[0].in_features)
    weight, bias = layer.weight.float(), layer.bias.float()
    dtypes = (torch.float32, torch.bfloat16)
    with torch.no_grad(), patch.multiple(linear, DTYPES=dtypes, _product=Mock(wraps=F.linear)):
        apart = {"as it is": layer(x) - F.linear(x, weight, bias)}
        narrow = (x.bfloat16(), weight.bfloat16(), bias.bfloat16())
        apart["bf16"] = layer(narrow[0]) - F.linear(*narrow)
        layer.weight_function = [lambda weight: 2 * weight]
        apart["patched"] = layer(x) - F.linear(x, 2 * weight, bias)
        layer.weight_function = []
        taken = linear._product.call_count
    return {name: float(difference.abs().max()) for name, difference in apart.items()} | {"taken": taken}


def observe(path: Path) -> dict:
    folder_paths.set_output_directory(str(path.parent))
    reserved, observed = [], {}
    estimate = comfy.sampler_helpers.estimate_memory

    def spy(model, shape, conds):
        reserved.append(shape[0])
        return estimate(model, shape, conds)

    comfy.sampler_helpers.estimate_memory = spy
    model = load_model(checkpoint.load(path))
    observed["attention"] = attention(model.model.diffusion_model)
    observed["peak"] = peak()
    observed["linears"] = linears(model.model.diffusion_model)

    def cond(**values):
        return [[torch.zeros(1, 77, 64), values]]

    class Control(comfy.controlnet.ControlBase):
        seen = []

        def get_control(self, x, *rest):
            self.seen.append(len(x))
            return {"middle": [None]}

    def run(name, model, frames=12, clips=1, fifo=False, **values):
        latent = {"samples": torch.zeros(clips * frames, 4, 4, 4)}
        values |= {"frames_per_clip": frames}
        how = {"partitions": 2, "window": 4} if fifo else {"steps": 1, "denoise": 1.0}
        sampler = VC2FIFOSampler if fifo else VC2Sampler
        sampler.execute(model, cond(**values), cond(**values), latent, seed=0, guidance=2.0, eta=0.0, **how)
        observed[name] = reserved.pop()

    def windows(mode):
        return VC2ContextWindows.execute(model, mode, 4, 2).result[0]

    run("all frames", model, clips=2)
    run("FreeNoise", windows("FreeNoise"), clips=2)
    run("windows", windows("overlap"))
    run("windows of two clips", windows("overlap"), clips=2)
    run("windows longer than the clips", windows("overlap"), frames=3, clips=2)
    patched = model.clone()
    patched.model_options["context_handler"] = stock.IndexListContextHandler(
        stock.get_matching_context_schedule("standard_static"),
        stock.get_matching_fuse_method("pyramid"),
        context_length=4,
        context_overlap=2,
    )
    stock.create_prepare_sampling_wrapper(patched)
    run("stock windows of two clips", patched, clips=2)
    run("FIFO", model, fifo=True)
    run("FIFO of less than a window", model, frames=3, fifo=True)
    observed["left on the network"] = list(model.model.diffusion_model._options)
    observed["left on the model"] = "context_handler" in model.model_options

    one, other = Control().set_cond_hint(torch.zeros(12, 3, 32, 32)), Control().set_cond_hint(torch.zeros(1, 3, 32, 32))
    run("controlled", windows("overlap"), control=one.set_previous_controlnet(other))
    observed["controlled batches"] = sorted(set(Control.seen))

    looped = ContextWindows(16, 8, looped=True, split_conds=True)
    prompts = [["first", "second"], None]
    observed["looped prompts"] = [looped._read_in(window, prompts, 32) for window in cover(32, 16, 8, looped=True)]

    class Save(VC2SaveVideo):
        hidden = SimpleNamespace(prompt=None, extra_pnginfo=None)

    def every_way():
        for patched in (model, windows("overlap"), windows("FreeNoise")):
            run("again", patched)
        run("again", model, fifo=True)
        Save.execute(torch.rand(8, 64, 64, 3), 8.0, "clip", "mp4")

    def tensors():
        gc.collect()
        return sum(issubclass(type(held), torch.Tensor) for held in gc.get_objects())

    every_way()
    before = tensors()
    every_way()
    observed["more tensors after more runs"] = tensors() - before
    return observed
