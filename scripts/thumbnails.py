"""Each graph's thumbnail: what the very graph makes.

The bundled miniature takes the place of weights that are not here, at 64x64 and with the sentences that it knows.
"""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from vc2.files import checkpoint, lora
from vc2.files.video import read_video

from .client import Client
from .comfyui import ROOT, Server
from .demo import make_video
from .graphs import TINY, quickstart
from .layout import to_ui
from .workflow import ObjectInfo, set_widget, typed_widgets, ui_to_api

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
SETTINGS: dict[str, Any] = {"ckpt_name": TINY, "width": 64, "height": 64, "fps": 16, "guidance": 4.0, "cfg": 4.0}


def make_thumbnails(server: Server, workflows: dict[str, dict[str, Any]], folder: Path) -> None:
    """Run the workflows, given by name, on the server; leaves `<name>.jpg` of each in `folder`."""
    client = Client(server.url)
    first = to_ui("quickstart", quickstart(), client.object_info())
    stand_ins(server.base, make_video(client, first, "a blue square moving left", 3, server.output))
    object_info = client.object_info()  # again: now it lists the stand-ins
    for name, workflow in tqdm(workflows.items(), desc="running", unit="workflow"):
        small = miniature(name, workflow, object_info)
        file = client.run(ui_to_api(small, object_info), timeout=3600).files[-1]
        thumbnail(server.output / file.subfolder / file.filename, folder / f"{name}.jpg")


def miniature(name: str, workflow: dict[str, Any], object_info: ObjectInfo) -> dict[str, Any]:
    """The same graph at the miniature's size and settings, in a sentence that it knows."""
    small = copy.deepcopy(workflow)
    for node in small["nodes"]:
        settings = dict(SETTINGS)
        settings["text"] = SENTENCES[name] if node.get("title") == "Prompt" else ""
        if node["type"] == "VC2PromptTravel":
            last = node["widgets_values"][1] - 1
            settings["prompts"] = f"0: a blue circle moving right\n{last}: a red circle moving right"
        if node["type"] == "VC2SaveVideo":
            del settings["fps"]  # of playback, not the condition
        if node["type"] != "VC2TurboSampler":
            settings["steps"] = 25
        for widget in set(typed_widgets(node, object_info)) & set(settings):
            set_widget(node, widget, settings[widget], object_info)
    return small


def stand_ins(base: Path, clip: Path) -> None:
    """Put the files that graphs name into the server's `base`.

    LoRAs of small random weights for the miniature, its own UNet as the finetuned one, and `clip` to start from.
    """
    loras, unets = base / "models" / "loras", base / "models" / "diffusion_models"
    for folder in (loras, unets, base / "input"):
        folder.mkdir(parents=True, exist_ok=True)
    config = checkpoint.load(ROOT / "models" / TINY).config
    generator = torch.Generator().manual_seed(0)
    shapes = [half for shape in lora.adapted_modules(config).values() for half in _pair(shape)]
    torch.save([0.02 * torch.randn(*shape, generator=generator) for shape in shapes], loras / "unet_lora.pt")
    tensors = lora.load(loras / "unet_lora.pt", config)
    spatial = {name: tensor for name, tensor in tensors.items() if ".attn" in name}
    for name in ("my_lora", "f-spa-lora"):
        lora.save(loras / f"{name}.safetensors", spatial)
    shutil.copy(ROOT / "models" / TINY, unets / "f-spa-dir.safetensors")
    shutil.copy(clip, base / "input" / "clip.mp4")


def _pair(shape: tuple[int, ...], rank: int = 4) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of a LoRA's up and down for a layer's weight."""
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
