"""Every graph in workflows/: as its description says, complete, and running in a real ComfyUI.

Only size and steps are changed for that.
"""

from __future__ import annotations

import json
import re

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from scripts.client import Client
from scripts.comfyui import COMFYUI_VERSION
from scripts.graphs import DOWNLOADS, FOLDER, OFFICIAL, WORKFLOWS
from scripts.layout import to_ui
from scripts.workflow import set_widget, typed_widgets, ui_to_api, widget_slots
from tests import standin
from tests.vc2.test_lora import turbo_list
from vc2.files import lora
from vc2.files.video import read_video, write_video


@pytest.fixture(scope="module")
def files(server):
    """What the graphs name.

    A narrow checkpoint of random weights takes the official one's place, in the official file format.
    """
    models = server.base / "models"
    for folder in ("checkpoints", "loras", "diffusion_models"):
        (models / folder).mkdir(parents=True, exist_ok=True)
    whole = load_file(standin.write(models / "checkpoints" / "standin_workflows.safetensors"))
    torch.save({"state_dict": whole}, models / "checkpoints" / OFFICIAL)
    save_file(
        {n: t for n, t in whole.items() if n.startswith("model.diffusion_model.")},
        models / "diffusion_models" / "f-spa-dir.safetensors",
    )
    config = standin.unet_config("vc2_tiny")
    torch.save([0.05 * t for t in turbo_list(config)], models / "loras" / "unet_lora.pt")
    tensors = lora.load(models / "loras" / "unet_lora.pt", config)
    for name in ("my_lora", "f-spa-lora"):
        lora.save(models / "loras" / f"{name}.safetensors", {n: t for n, t in tensors.items() if ".attn" in n})
    frames = torch.randint(
        0, 255, (16, 80, 128, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    ).numpy()
    (server.base / "input").mkdir(exist_ok=True)
    write_video(server.base / "input" / "clip.mp4", frames, 10)


@pytest.fixture(scope="module")
def object_info(client, files):
    return client.object_info()


def saved(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


def test_nothing_is_forgotten():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(WORKFLOWS)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_file_is_what_its_description_makes(name, client, object_info):
    if ".".join(map(str, client.comfyui_version)) != COMFYUI_VERSION:
        pytest.skip(f"the files were laid out for the stock nodes of ComfyUI {COMFYUI_VERSION}")
    assert saved(name) == to_ui(name, WORKFLOWS[name](), object_info), "run `make workflows`"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_graph_is_complete(name, object_info):
    """Known nodes, a value for every widget, full versions, a note, a thumbnail, and downloads for others' weights."""
    workflow = saved(name)
    for node in workflow["nodes"]:
        if node["type"] == "MarkdownNote":
            assert len(node["widgets_values"][0]) > 100
            continue
        assert len(node["widgets_values"]) == len(widget_slots(object_info[node["type"]]))
        assert re.fullmatch(r"\d+\.\d+\.\d+", node["properties"]["ver"])
        for value in node["widgets_values"]:
            if value in DOWNLOADS:
                assert {"name": value, "url": DOWNLOADS[value][1], "directory": DOWNLOADS[value][0]} in node[
                    "properties"
                ]["models"]
    assert [n["type"] for n in workflow["nodes"]].count("MarkdownNote") == 1
    with Image.open(FOLDER / f"{name}.jpg") as picture:
        assert picture.size == (384, 384)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_graph_runs(name, client: Client, object_info, server):
    workflow = saved(name)
    for node in workflow["nodes"]:
        for widget in typed_widgets(node, object_info):
            small = {"width": 64, "height": 64, "steps": 2}.get(widget)
            if small is not None:
                set_widget(node, widget, small, object_info)
    result = client.run(ui_to_api(workflow, object_info), workflow=workflow, timeout=600)
    (video,) = [file for file in result.files if file.filename.endswith(".mp4")]
    clip = read_video(server.output / video.subfolder / video.filename)
    frames = {"long_video": 64, "prompt_travel": 32}.get(name, 16)
    assert len(clip) == frames
    assert clip.std() > 1  # not one flat colour
