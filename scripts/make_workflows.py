"""Build workflows/*.json, the graphs that people drag onto the canvas, and a thumbnail of what each really makes: `make
workflows`.

A graph is described by its nodes, their values and links; the server's `/object_info` knows the rest (slots, the order
of widgets, defaults). The thumbnail is made by running the very graph, with the bundled miniature wherever it names
weights that are not here (at 64x64, with the sentences the miniature knows).
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from vc2.files import lora
from vc2.files.checkpoint import load
from vc2.files.video import read_video

from .client import Client
from .comfyui import ROOT, Server
from .demo import make_video
from .workflow import default_value, input_specs, set_widget, typed_widgets, ui_to_api, widget_slots

FOLDER = ROOT / "workflows"
TINY, OFFICIAL = "vc2-tiny.safetensors", "model.ckpt"
VERSION = "0.2.0"
DOWNLOADS = {
    OFFICIAL: ("checkpoints", "https://huggingface.co/VideoCrafter/VideoCrafter2/resolve/main/model.ckpt"),
    "unet_lora.pt": ("loras", "https://huggingface.co/jiachenli-ucsb/T2V-Turbo-VC2/resolve/main/unet_lora.pt"),
}
PANDA = "a panda playing the guitar by a campfire in a bamboo forest, cinematic lighting, highly detailed"
Link = tuple[str, int]


class Graph:
    """Nodes by name. An input that is a pair (name, slot) is a link, anything else a widget's value."""

    def __init__(self, note: str) -> None:
        self.note = note
        self.nodes: dict[str, tuple[str, str | None, dict[str, Any]]] = {}

    def add(self, name: str, kind: str, title: str | None = None, **inputs: Any) -> Link:
        self.nodes[name] = (kind, title, inputs)
        return (name, 0)

    def sampled(
        self, model: Link, clip: Link, prompt: str, latent: Link, *, fps: float, name: str = "", **settings: Any
    ) -> Link:
        """Prompt, conditions and our sampler; names of the nodes end in `name`."""
        positive = self.add(f"prompt{name}", "CLIPTextEncode", "Prompt", clip=clip, text=prompt)
        negative = self.add(f"negative{name}", "CLIPTextEncode", "Negative prompt", clip=clip, text="")
        conditions = self.conditions(positive, negative, fps, name)
        return self.add(f"sampler{name}", "VC2Sampler", model=model, latent=latent, **conditions, **settings)

    def conditions(self, positive: Link, negative: Link, fps: float, name: str = "") -> dict[str, Any]:
        self.add(
            f"conditions{name}",
            "VC2VideoConditioning",
            positive=positive,
            negative=negative,
            fps=fps,
            frames_per_clip=0,
        )
        return {"positive": (f"conditions{name}", 0), "negative": (f"conditions{name}", 1)}

    def saved(self, latent: Link, vae: Link, fps: float = 10.0, prefix: str = "video/vc2") -> None:
        images = self.add("decode", "VAEDecode", samples=latent, vae=vae)
        self.add("save", "VC2SaveVideo", images=images, fps=fps, filename_prefix=prefix, format="mp4")


def checkpoint(graph: Graph, name: str = OFFICIAL) -> tuple[Link, Link, Link]:
    graph.add("load", "VC2LoadCheckpoint", ckpt_name=name, weight_dtype="default")
    return ("load", 0), ("load", 1), ("load", 2)


def latent(graph: Graph, frames: int = 16, size: tuple[int, int] = (512, 320)) -> Link:
    return graph.add("latent", "VC2EmptyLatentVideo", width=size[0], height=size[1], frames=frames, clips=1)


GET_OFFICIAL = f"""**Weights**: [`{OFFICIAL}` of VideoCrafter2](https://huggingface.co/VideoCrafter/VideoCrafter2) (5.5 GB) in `models/checkpoints/`.
To try the graph without them choose `{TINY}`, 64 x 64, fps 16, 25 steps, guidance 4, and a sentence such as *a red circle moving right*."""
OFFICIAL_SETTINGS: dict[str, Any] = {"seed": 1, "steps": 50, "guidance": 12.0, "eta": 1.0, "denoise": 1.0}


