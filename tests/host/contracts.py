"""For `test_contracts`, in a process of ComfyUI's: the pack under what newer versions do inside (`newer.py`)."""

from __future__ import annotations

from pathlib import Path

import comfy.model_management
import comfy.utils
import torch
from comfy.patcher_extension import WrappersMP
from pack.nodes.host.loading import apply_lora, load_clip, load_model, load_vae
from pack.nodes.long import VC2ContextWindows
from pack.nodes.sample import VC2Sampler
from pack.vc2.files import checkpoint
from pack.vc2.sampling.windows import reschedule_noise
from torch.utils._python_dispatch import TorchDispatchMode

from tests.host import newer

FRAMES = 8
STORED = ("float32", "float16", "bfloat16")
ASKED = (torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
GENERATOR = torch.Generator().manual_seed(0)
TEXT, OTHER, NONE = (torch.randn(1, 77, 64, generator=GENERATOR) for _ in range(3))


def observe(folder: Path) -> dict:
    """`folder` holds checkpoints float32, float16 and bfloat16 of the same weights, and T2V-Turbo's LoRA, turbo.pt."""
    files = {name: checkpoint.load(folder / f"{name}.safetensors") for name in STORED}
    half = files["float16"]
    # What is expected, before the host becomes a newer one.
    clips = {(name, dtype): sample(load_model(file, dtype)) for name, file in files.items() for dtype in ASKED}
    return {
        "memory usage factor": load_model(half).model.memory_usage_factor,
        "convolutions": convolutions(files),
        "windows": windows(load_model(half)),
        "patches": patches(load_model(half)),
        "saving": saving(half, folder),
        "loading anew": loading_anew(half),  # the host stays a newer one from here on
        "lazy": lazy(files, clips),
    }


class Convolutions(TorchDispatchMode):
    """By how many axes the weights have: 4 is a convolution of images."""

    def __init__(self):
        super().__init__()
        self.axes = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "conv" in func.overloadpacket.__name__:
            self.axes.add(args[1].ndim)
        return func(*args, **(kwargs or {}))


def convolutions(files: dict) -> dict:
    """What computes the UNet's, by how the host comes to the weights."""

    def patched(model):
        """Weights that are patched each time they are used, as those are that wait in main memory."""
        for module in model.model.diffusion_model.modules():
            if hasattr(module, "weight_function"):
                module.weight_function = [lambda weight: weight]
        return model

    models = {"as they are": load_model(files["float32"]), "cast": load_model(files["float16"])}
    models["patched"] = patched(load_model(files["float32"]))
    newer.padded_convolutions()  # the host stays a newer one in this
    models |= {"padded": load_model(files["float16"])}
    observed, clips = {}, {}
    for name, model in models.items():
        with Convolutions() as seen:
            clips[name] = sample(model)
        observed[name] = {"axes": sorted(seen.axes), "difference": difference(clips[name], clips["as they are"])}
    return observed


def sample(model, *prompts, clips=1):
    conds = [[prompt, {"frames_per_clip": FRAMES}] for prompt in prompts or (TEXT,)]
    latent = {"samples": torch.zeros(clips * FRAMES, 4, 4, 4)}
    negative = [[NONE, {"frames_per_clip": FRAMES}]]
    sampled = VC2Sampler.execute(model, conds, negative, latent, seed=0, steps=2, guidance=2.0, eta=0.0, denoise=1.0)
    return sampled.result[0]["samples"]


def difference(a, b) -> float:
    return float((a - b).std() / b.std())


def windows(model) -> dict:
    """Under the stock node's options, which it leaves to its handler, ours."""
    noises = []

    def spy(executor, guider, sigmas, extra_args, callback, noise, *args, **kwargs):
        noises.append(noise)
        return executor(guider, sigmas, extra_args, callback, noise, *args, **kwargs)

    for freenoise in (False, True):
        patched = newer.with_stock_windows(model, freenoise=freenoise)
        patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "spy", spy)  # after the stock node's
        sample(patched, clips=2)
    before, after = noises
    by_hand = [reschedule_noise(clip, 4, 2, torch.Generator().manual_seed(0)) for clip in before.split(FRAMES)]

    apart = {"context_overlap": 0}
    one, other = (sample(newer.with_stock_windows(model, **apart), prompt) for prompt in (TEXT, OTHER))
    split = sample(newer.with_stock_windows(model, split_conds_to_windows=True, **apart), TEXT, NONE, OTHER)

    refusals = {}
    for name in ("cond_retain_index_list", "latent_retain_index_list"):
        try:
            sample(newer.with_stock_windows(model, **{name: [0]}))
        except ValueError as error:
            refusals[name] = str(error)
    causal = sample(newer.with_stock_windows(model, causal_window_fix=True))
    return {
        "FreeNoise": difference(after, torch.cat(by_hand)),
        "noise moved": difference(after, before),
        "split prompts": difference(split, torch.cat([one[:4], other[4:]])),
        "between the prompts": difference(one, other),
        "refusals": refusals,
        "causal_window_fix": difference(causal, sample(VC2ContextWindows.execute(model, "overlap", 4, 2).result[0])),
    }


