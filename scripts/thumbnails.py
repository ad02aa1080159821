"""Each graph's thumbnail: what the very graph makes, and the sentence that it made it from.

The bundled miniature takes the place of weights that are not here, at its own size and with the sentences that it
knows, and the picture says so.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from vc2.files import checkpoint, lora
from vc2.files.grid import GROUND, caption
from vc2.files.video import read_video

from .client import Client
from .comfyui import ROOT, Server
from .demo import make_video
from .graph import TINY, TRAINED_DIRECT, TRAINED_LORA, VADER, Graph
from .graphs import CLIP, FOLDER, QUICKSTART, WORKFLOWS, quickstart
from .layout import to_ui
from .miniature import SENTENCES, edits
from .workflow import ObjectInfo, set_widget, ui_to_api

SIDE = 384


def make_thumbnails(server: Server, names: list[str]) -> None:
    """Run the workflows on the server; leaves a jpg of what each makes beside it, and the clip that one starts from."""
    client = Client(server.url)
    object_info = client.object_info()
    clip = make_video(client, to_ui(QUICKSTART, quickstart(), object_info), "a blue circle moving up", 3, server.output)
    shutil.copy(clip, FOLDER / CLIP)
    stand_ins(server.base)
    object_info = client.object_info()  # again: now it lists the stand-ins
    for name in tqdm(names, desc="running", unit="workflow"):
        small = miniature(name, WORKFLOWS[name](), object_info)
        file = client.run(ui_to_api(small, object_info), timeout=3600).files[-1]
        label = f"{SENTENCES[name]} (the bundled miniature)"
        thumbnail(server.output / file.subfolder / file.filename, label, FOLDER / f"{name}.jpg")


def miniature(name: str, graph: Graph, object_info: ObjectInfo) -> dict[str, Any]:
    """The workflow, changed so that the miniature runs it."""
    workflow = to_ui(name, graph, object_info)
    nodes = dict(zip(graph.nodes, workflow["nodes"], strict=False))  # the last is the note
    for edit in edits(name, graph):
        set_widget(nodes[edit.node], edit.widget, edit.value, object_info)
    return workflow


def stand_ins(base: Path) -> None:
    """Put the files that graphs name into the server's `base`.

    LoRAs of small random weights for the miniature, its own UNet as the finetuned one, and the clip to start from.
    """
    loras, unets = base / "models" / "loras", base / "models" / "diffusion_models"
    for folder in (loras, unets):
        folder.mkdir(parents=True, exist_ok=True)
    config = checkpoint.load(ROOT / "models" / TINY).config
    generator = torch.Generator().manual_seed(0)
    shapes = [half for shape in lora.adapted_modules(config).values() for half in _pair(shape)]
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary) / "lora.pt"
        torch.save([0.02 * torch.randn(*shape, generator=generator) for shape in shapes], whole)
        attention = {name: t.clone() for name, t in lora.load(whole, config).items() if ".attn" in name}
    torch.save(attention, loras / VADER)
    lora.save(loras / TRAINED_LORA, attention)
    shutil.copy(ROOT / "models" / TINY, unets / TRAINED_DIRECT)
    shutil.copy(FOLDER / CLIP, base / "input" / CLIP)


def _pair(shape: tuple[int, ...], rank: int = 4) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of a LoRA's up and down for a layer's weight."""
    return (shape[0], rank, *(1,) * (len(shape) - 2)), (rank, *shape[1:])


def thumbnail(video: Path, label: str, target: Path) -> None:
    """Four moments of a clip, first to last, as a square jpg, and nine of a long one; wide ones below one another."""
    frames = [Image.fromarray(frame) for frame in read_video(video)]
    count = 4 if len(frames) <= 16 else 9
    chosen = [frames[round(i * (len(frames) - 1) / (count - 1))] for i in range(count)]
    width, height = chosen[0].size
    columns = math.isqrt(count) if width < 2 * height else 1
    sheet = Image.new("RGB", (columns * width, count // columns * height))
    for i, frame in enumerate(chosen):
        sheet.paste(frame, (i % columns * width, i // columns * height))
    strip = Image.fromarray(caption(label, SIDE, 28))
    room = SIDE - strip.height
    scale = min(SIDE / sheet.width, room / sheet.height)
    sheet = sheet.resize((round(sheet.width * scale), round(sheet.height * scale)), Image.Resampling.LANCZOS)
    page = Image.new("RGB", (SIDE, SIDE), GROUND)
    page.paste(sheet, ((SIDE - sheet.width) // 2, (room - sheet.height) // 2))
    page.paste(strip, (0, room))
    page.save(target, quality=88)