def quickstart() -> Graph:
    g = Graph("""## Quickstart

A prompt becomes a video with the bundled miniature, on a CPU in seconds. It knows one kind of sentence:

**a** {red, yellow, green, blue, purple, white} {circle, square, triangle, cross} **moving** {left, right, up, down}

It has VideoCrafter2's architecture, so the same graph runs the real model: choose its checkpoint in *Load VideoCrafter Checkpoint*, then 512 x 320, fps 28,
50 steps, guidance 12.""")
    model, clip, vae = checkpoint(g, TINY)
    z = g.sampled(
        model,
        clip,
        "a red circle moving right",
        latent(g, 16, (64, 64)),
        fps=16,
        seed=1,
        steps=25,
        guidance=4.0,
        eta=1.0,
        denoise=1.0,
    )
    g.saved(z, vae)
    return g


def text_to_video() -> Graph:
    g = Graph(
        "## Text to video\n\nThe official sampler with the official settings: 16 frames of 512 x 320, 50 steps,"
        f" guidance 12, eta 1.\n\n{GET_OFFICIAL}"
    )
    model, clip, vae = checkpoint(g)
    g.saved(g.sampled(model, clip, PANDA, latent(g), fps=28, **OFFICIAL_SETTINGS), vae)
    return g


def stock_ksampler() -> Graph:
    g = Graph(f"""## The stock KSampler

VideoCrafter2 is an ordinary MODEL: every stock sampler and scheduler is right for it. Fewer steps do with a good one: here `dpmpp_2m`, 25 steps, and no
negative prompt beyond the empty one.

{GET_OFFICIAL}""")
    model, clip, vae = checkpoint(g)
    positive = g.add("prompt", "CLIPTextEncode", "Prompt", clip=clip, text=PANDA)
    negative = g.add("negative", "CLIPTextEncode", "Negative prompt", clip=clip, text="")
    sampler: dict[str, Any] = {
        "seed": 1,
        "steps": 25,
        "cfg": 12.0,
        "sampler_name": "dpmpp_2m",
        "scheduler": "normal",
        "denoise": 1.0,
    }
    z = g.add(
        "sampler", "KSampler", model=model, latent_image=latent(g), **g.conditions(positive, negative, 28), **sampler
    )
    g.saved(z, vae)
    return g


def with_lora() -> Graph:
    g = Graph(f"""## LoRA

*Load VideoCrafter LoRA* reads every layout made for this model: T2V-Turbo,
[VADER](https://huggingface.co/zheyangqin/VADER_VideoCrafter_PickScore) and other PEFT files, kohya, and what
`python -m vc2.training` writes. Files with `diffusion_model.` or kohya names go through the stock LoRA loaders as well. Put yours in
`models/loras/`.

{GET_OFFICIAL}""")
    model, clip, vae = checkpoint(g)
    patched = g.add("lora", "VC2LoadLoRA", model=model, lora_name="my_lora.safetensors", strength=1.0)
    g.saved(g.sampled(patched, clip, PANDA, latent(g), fps=28, **OFFICIAL_SETTINGS), vae)
    return g


def turbo() -> Graph:
    g = Graph(f"""## Turbo: four steps

[T2V-Turbo](https://huggingface.co/jiachenli-ucsb/T2V-Turbo-VC2)'s `unet_lora.pt` in `models/loras/` makes a four-step model: one pass a step, no
negative prompt, guidance as a condition. fps 16 is what it was made with. A v2 UNet goes through *Load VideoCrafter Diffusion Model* instead, with fps 8.

{GET_OFFICIAL}""")
    model, clip, vae = checkpoint(g)
    fast = g.add("lora", "VC2LoadLoRA", model=model, lora_name="unet_lora.pt", strength=1.0)
    positive = g.add("prompt", "CLIPTextEncode", "Prompt", clip=clip, text=PANDA)
    conditions = g.conditions(positive, positive, 16)
    z = g.add(
        "sampler", "VC2TurboSampler", model=fast, positive=conditions["positive"], latent=latent(g), seed=1, steps=4, guidance=7.5, original_steps=50,
        motion_guidance=0.05,
    )  # fmt: skip
    g.saved(z, vae)
    return g


def long_video() -> Graph:
    g = Graph(f"""## Long video

64 frames with FreeNoise: temporal attention in windows of 16, and noise that repeats, so that the subject stays. For less memory choose *overlap*, or the FIFO
sampler, whose memory does not grow with the clip at all. eta 0 keeps windows closest to one another.

{GET_OFFICIAL}""")
    model, clip, vae = checkpoint(g)
    windows = g.add("windows", "VC2ContextWindows", model=model, mode="FreeNoise", length=16, overlap=12)
    g.saved(g.sampled(windows, clip, PANDA, latent(g, 64), fps=28, **OFFICIAL_SETTINGS | {"eta": 0.0}), vae)
    return g