def patches(model) -> dict:
    expected, seen = sample(model), []
    joined = model.clone()
    joined.set_model_output_block_patch(lambda h, skip, options: (torch.cat([h, skip], 1), None))
    joined.set_model_output_block_patch(lambda h, skip, options: (h, skip))  # one that passes on what it gets

    def middle(args):
        rows = {name: len(args[name]) for name in ("h", "x", "emb", "context", "timesteps")}
        seen.append({"rows": rows, "y": args["y"], "block": list(args["transformer_options"]["block"])})
        return {"h": scale * args["h"]}

    patched, scaled = model.clone(), {}
    patched.set_model_patch(middle, "middle_block_after_patch")
    for scale in (1.0, 1.5):
        scaled[str(scale)] = difference(sample(patched), expected)
    return {"no skip": difference(sample(joined), expected), "middle times": scaled, "middle sees": seen[0]}


def saving(half, folder: Path) -> dict:
    """Of a model that is not loaded, so that its weights are patched as they are written."""
    model, clip, vae = load_model(half), load_clip(half), load_vae(half)
    tokens, observed = clip.tokenize("a cat"), {}
    embedding = clip.encode_from_tokens(tokens)
    for name, patched in (("plain", model), ("turbo", apply_lora(model, str(folder / "turbo.pt"), 1.0))):
        comfy.model_management.unload_all_models()
        comfy.utils.save_torch_file(newer.state_to_save(patched, clip, vae), str(folder / "saved.safetensors"))
        found = checkpoint.load(folder / "saved.safetensors")
        observed[name] = {
            "family": found.config.family,
            "clip": difference(sample(load_model(found)), sample(patched)),
            "text": difference(load_clip(found).encode_from_tokens(tokens), embedding),
        }
    return observed


def loading_anew(half) -> dict:
    expected = sample(load_model(half))
    newer.dynamic_patchers()
    model, clip, vae = load_model(half), load_clip(half), load_vae(half)
    first = "input_blocks.0.0.weight"
    observed = {
        "class": type(model).__name__,
        "read from the file": model.model.diffusion_model.get_parameter(first).data_ptr()
        == half.unet[first].data_ptr(),
        "clip": difference(sample(newer.loaded_anew(model, disable_dynamic=True)), expected),
    }
    for name, part in (("MODEL", model), ("CLIP", clip.patcher), ("VAE", vae.patcher)):
        copies = [newer.loaded_anew(part), newer.loaded_anew(part, disable_dynamic=True)]
        weights = dict(part.model.named_parameters())
        observed[name] = {
            "classes": [type(copy).__name__ for copy in copies],
            "copied": all(copy.model is not part.model for copy in copies),
            "equal": all(
                torch.equal(weight, weights[key]) and weight.dtype == weights[key].dtype
                for copy in copies
                for key, weight in copy.model.named_parameters()
            ),
        }
    eighth = newer.loaded_anew(load_model(half, torch.float8_e4m3fn), disable_dynamic=True)
    observed["precision"] = precisions(eighth)
    return observed


def precisions(model) -> list[str]:
    return sorted({str(p.dtype).removeprefix("torch.") for p in model.model.diffusion_model.parameters()})


def lazy(files: dict, clips: dict) -> dict:
    """With Linears that load lazily: by the file's precision, the one asked for, and the kind of patcher."""
    newer.lazy_linears()
    observed = {}
    for (name, dtype), expected in clips.items():
        for kind, disable_dynamic in (("dynamic", False), ("plain", True)):
            model = load_model(files[name], dtype, disable_dynamic)
            observed[f"{name} {str(dtype).removeprefix('torch.')} {kind}"] = {
                "precisions": precisions(model),
                "bytes": sum(p.nbytes for p in model.model.diffusion_model.parameters()),
                "difference": difference(sample(model), expected),
            }
    return observed
