"""The graphs in workflows/, described; `layout` makes of each what a browser saves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .comfyui import ROOT
from .graph import (
    OFFICIAL,
    OFFICIAL_SETTINGS,
    PAPER_BASE,
    PAPER_MODELS,
    TINY,
    TRAINED_BASE,
    TRAINED_DIRECT,
    TRAINED_LORA,
    TURBO,
    VADER,
    Graph,
)

FOLDER = ROOT / "workflows"
WEIGHTS = FOLDER / "weights"  # that only a graph of ours names
QUICKSTART = "VideoCrafter2_1_Quickstart"
CLIP = "videocrafter2_example.mp4"  # made by the miniature; the pack puts it into ComfyUI's input folder
WINDOWS: dict[str, Any] = {"mode": "FreeNoise", "length": 16, "overlap": 12}
MODEL = f"""**Model**: [{OFFICIAL} of VideoCrafter2](https://huggingface.co/VideoCrafter/VideoCrafter2), 5.5 GB, in \
**models/checkpoints**."""
# The button is web/miniature.js.
WITHOUT = """**Without the model**, press **Miniature on / off** on *Load VideoCrafter Checkpoint*, then Run: the \
bundled model makes a clip of coloured shapes in seconds. Press it again to come back."""
NEEDS_MODEL = f"{MODEL}\n\n{WITHOUT}"


def quickstart() -> Graph:
    g = Graph("""## Quickstart: press Run

A sentence becomes a clip, in seconds and without a graphics card: the model here is a bundled miniature.

It knows one kind of sentence:

**a** red, yellow, green, blue, purple or white **circle, square, triangle** or **cross moving left, right, up** or \
**down**

The real model, for any sentence, is in the template **VideoCrafter2_2_Text_to_Video**.""")
    model, clip, vae = g.checkpoint(TINY)
    g.saved(g.sampled(model, clip, g.latent(16, (64, 64)), "a red circle moving right", steps=25, guidance=4.0), vae)
    g.app = [("prompt", "text"), ("sampler", "steps"), ("sampler", "seed")]
    return g


def text_to_video() -> Graph:
    g = Graph(f"""## Text to video

16 frames of 512 x 320 with the settings of the paper. **25 steps** are enough for a draft.

{NEEDS_MODEL}

**More or less motion**: put *VideoCrafter Video Conditioning* between the prompts and the sampler. A lower \
**motion fps** means larger movements; 28 is as without the node.""")
    model, clip, vae = g.checkpoint()
    g.saved(g.sampled(model, clip, g.latent()), vae)
    return g


def high_resolution() -> Graph:
    g = Graph(
        f"""## Higher resolution

The model knows 512 x 320. So the clip is made at that size, enlarged, and denoised again at **1024 x 576**, which \
draws the detail. **denoise** of the second pass: 0.4 keeps more of the first, 0.7 draws more anew.

The second pass takes about four times the time and memory of the first.

{NEEDS_MODEL} It knows no size but 64 x 64, so both passes have that one.""",
        note_at=(0, 2, None),
    )
    model, clip, vae = g.checkpoint()
    latent, prompts = g.latent(), g.prompts(clip)
    first = g.sample("VC2Sampler", model=model, latent=latent, **prompts, **OFFICIAL_SETTINGS)
    with g.group("Enlarge", 3):
        frames = g.add("frames", "VAEDecode", samples=first, vae=vae)
        size = {"upscale_method": "lanczos", "width": 1024, "height": 576, "crop": "center"}
        large = g.add("scale", "ImageScale", image=frames, **size)
        encoded = g.add("encode", "VAEEncode", pixels=large, vae=vae)
    with g.group("Second pass", 4):
        settings = OFFICIAL_SETTINGS | {"denoise": 0.5}
        second = g.add("second", "VC2Sampler", "Second pass", model=model, latent=encoded, **prompts, **settings)
    g.unfolded.add("second")
    g.saved(second, vae, 640)
    return g


def free_init() -> Graph:
    g = Graph(
        f"""## FreeInit

The clip is sampled **three times**, each time from noise that remembers the last one's rough shape, and takes three \
times as long. It is meant to make clips move more as the prompt says; with *iterations* at **1** you see the \
difference.

{NEEDS_MODEL}""",
    )
    model, clip, vae = g.checkpoint()
    remembered = g.patch("Noise", "init", "VC2FreeInit", model=model, iterations=3)
    g.saved(g.sampled(remembered, clip, g.latent()), vae)
    return g


def stock_ksampler() -> Graph:
    g = Graph(f"""## The stock KSampler

VideoCrafter2 works with every stock sampler and scheduler. A good one needs fewer steps: here **dpmpp_2m** with \
**25**.

{NEEDS_MODEL}""")
    model, clip, vae = g.checkpoint()
    latent, prompts = g.latent(), g.prompts(clip)
    settings = {"seed": 1, "steps": 25, "cfg": 12.0, "sampler_name": "dpmpp_2m", "scheduler": "normal", "denoise": 1.0}
    g.saved(g.sample("KSampler", model=model, latent_image=latent, **prompts, **settings), vae)
    return g


def custom_sampler() -> Graph:
    g = Graph(
        f"""## The sampler in parts

**SamplerCustomAdvanced** with our steps and our noise levels. Put another guider, sampler or noise in the place of \
one of them.

{NEEDS_MODEL}""",
        note_at=(0, 1, None),
    )
    model, clip, vae = g.checkpoint()
    latent, prompts = g.latent(), g.prompts(clip)
    with g.group("4 Sample", 2, 100):
        guider = g.add("guider", "CFGGuider", model=model, **prompts, cfg=12.0)
        noise = g.add("noise", "RandomNoise", noise_seed=1)
        method = g.add("method", "VC2DDIM", eta=1.0)
        sigmas = g.add("schedule", "VC2Schedule", model=model, steps=50, denoise=1.0)
    with g.group("4 Sample", 3, 100):
        parts = {"noise": noise, "guider": guider, "sampler": method, "sigmas": sigmas, "latent_image": latent}
        images = g.add("decode", "VAEDecode", samples=("sampler", 0), vae=vae)
        g.add("sampler", "SamplerCustomAdvanced", **parts)
    g.save(images, 4, 100)
    return g


def guidance() -> Graph:
    g = Graph(
        f"""## Steadier frames, less contrast

**Temporal Guidance** pushes the frames to agree with one another; each step takes half as long again.

**Guidance Rescale** takes back the contrast that a high guidance adds. Use them together or one at a time (select, \
then Ctrl-B).

{NEEDS_MODEL}""",
    )
    model, clip, vae = g.checkpoint()
    steady = g.patch("Guidance", "temporal", "VC2TemporalGuidance", model=model, scale=1.0)
    softer = g.patch("Guidance", "rescale", "VC2GuidanceRescale", model=steady, multiplier=0.7)
    g.saved(g.sampled(softer, clip, g.latent()), vae)
    return g


def with_lora() -> Graph:
    g = Graph(
        f"""## LoRA

Every layout made for this model loads here: [VADER](https://huggingface.co/zheyangqin/VADER_VideoCrafter_PickScore) \
(the one named, trained for pictures that people prefer), other PEFT files, kohya, and your own from \
**python -m vc2.training**. Put it in **models/loras**.

{MODEL}""",
    )
    model, clip, vae = g.checkpoint()
    patched = g.patch("LoRA", "lora", "VC2LoadLoRA", model=model, lora_name=VADER, strength=1.0)
    g.saved(g.sampled(patched, clip, g.latent()), vae)
    return g


def turbo() -> Graph:
    g = Graph(
        f"""## Four steps

T2V-Turbo's LoRA makes a model of **four steps**, one pass each and without a negative prompt: about 25 times as fast. \
8 steps are better still.

{MODEL}

**LoRA**: [{TURBO} of T2V-Turbo](https://huggingface.co/jiachenli-ucsb/T2V-Turbo-VC2) in **models/loras**.

{WITHOUT} The miniature has a four-step LoRA of its own, which the button puts in place, with 8 steps; \
**python -m vc2.training** made it.

The conditioning tells the model the **fps 16** that T2V-Turbo's was trained with.""",
        note_at=(1, 2, None),
    )
    model, clip, vae = g.checkpoint()
    latent = g.latent()
    fast = g.patch("LoRA", "lora", "VC2LoadLoRA", model=model, lora_name=TURBO, strength=1.0)
    prompt = g.prompt(clip)
    with g.group("3 Prompt", 2, 190 + 222):
        g.add("conditions", "VC2VideoConditioning", positive=prompt, negative=prompt, fps=16.0, frames_per_clip=0)
    settings = {"seed": 1, "steps": 4, "guidance": 7.5, "original_steps": 50, "motion_guidance": 0.05}
    with g.group("4 Sample", 3, 0):
        images = g.add("decode", "VAEDecode", samples=("sampler", 0), vae=vae)
        g.add("sampler", "VC2TurboSampler", model=fast, positive=("conditions", 0), latent=latent, **settings)
    g.save(images, 4, 0)
    return g


def long_video() -> Graph:
    g = Graph(
        f"""## Long video

64 frames. **FreeNoise** attends to windows of 16 frames and repeats its noise, so that the subject stays. For less \
memory choose the mode **overlap**, or the template **VideoCrafter2_Long_Video_FIFO**. With **eta 0** the windows \
agree best.

{NEEDS_MODEL}""",
    )
    model, clip, vae = g.checkpoint()
    windows = g.patch("Long video", "windows", "VC2ContextWindows", model=model, **WINDOWS)
    g.saved(g.sampled(windows, clip, g.latent(64), eta=0.0), vae)
    return g


def fifo() -> Graph:
    g = Graph(f"""## Long video, frame by frame

64 frames from a queue in which noise rises from frame to frame: sampling takes no more memory for 1000 frames than \
for 64. It is slower than **VideoCrafter2_Long_Video**, and the subject may drift.

{NEEDS_MODEL}""")
    model, clip, vae = g.checkpoint()
    latent, prompts = g.latent(64), g.prompts(clip)
    settings = {"seed": 1, "guidance": 12.0, "partitions": 4, "window": 16, "eta": 1.0}
    g.saved(g.sample("VC2FIFOSampler", model=model, latent=latent, **prompts, **settings), vae)
    return g


def prompt_travel() -> Graph:
    g = Graph(
        f"""## Prompt travel

Keyframes, one a line: **frame: prompt**. Between them the prompts blend. **frames** must be the same here and in \
*Empty VideoCrafter Latent*; beyond 16 the windows take over.

{NEEDS_MODEL}""",
    )
    model, clip, vae = g.checkpoint()
    windows = g.patch("Long video", "windows", "VC2ContextWindows", model=model, **WINDOWS)
    spring = "0: a mountain lake in spring, blossoms, morning light"
    winter = "31: a mountain lake in winter, snow, evening light"
    latent = g.latent(32)
    with g.group("3 Prompt", 1):
        travel = g.add(
            "travel", "VC2PromptTravel", clip=clip, prompts=f"{spring}\n{winter}", frames=32, between="blend"
        )
    prompts = {"positive": travel, "negative": g.negative(clip)}
    settings = OFFICIAL_SETTINGS | {"eta": 0.0}
    g.saved(g.sample("VC2Sampler", model=windows, latent=latent, **prompts, **settings), vae)
    return g


def video_to_video() -> Graph:
    g = Graph(
        f"""## Video to video

The motion of a clip stays, its subject changes. **denoise** says how much: 0.6 stays close, 0.9 is nearly new.

Speed and sound are the source's.

{NEEDS_MODEL}""",
        note_at=(0, 0, 262),
    )
    model, clip, vae = g.checkpoint()
    prompt = "a red hot air balloon rising over green hills, blue sky, aerial view, highly detailed"
    g.unfolded.add("sampler")
    g.saved(g.sampled(model, clip, ("encode", 0), prompt, denoise=0.75), vae, fps=("frames", 2), audio=("frames", 1))
    row, source = 664, "2 Source clip"
    with g.group(source, 0, row):
        video = g.add("video", "LoadVideo", file=CLIP)
    with g.group(source, 1, row):
        g.add("frames", "GetVideoComponents", video=video)
    with g.group(source, 2, row):
        first = g.add("trim", "ImageFromBatch", "First 16 frames", image=("frames", 0), batch_index=0, length=16)
    with g.group(source, 3, row):
        size = {"upscale_method": "lanczos", "width": 512, "height": 320, "crop": "center"}
        scaled = g.add("scale", "ImageScale", image=first, **size)
    with g.group(source, 4, row):
        g.add("encode", "VAEEncode", pixels=scaled, vae=vae)
    return g


def strategies() -> Graph:
    g = Graph(
        f"""## Training strategies side by side

The paper's comparison: the base model, its spatial layers adapted by LoRA, and the same layers finetuned directly, \
with one prompt and one seed. The weights are your own, from **python -m vc2.training**.

- **runs/F-base/model.safetensors** goes to **models/checkpoints/{TRAINED_BASE}**
- **runs/F-Spa-LORA/lora.safetensors** goes to **models/loras/{TRAINED_LORA}**
- **runs/F-Spa-DIR/model.safetensors** goes to **models/diffusion_models/{TRAINED_DIRECT}**""",
        note_at=(0, 0, None),
    )
    model, clip, vae = g.checkpoint(TRAINED_BASE)
    noise = g.latent()
    spatial = g.patch("Trained weights", "lora", "VC2LoadLoRA", model=model, lora_name=TRAINED_LORA, strength=1.0)
    with g.group("Trained weights", 1):
        direct = g.add("unet", "VC2LoadDiffusionModel", unet_name=TRAINED_DIRECT, weight_dtype="default")
    models = {"F-base": model, "F-Spa-LORA": spatial, "F-Spa-DIR": direct}
    grid = _side_by_side(g, models, vae, latent=noise, **g.prompts(clip), **OFFICIAL_SETTINGS)
    g.save(grid, 4, filename_prefix="video/vc2-strategies")
    return g


def _side_by_side(g: Graph, models: dict[str, Any], vae: Any, **sampled: Any) -> Any:
    """A clip of each model, by name, all sampled alike, in a row."""
    clips: dict[str, Any] = {}
    for i, (name, model) in enumerate(models.items()):
        with g.group("4 Sample", 2, 140 if i == 0 else None):
            z = g.add(f"sampler{i}", "VC2Sampler", name, model=model, **sampled)
        with g.group("4 Sample", 3, 140 + 340 * i):
            clips[f"clip_{i + 1}"] = g.add(f"decode{i}", "VAEDecode", samples=z, vae=vae)
    with g.group("5 Save", 4, 140):
        return g.add("compare", "VC2CompareVideos", **clips, labels="\n".join(models), columns=len(models))


def strategy_comparison() -> Graph:
    g = Graph(
        """## The paper in miniature: what each strategy teaches

F-base learned from poor videos: watermarked, blurred, of few kinds. Then it learned from clean pictures alone, in \
three ways: **F-Spa-LORA** and **F-Temp-LORA** adapt its spatial or its temporal attention, **F-Spa-DIR**, which \
became VideoCrafter2, trains its spatial layers. One prompt, one seed; the models come with this pack, made small.

Whether the paper holds, over eight trainings: **docs/miniature/README.md**.""",
        note_at=(0, 0, None),
    )
    _, clip, vae = g.checkpoint(TINY)
    noise = g.latent(8, (64, 64))
    weights: dict[str, Any] = {}
    with g.group("Trained weights", 1):
        # In 8 bits the file is small; a LoRA is added to halves.
        base = weights["F-base"] = g.add("base", "VC2LoadDiffusionModel", unet_name=PAPER_BASE, weight_dtype="fp16")
    for name, file in PAPER_MODELS.items():
        weights[name] = g.patch("Trained weights", name, "VC2LoadLoRA", model=base, lora_name=file, strength=1.0)
    prompts = g.prompts(clip, "a red circle moving right")
    with g.group("3 Prompt", 1):
        g.add("conditions", "VC2VideoConditioning", **prompts, fps=8.0, frames_per_clip=0)
    conditions = {"positive": ("conditions", 0), "negative": ("conditions", 1)}
    settings = {**OFFICIAL_SETTINGS, "steps": 25, "guidance": 4.0}
    grid = _side_by_side(g, weights, vae, latent=noise, **conditions, **settings)
    g.save(grid, 4, filename_prefix="video/vc2-paper", fps=8.0)
    return g


# By the file's name, which is all that Templates show and search. Digits put first what a newcomer opens first. What
# needs files that cannot be downloaded stands in a folder that Templates leave out.
WORKFLOWS: dict[str, Callable[[], Graph]] = {
    QUICKSTART: quickstart,
    "VideoCrafter2_2_Text_to_Video": text_to_video,
    "VideoCrafter2_High_Resolution": high_resolution,
    "VideoCrafter2_Stock_KSampler": stock_ksampler,
    "VideoCrafter2_Custom_Sampler": custom_sampler,
    "VideoCrafter2_Guidance": guidance,
    "VideoCrafter2_FreeInit": free_init,
    "VideoCrafter2_LoRA": with_lora,
    "VideoCrafter2_Turbo_4_Steps": turbo,
    "VideoCrafter2_Long_Video": long_video,
    "VideoCrafter2_Long_Video_FIFO": fifo,
    "VideoCrafter2_Prompt_Travel": prompt_travel,
    "VideoCrafter2_Video_to_Video": video_to_video,
    "training/VideoCrafter2_Training_Strategies": strategies,
}
if (WEIGHTS / "diffusion_models" / PAPER_BASE).is_file():  # made by `python -m scripts.paper_models`
    WORKFLOWS["VideoCrafter2_Strategy_Comparison"] = strategy_comparison