def prompt_travel() -> Graph:
    g = Graph(f"""## Prompt travel

Every frame has its own prompt: write keyframes as `frame: prompt`, one a line. Between them the prompts blend. *frames* here and in the empty latent
are the same number; with more than 16 the windows take over.

{GET_OFFICIAL}""")
    model, clip, vae = checkpoint(g)
    prompts = (
        "0: a mountain lake in spring, blossoms, morning light\n31: a mountain lake in winter, snow, evening light"
    )
    positive = g.add("travel", "VC2PromptTravel", clip=clip, prompts=prompts, frames=32, between="blend")
    negative = g.add("negative", "CLIPTextEncode", "Negative prompt", clip=clip, text="")
    windows = g.add("windows", "VC2ContextWindows", model=model, mode="FreeNoise", length=16, overlap=12)
    z = g.add(
        "sampler",
        "VC2Sampler",
        model=windows,
        latent=latent(g, 32),
        **g.conditions(positive, negative, 28),
        **OFFICIAL_SETTINGS | {"eta": 0.0},
    )
    g.saved(z, vae)
    return g


def video_to_video() -> Graph:
    g = Graph(f"""## Video to video

The frames of a clip are encoded, noised part of the way (*denoise*) and denoised with a new prompt: what moves how stays, what it is changes. Upload a
clip of 16 frames in *Load Video*; the frames are scaled to 512 x 320.

{GET_OFFICIAL}""")
    model, clip, vae = checkpoint(g)
    video = g.add("video", "LoadVideo", file="clip.mp4")
    g.add("frames", "GetVideoComponents", video=video)
    scaled = g.add(
        "scale", "ImageScale", image=("frames", 0), upscale_method="lanczos", width=512, height=320, crop="center"
    )
    encoded = g.add("encode", "VAEEncode", pixels=scaled, vae=vae)
    g.saved(g.sampled(model, clip, PANDA, encoded, fps=28, **OFFICIAL_SETTINGS | {"denoise": 0.75}), vae)
    return g


def strategies() -> Graph:
    g = Graph(f"""## Training strategies side by side

The paper's comparison in one graph: the base model, its spatial layers adapted by LoRA, and the same layers finetuned directly, on one prompt and one seed. The
files are what `python -m vc2.training export` writes: a LoRA in `models/loras/`, a UNet in `models/diffusion_models/`.

{GET_OFFICIAL}""")
    model, clip, vae = checkpoint(g)
    noise = latent(g)
    spatial = g.add("lora", "VC2LoadLoRA", "F-Spa-LORA", model=model, lora_name="f-spa-lora.safetensors", strength=1.0)
    direct = g.add(
        "unet", "VC2LoadDiffusionModel", "F-Spa-DIR", unet_name="f-spa-dir.safetensors", weight_dtype="default"
    )
    positive = g.add("prompt", "CLIPTextEncode", "Prompt", clip=clip, text=PANDA)
    negative = g.add("negative", "CLIPTextEncode", "Negative prompt", clip=clip, text="")
    conditions = g.conditions(positive, negative, 28)
    clips: dict[str, Any] = {}
    for i, (name, weights) in enumerate((("F-base", model), ("F-Spa-LORA", spatial), ("F-Spa-DIR", direct)), 1):
        z = g.add(f"sampler{i}", "VC2Sampler", name, model=weights, latent=noise, **conditions, **OFFICIAL_SETTINGS)
        clips[f"clip_{i}"] = g.add(f"decode{i}", "VAEDecode", samples=z, vae=vae)
    grid = g.add("compare", "VC2CompareVideos", **clips, labels="F-base\nF-Spa-LORA\nF-Spa-DIR", columns=3)
    g.add("save", "VC2SaveVideo", images=grid, fps=10.0, filename_prefix="video/vc2-strategies", format="mp4")
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


# --- from a description to what the browser saves -----------------------------------------------------------------------------------------


