"""The graphs in workflows/, described by their nodes, values and links; `layout` makes of one what a browser saves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .comfyui import ROOT

FOLDER = ROOT / "workflows"
TINY, OFFICIAL = "vc2-tiny.safetensors", "model.ckpt"
# Where the front end offers to fetch weights that are missing: folder of `models/`, address.
DOWNLOADS = {
    OFFICIAL: ("checkpoints", "https://huggingface.co/VideoCrafter/VideoCrafter2/resolve/main/model.ckpt"),
    "unet_lora.pt": ("loras", "https://huggingface.co/jiachenli-ucsb/T2V-Turbo-VC2/resolve/main/unet_lora.pt"),
}
PANDA = "a panda playing the guitar by a campfire in a bamboo forest, cinematic lighting, highly detailed"
OFFICIAL_SETTINGS: dict[str, Any] = {"seed": 1, "steps": 50, "guidance": 12.0, "eta": 1.0, "denoise": 1.0}
WINDOWS: dict[str, Any] = {"mode": "FreeNoise", "length": 16, "overlap": 12}
GET_OFFICIAL = f"""**Weights**: [`{OFFICIAL}` of VideoCrafter2](https://huggingface.co/VideoCrafter/VideoCrafter2) \
(5.5 GB) in `models/checkpoints/`.
To try the graph without them choose `{TINY}`, 64 x 64, fps 16, 25 steps, guidance 4, and a sentence such as \
*a red circle moving right*."""

Link = tuple[str, int]


class Node(NamedTuple):
    """A node of a graph. An input that is a pair (node, output slot) is a link, anything else a widget's value."""

    kind: str
    title: str | None
    inputs: dict[str, Any]


class Graph:
    """Nodes by name, and the note that explains them."""

    def __init__(self, note: str) -> None:
        self.note = note
        self.nodes: dict[str, Node] = {}

    def add(self, name: str, kind: str, title: str | None = None, /, **inputs: Any) -> Link:
        self.nodes[name] = Node(kind, title, inputs)
        return (name, 0)

    def checkpoint(self, name: str = OFFICIAL) -> tuple[Link, Link, Link]:
        """Its MODEL, CLIP and VAE."""
        self.add("load", "VC2LoadCheckpoint", ckpt_name=name, weight_dtype="default")
        return ("load", 0), ("load", 1), ("load", 2)

    def latent(self, frames: int = 16, size: tuple[int, int] = (512, 320)) -> Link:
        return self.add("latent", "VC2EmptyLatentVideo", width=size[0], height=size[1], frames=frames, clips=1)

    def prompt(self, clip: Link, text: str = PANDA) -> Link:
        return self.add("prompt", "CLIPTextEncode", "Prompt", clip=clip, text=text)

    def negative(self, clip: Link) -> Link:
        return self.add("negative", "CLIPTextEncode", "Negative prompt", clip=clip, text="")

    def conditions(self, positive: Link, negative: Link, fps: float = 28) -> dict[str, Link]:
        """A sampler's two prompts, with the frame rate in them."""
        links = {"positive": positive, "negative": negative}
        self.add("conditions", "VC2VideoConditioning", **links, fps=fps, frames_per_clip=0)
        return {"positive": ("conditions", 0), "negative": ("conditions", 1)}

    def sampled(
        self, model: Link, clip: Link, latent: Link, prompt: str = PANDA, fps: float = 28, **changes: Any
    ) -> Link:
        """Prompts, conditions and our sampler, with the official settings but for `changes`."""
        conditions = self.conditions(self.prompt(clip, prompt), self.negative(clip), fps)
        settings = OFFICIAL_SETTINGS | changes
        return self.add("sampler", "VC2Sampler", model=model, latent=latent, **conditions, **settings)

    def saved(self, latent: Link, vae: Link) -> None:
        images = self.add("decode", "VAEDecode", samples=latent, vae=vae)
        self.save(images, "video/vc2")

    def save(self, images: Link, prefix: str) -> None:
        self.add("save", "VC2SaveVideo", images=images, fps=10.0, filename_prefix=prefix, format="mp4")


def quickstart() -> Graph:
    g = Graph("""## Quickstart

A prompt becomes a video with the bundled miniature, on a CPU in seconds. It knows one kind of sentence:

**a** {red, yellow, green, blue, purple, white} {circle, square, triangle, cross} **moving** {left, right, up, down}

It has VideoCrafter2's architecture, so the same graph runs the real model: choose its checkpoint in *Load \
VideoCrafter Checkpoint*, then 512 x 320, fps 28,
50 steps, guidance 12.""")
    model, clip, vae = g.checkpoint(TINY)
    small = g.latent(16, (64, 64))
    g.saved(g.sampled(model, clip, small, "a red circle moving right", fps=16, steps=25, guidance=4.0), vae)
    return g


def text_to_video() -> Graph:
    g = Graph(f"""## Text to video

The official sampler with the official settings: 16 frames of 512 x 320, 50 steps, guidance 12, eta 1.

{GET_OFFICIAL}""")
    model, clip, vae = g.checkpoint()
    g.saved(g.sampled(model, clip, g.latent()), vae)
    return g


def stock_ksampler() -> Graph:
    g = Graph(f"""## The stock KSampler

VideoCrafter2 is an ordinary MODEL: every stock sampler and scheduler is right for it. Fewer steps do with a good one: \
here `dpmpp_2m`, 25 steps, and no
negative prompt beyond the empty one.

{GET_OFFICIAL}""")
    model, clip, vae = g.checkpoint()
    prompts = g.prompt(clip), g.negative(clip)
    latent, conditions = g.latent(), g.conditions(*prompts)
    settings = {"seed": 1, "steps": 25, "cfg": 12.0, "sampler_name": "dpmpp_2m", "scheduler": "normal", "denoise": 1.0}
    g.saved(g.add("sampler", "KSampler", model=model, latent_image=latent, **conditions, **settings), vae)
    return g


def with_lora() -> Graph:
    g = Graph(f"""## LoRA

*Load VideoCrafter LoRA* reads every layout made for this model: T2V-Turbo,
[VADER](https://huggingface.co/zheyangqin/VADER_VideoCrafter_PickScore) and other PEFT files, kohya, and what
`python -m vc2.training` writes. Files with `diffusion_model.` or kohya names go through the stock LoRA loaders as \
well. Put yours in
`models/loras/`.

{GET_OFFICIAL}""")
    model, clip, vae = g.checkpoint()
    patched = g.add("lora", "VC2LoadLoRA", model=model, lora_name="my_lora.safetensors", strength=1.0)
    g.saved(g.sampled(patched, clip, g.latent()), vae)
    return g


def turbo() -> Graph:
    g = Graph(f"""## Turbo: four steps

[T2V-Turbo](https://huggingface.co/jiachenli-ucsb/T2V-Turbo-VC2)'s `unet_lora.pt` in `models/loras/` makes a four-step \
model: one pass a step, no
negative prompt, guidance as a condition. fps 16 is what it was made with. A v2 UNet goes through *Load VideoCrafter \
Diffusion Model* instead, with fps 8.

{GET_OFFICIAL}""")
    model, clip, vae = g.checkpoint()
    fast = g.add("lora", "VC2LoadLoRA", model=model, lora_name="unet_lora.pt", strength=1.0)
    prompt = g.prompt(clip)
    positive = g.conditions(prompt, prompt, 16)["positive"]
    settings = {"seed": 1, "steps": 4, "guidance": 7.5, "original_steps": 50, "motion_guidance": 0.05}
    g.saved(g.add("sampler", "VC2TurboSampler", model=fast, positive=positive, latent=g.latent(), **settings), vae)
    return g


def long_video() -> Graph:
    g = Graph(f"""## Long video

64 frames with FreeNoise: temporal attention in windows of 16, and noise that repeats, so that the subject stays. For \
less memory choose *overlap*, or the FIFO
sampler, whose memory does not grow with the clip at all. eta 0 keeps windows closest to one another.

{GET_OFFICIAL}""")
    model, clip, vae = g.checkpoint()
    windows = g.add("windows", "VC2ContextWindows", model=model, **WINDOWS)
    g.saved(g.sampled(windows, clip, g.latent(64), eta=0.0), vae)
    return g


def prompt_travel() -> Graph:
    g = Graph(f"""## Prompt travel

Every frame has its own prompt: write keyframes as `frame: prompt`, one a line. Between them the prompts blend. \
*frames* here and in the empty latent
are the same number; with more than 16 the windows take over.

{GET_OFFICIAL}""")
    model, clip, vae = g.checkpoint()
    spring = "0: a mountain lake in spring, blossoms, morning light"
    winter = "31: a mountain lake in winter, snow, evening light"
    travel = g.add("travel", "VC2PromptTravel", clip=clip, prompts=f"{spring}\n{winter}", frames=32, between="blend")
    negative = g.negative(clip)
    windows = g.add("windows", "VC2ContextWindows", model=model, **WINDOWS)
    latent, conditions = g.latent(32), g.conditions(travel, negative)
    settings = OFFICIAL_SETTINGS | {"eta": 0.0}
    g.saved(g.add("sampler", "VC2Sampler", model=windows, latent=latent, **conditions, **settings), vae)
    return g


def video_to_video() -> Graph:
    g = Graph(f"""## Video to video

The frames of a clip are encoded, noised part of the way (*denoise*) and denoised with a new prompt: what moves how \
stays, what it is changes. Upload a
clip of 16 frames in *Load Video*; the frames are scaled to 512 x 320.

{GET_OFFICIAL}""")
    model, clip, vae = g.checkpoint()
    video = g.add("video", "LoadVideo", file="clip.mp4")
    g.add("frames", "GetVideoComponents", video=video)
    size = {"upscale_method": "lanczos", "width": 512, "height": 320, "crop": "center"}
    scaled = g.add("scale", "ImageScale", image=("frames", 0), **size)
    encoded = g.add("encode", "VAEEncode", pixels=scaled, vae=vae)
    g.saved(g.sampled(model, clip, encoded, denoise=0.75), vae)
    return g


def strategies() -> Graph:
    g = Graph(f"""## Training strategies side by side

The paper's comparison in one graph: the base model, its spatial layers adapted by LoRA, and the same layers finetuned \
directly, on one prompt and one seed. The
files are what `python -m vc2.training export` writes: a LoRA in `models/loras/`, a UNet in \
`models/diffusion_models/`.

{GET_OFFICIAL}""")
    model, clip, vae = g.checkpoint()
    noise = g.latent()
    lora, unet = "f-spa-lora.safetensors", "f-spa-dir.safetensors"
    spatial = g.add("lora", "VC2LoadLoRA", "F-Spa-LORA", model=model, lora_name=lora, strength=1.0)
    direct = g.add("unet", "VC2LoadDiffusionModel", "F-Spa-DIR", unet_name=unet, weight_dtype="default")
    conditions = g.conditions(g.prompt(clip), g.negative(clip))
    clips: dict[str, Any] = {}
    for i, (name, weights) in enumerate((("F-base", model), ("F-Spa-LORA", spatial), ("F-Spa-DIR", direct)), 1):
        z = g.add(f"sampler{i}", "VC2Sampler", name, model=weights, latent=noise, **conditions, **OFFICIAL_SETTINGS)
        clips[f"clip_{i}"] = g.add(f"decode{i}", "VAEDecode", samples=z, vae=vae)
    g.save(
        g.add("compare", "VC2CompareVideos", **clips, labels="F-base\nF-Spa-LORA\nF-Spa-DIR", columns=3),
        "video/vc2-strategies",
    )
    return g


WORKFLOWS: dict[str, Callable[[], Graph]] = {
    "quickstart": quickstart,
    "text_to_video": text_to_video,
    "stock_ksampler": stock_ksampler,
    "lora": with_lora,
    "turbo_4_steps": turbo,
    "long_video": long_video,
    "prompt_travel": prompt_travel,
    "video_to_video": video_to_video,
    "strategy_comparison": strategies,
}
