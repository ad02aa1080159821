"""Every graph in workflows/: as its description says, complete, and running in a real ComfyUI.

Only size and steps are changed for that.
"""

from __future__ import annotations

import itertools
import json
import math
import re

import pytest
import requests
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from scripts.blueprint import FILE as BLUEPRINT
from scripts.blueprint import blueprint
from scripts.catalogue import FILE as CATALOGUE
from scripts.catalogue import catalogue
from scripts.client import Client
from scripts.comfyui import COMFYUI_VERSION, PACK_NAME
from scripts.graph import DOWNLOADS, OFFICIAL, TRAINED_BASE, TRAINED_DIRECT, TRAINED_LORA, TURBO, VADER
from scripts.graphs import FOLDER, WORKFLOWS
from scripts.layout import TITLE, to_ui
from scripts.wires import Box, crosses, curve
from scripts.workflow import set_widget, typed_widgets, ui_to_api, widget_slots
from tests import standin
from tests.vc2.loras import turbo_list
from vc2.files import lora
from vc2.files.video import read_video


@pytest.fixture(scope="module")
def files(server):
    """What the graphs name.

    A narrow checkpoint of random weights takes the official one's place, in the official file format, and is gone
    afterwards: loaders of other tests would stand at it.
    """
    models = server.base / "models"
    for folder in ("checkpoints", "loras", "diffusion_models"):
        (models / folder).mkdir(parents=True, exist_ok=True)
    whole = load_file(standin.write(models / "checkpoints" / "standin_workflows.safetensors"))
    torch.save({"state_dict": whole}, models / "checkpoints" / OFFICIAL)
    save_file(whole, models / "checkpoints" / TRAINED_BASE)
    save_file(
        {n: t for n, t in whole.items() if n.startswith("model.diffusion_model.")},
        models / "diffusion_models" / TRAINED_DIRECT,
    )
    config = standin.unet_config("vc2_tiny")
    torch.save([0.05 * t for t in turbo_list(config)], models / "loras" / TURBO)
    tensors = lora.load(models / "loras" / TURBO, config)
    attention = {n: t for n, t in tensors.items() if ".attn" in n}
    torch.save(attention, models / "loras" / VADER)
    lora.save(models / "loras" / TRAINED_LORA, attention)
    yield
    for name in (OFFICIAL, TRAINED_BASE):
        (models / "checkpoints" / name).unlink()


@pytest.fixture(scope="module")
def object_info(client, files):
    return client.object_info()