def to_ui(name: str, graph: Graph, object_info: dict[str, Any]) -> dict[str, Any]:
    """The workflow as the browser would save it (schema version 0.4), laid out from left to right by how much each node
    waits for.
    """
    ids = {key: i for i, key in enumerate(graph.nodes, 1)}
    nodes: list[dict[str, Any]] = []
    links: list[list[Any]] = []
    places = _layout(graph, object_info)
    for key, (kind, title, given) in graph.nodes.items():
        info, values = object_info[kind], dict(given)
        specs = input_specs(info)
        unknown = set(values) - set(specs)
        if unknown:
            raise ValueError(f"{name}: {kind} has no input {', '.join(unknown)}")
        inputs: list[dict[str, Any]] = []
        for slot, type_ in _sockets(info):
            link = None
            if isinstance(values.get(slot), tuple):
                source, output = values.pop(slot)
                link = len(links) + 1
                links.append([link, ids[source], output, ids[key], len(inputs), type_])
            inputs.append({"name": slot, "type": type_, "link": link})
        widgets = [
            "fixed" if widget is None else values.get(widget, default_value(*specs[widget]))
            for widget in widget_slots(info)
        ]  # None: the browser's own control behind a seed
        ours = kind.startswith("VC2")
        properties: dict[str, Any] = {
            "Node name for S&R": kind,
            "cnr_id": "comfyui-videocrafter2" if ours else "comfy-core",
            "ver": VERSION if ours else "0.3.75",
        }
        if models := [
            {"name": v, "url": DOWNLOADS[v][1], "directory": DOWNLOADS[v][0]}
            for v in values.values()
            if isinstance(v, str) and v in DOWNLOADS
        ]:
            properties["models"] = models
        node = {
            "id": ids[key], "type": kind, **places[key], "flags": {}, "order": ids[key] - 1, "mode": 0, "inputs": inputs,
            "outputs": [{"name": n, "type": t, "links": []} for n, t in zip(info["output_name"], info["output"], strict=True)],
            "properties": properties, "widgets_values": widgets,
        }  # fmt: skip
        if title:
            node["title"] = title
        nodes.append(node)
    by_id = {node["id"]: node for node in nodes}
    for link, source, output, *_ in links:
        by_id[source]["outputs"][output]["links"].append(link)
    note = {
        "id": len(ids) + 1, "type": "MarkdownNote", "title": "Read me", "pos": [0, -340], "size": [720, 250], "flags": {}, "order": len(ids), "mode": 0,
        "inputs": [], "outputs": [], "properties": {}, "widgets_values": [graph.note],
    }  # fmt: skip
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"comfyui-videocrafter2/{name}")), "revision": 0, "last_node_id": len(ids) + 1, "last_link_id": len(links),
        "nodes": [*nodes, note], "links": links, "groups": [], "config": {}, "extra": {}, "version": 0.4,
    }  # fmt: skip


def _sockets(info: dict[str, Any]) -> list[tuple[str, str]]:
    """Inputs that take a link and have no widget."""
    widgets = set(widget_slots(info))
    return [(name, kind) for name, (kind, _) in input_specs(info).items() if name not in widgets]


def _layout(graph: Graph, object_info: dict[str, Any]) -> dict[str, dict[str, list[int]]]:
    depth: dict[str, int] = {}

    def of(key: str) -> int:
        if key not in depth:
            depth[key] = 1 + max((of(v[0]) for v in graph.nodes[key][2].values() if isinstance(v, tuple)), default=-1)
        return depth[key]

    bottoms: dict[int, int] = {}
    out = {}
    for key, (kind, _, _) in graph.nodes.items():
        info = object_info[kind]
        text = any(options.get("multiline") for _, options in input_specs(info).values())
        rows = max(len(_sockets(info)), len(info["output"]))
        height = (
            34
            + 22 * rows
            + 28 * len(widget_slots(info))
            + (110 if text else 0)
            + (300 if kind == "VC2SaveVideo" else 0)
        )
        column, width = of(key), 340 if text or "Load" in kind or kind == "VC2SaveVideo" else 300
        top = bottoms.get(column, 0)
        out[key] = {"pos": [column * 380, top], "size": [width, height]}
        bottoms[column] = top + height + 60
    return out


# --- thumbnails -------------------------------------------------------------------------------------------------------------------------


SENTENCES = {
    "quickstart": "a red circle moving right",
    "text_to_video": "a purple triangle moving up",
    "stock_ksampler": "a green square moving left",
    "lora": "a yellow circle moving down",
    "turbo_4_steps": "a white cross moving right",
    "long_video": "a blue triangle moving right",
    "video_to_video": "a yellow square moving left",
    "strategy_comparison": "a purple cross moving up",
}