def saved(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


def test_nothing_is_forgotten():
    assert {str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.rglob("*.json")} == set(WORKFLOWS)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_file_is_what_its_description_makes(name, client, object_info):
    if ".".join(map(str, client.comfyui_version)) != COMFYUI_VERSION:
        pytest.skip(f"the files were laid out for the stock nodes of ComfyUI {COMFYUI_VERSION}")
    assert saved(name) == to_ui(name, WORKFLOWS[name](), object_info), "run `make workflows`"


def test_blueprint_and_catalogue_are_what_their_descriptions_make(client, object_info):
    assert CATALOGUE.read_text(encoding="utf-8") == catalogue(), "run `make workflows`"
    if ".".join(map(str, client.comfyui_version)) != COMFYUI_VERSION:
        pytest.skip(f"the blueprint was laid out for the stock nodes of ComfyUI {COMFYUI_VERSION}")
    assert json.loads(BLUEPRINT.read_text(encoding="utf-8")) == blueprint(object_info), "run `make workflows`"


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


def test_templates_are_found_and_begin_with_the_quickstart(client: Client, server):
    """A pack's template has no other title than its file's name, and nothing else that the search reads."""
    names = requests.get(f"{server.url}/workflow_templates", timeout=60).json()[PACK_NAME]
    assert set(names) == {name for name in WORKFLOWS if "/" not in name}
    assert all(name.startswith("VideoCrafter2_") for name in names)
    assert [name.split("_", 2)[2] for name in sorted(names)[:2]] == ["Quickstart", "Text_to_Video"]
    for name in names:
        assert requests.get(f"{server.url}/api/workflow_templates/{PACK_NAME}/{name}.jpg", timeout=60).ok


@pytest.mark.parametrize("name", WORKFLOWS)
def test_what_is_seen_at_the_opening_zoom(name):
    """Narrow enough to be read, every node in a group, none on another, no wire under one, a note in plain bold."""
    workflow = saved(name)
    nodes = workflow["nodes"]
    boxes = {n["id"]: Box(x, y - TITLE, x + w, y + h) for n in nodes for (x, y), (w, h) in [(n["pos"], n["size"])]}
    groups = [Box(x, y, x + w, y + h) for x, y, w, h in (group["bounding"] for group in workflow["groups"])]
    assert max(b.right for b in [*boxes.values(), *groups]) - min(b.left for b in groups) < 1500
    for box, other in itertools.combinations(boxes.values(), 2):
        assert min(box.right, other.right) <= max(box.left, other.left) or min(box.bottom, other.bottom) <= max(
            box.top, other.top
        )
    steps = [group["title"] for group in workflow["groups"] if group["title"][0].isdigit()]
    assert sorted(steps)[0] == "1 Load"
    assert [step[0] for step in sorted(steps)] == ["1", "2", "3", "4", "5"]
    for node in nodes:
        x, y = node["pos"]
        if node["type"] == "MarkdownNote":
            notes = [words["note"] for words in workflow["extra"]["videocrafter2"]["languages"].values()]
            assert not any("`" in note for note in [*node["widgets_values"], *notes])
        else:
            assert any(group.holds(x + 1, y + 1) for group in groups)
    for path in wires(workflow):
        assert not crosses(path, list(boxes.values()))


def wires(workflow):
    """The way of each link, through its reroutes."""
    places = {node["id"]: (*node["pos"], node["size"][0]) for node in workflow["nodes"]}
    reroutes = {reroute["id"]: reroute for reroute in workflow["extra"].get("reroutes", [])}
    last = {end["id"]: end["parentId"] for end in workflow["extra"].get("linkExtensions", [])}
    for link, source, output, target, socket, _ in workflow["links"]:
        (x, y, width), (to_x, to_y, _) = places[source], places[target]
        start, end, way = (x + width, y + 14 + 20 * output), (to_x, to_y + 14 + 20 * socket), []
        reroute = reroutes.get(last.get(link))
        while reroute:
            way.insert(0, tuple(reroute["pos"]))
            assert link in reroute["linkIds"]
            reroute = reroutes.get(reroute.get("parentId"))
        yield list(straight([start, *way, end])) if way else curve(start, end)


def straight(corners, step=5):
    """Points on the way from corner to corner."""
    for (x, y), (to_x, to_y) in itertools.pairwise(corners):
        count = max(1, int(math.dist((x, y), (to_x, to_y)) / step))
        yield from ((x + (to_x - x) * i / count, y + (to_y - y) * i / count) for i in range(count + 1))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_second_run_makes_another_clip(name, object_info):
    """Seeds are drawn anew after each run."""
    nodes = [node for node in saved(name)["nodes"] if node["type"] in object_info]
    slots = {node["id"]: widget_slots(object_info[node["type"]]) for node in nodes}
    controls = [
        node["widgets_values"][slots[node["id"]].index(seed) + 1]
        for node in nodes
        for seed in {"seed", "noise_seed"} & set(slots[node["id"]])
    ]
    assert controls
    assert set(controls) == {"randomize"}


# Longer than a window of 16 frames, and than FIFO's queue; the files have more.
FRAMES = {"VideoCrafter2_Long_Video": 24, "VideoCrafter2_Long_Video_FIFO": 20, "VideoCrafter2_Prompt_Travel": 32}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_graph_runs(name, client: Client, object_info, server):
    workflow, frames = saved(name), FRAMES.get(name, 16)
    for node in workflow["nodes"]:
        for widget in typed_widgets(node, object_info):
            small = {"width": 64, "height": 64, "steps": 2, "partitions": 1}.get(widget)
            if node["type"] == "VC2EmptyLatentVideo" and widget == "frames":
                small = frames
            if small is not None:
                set_widget(node, widget, small, object_info)
    result = client.run(ui_to_api(workflow, object_info), workflow=workflow, timeout=600)
    (video,) = [file for file in result.files if file.filename.endswith(".mp4")]
    clip = read_video(server.output / video.subfolder / video.filename)
    assert len(clip) == frames
    assert clip.std() > 1  # not one flat colour