def miniature(name: str, workflow: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """The same graph at the miniature's size and settings, in a sentence that it knows."""
    small = copy.deepcopy(workflow)
    wanted = {
        "ckpt_name": TINY,
        "width": 64,
        "height": 64,
        "fps": 16,
        "guidance": 4.0,
        "cfg": 4.0,
        "text": None,
        "prompts": None,
    }
    for node in small["nodes"]:
        for widget in typed_widgets(node, object_info):
            value = wanted.get(widget)
            if node["type"] == "VC2SaveVideo" and widget == "fps":
                continue
            if widget == "text":
                value = SENTENCES[name] if node.get("title") == "Prompt" else ""
            if widget == "prompts":
                frames = node["widgets_values"][1]
                value = f"0: a blue circle moving right\n{frames - 1}: a red circle moving right"
            if widget == "steps" and node["type"] != "VC2TurboSampler":
                value = 25
            if value is not None:
                set_widget(node, widget, value, object_info)
    return small


def stand_ins(server: Server, folder: Path) -> None:
    """The files that graphs name, made from the miniature: LoRAs of small random weights, its own UNet as the finetuned
    one, a clip to start from.
    """
    model = load(ROOT / "models" / TINY)
    generator = torch.Generator().manual_seed(0)
    shapes = lora.adapted_modules(model.config)
    turbo_list = [0.02 * torch.randn(*s, generator=generator) for shape in shapes.values() for s in _pair(shape)]
    loras, unets = server.base / "models" / "loras", server.base / "models" / "diffusion_models"
    for path in (loras, unets, server.base / "input"):
        path.mkdir(parents=True, exist_ok=True)
    torch.save(turbo_list, loras / "unet_lora.pt")
    tensors = lora.load(loras / "unet_lora.pt", model.config)
    spatial = {n: t for n, t in tensors.items() if ".attn" in n}
    lora.save(loras / "my_lora.safetensors", spatial)
    lora.save(loras / "f-spa-lora.safetensors", spatial)
    shutil.copy(ROOT / "models" / TINY, unets / "f-spa-dir.safetensors")
    shutil.copy(folder, server.base / "input" / "clip.mp4")


def _pair(shape: tuple[int, ...], rank: int = 4) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (shape[0], rank, *(1,) * (len(shape) - 2)), (rank, *shape[1:])


def thumbnail(video: Path, target: Path, side: int = 384) -> None:
    """Four moments of a clip, first to last, as a square jpg; a clip that is wider than high one below the other."""
    frames = [Image.fromarray(frame) for frame in read_video(video)]
    chosen = [frames[round(i * (len(frames) - 1) / 3)] for i in range(4)]
    width, height = chosen[0].size
    columns = 2 if width < 2 * height else 1
    sheet = Image.new("RGB", (columns * width, 4 // columns * height))
    for i, frame in enumerate(chosen):
        sheet.paste(frame, (i % columns * width, i // columns * height))
    scale = side / max(sheet.size)
    sheet = sheet.resize((round(sheet.width * scale), round(sheet.height * scale)), Image.Resampling.LANCZOS)
    page = Image.new("RGB", (side, side), (14, 16, 22))
    page.paste(sheet, ((side - sheet.width) // 2, (side - sheet.height) // 2))
    page.save(target, quality=88)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.make_workflows", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*WORKFLOWS, []], help="which ones (default: all)")
    parser.add_argument("--no-thumbnails", action="store_true", help="write the graphs without running them")
    args = parser.parse_args()
    with Server(cpu=True) as server:
        client = Client(server.url)
        object_info = client.object_info()
        made: dict[str, dict[str, Any]] = {}
        for name in args.names or WORKFLOWS:
            made[name] = to_ui(name, WORKFLOWS[name](), object_info)
            (FOLDER / f"{name}.json").write_text(json.dumps(made[name], indent=1, ensure_ascii=False) + "\n")
        if args.no_thumbnails:
            return
        start = make_video(
            client, to_ui("quickstart", quickstart(), object_info), "a blue square moving left", 3, server.output
        )
        stand_ins(server, start)
        for name, workflow in tqdm(made.items(), desc="running", unit="workflow"):
            result = client.run(
                ui_to_api(miniature(name, workflow, client.object_info()), client.object_info()), timeout=3600
            )
            file = result.files[-1]
            thumbnail(server.output / file.subfolder / file.filename, FOLDER / f"{name}.jpg")


if __name__ == "__main__":
    main()
