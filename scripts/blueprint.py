"""subgraphs/: text to video as one node, which newer front ends list among the nodes."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from .comfyui import PACK_NAME, ROOT
from .graph import Graph
from .layout import RENDERER, VERSION, to_ui
from .workflow import ObjectInfo, input_specs, widget_slots

NAME = "Text to Video (VideoCrafter2)"
FILE = ROOT / "subgraphs" / f"{NAME}.json"
DESCRIPTION = "A clip of 16 frames, or of as many as you like, from a text prompt, with VideoCrafter2."
ALIASES = ["videocrafter", "vc2", "t2v"]
INPUTS, OUTPUTS = -10, -20  # the ids that the front end gives a subgraph's two edges
# Label, node and widget of what the node shows; a seed brings its own control, which cannot be an input.
SHOWN = (
    ("prompt", "prompt", "text"),
    ("negative prompt", "negative", "text"),
    ("width", "latent", "width"),
    ("height", "latent", "height"),
    ("frames", "latent", "frames"),
    ("steps", "sampler", "steps"),
    ("guidance", "sampler", "guidance"),
    ("fps", "video", "fps"),
    ("ckpt_name", "load", "ckpt_name"),
)


def text_to_video() -> Graph:
    g = Graph("")
    model, clip, vae = g.checkpoint()
    sampled = g.sampled(model, clip, g.latent())
    with g.group("5 Video", 3):
        images = g.add("decode", "VAEDecode", samples=sampled, vae=vae)
        g.add("video", "CreateVideo", images=images, fps=10.0)
    return g


def blueprint(object_info: ObjectInfo) -> dict[str, Any]:
    """The graph as a subgraph, whose inputs are widgets of its nodes and whose output is the video."""
    graph = text_to_video()
    workflow = to_ui(NAME, graph, object_info)
    nodes = [node for node in workflow["nodes"] if node["type"] != "MarkdownNote"]
    by_key = dict(zip(graph.nodes, nodes, strict=True))
    parents = {end["id"]: {"parentId": end["parentId"]} for end in workflow["extra"].get("linkExtensions", [])}
    links = [
        _link(*link) | parents.get(link[0], {})  # a link's last reroute
        for link in workflow["links"]
    ]
    for node in nodes:
        _list_widgets(node, object_info[node["type"]])
    inputs, sockets, values = [], [], []
    for slot, (label, key, widget) in enumerate(SHOWN):
        node = by_key[key]
        place = next(n for n, socket in enumerate(node["inputs"]) if socket["name"] == widget)
        kind, link = node["inputs"][place]["type"], len(links) + 1
        links.append(_link(link, INPUTS, slot, node["id"], place, kind))
        node["inputs"][place]["link"] = link
        name = label.replace(" ", "_")
        id_ = _id(f"input/{name}")
        inputs.append(
            {"id": id_, "name": name, "label": label, "type": kind, "linkIds": [link], "pos": [-120, 20 * slot]}
        )
        sockets.append({"name": name, "label": label, "type": kind, "widget": {"name": name}, "link": None})
        values.append(graph.nodes[key].inputs[widget])
    video = by_key["video"]
    links.append(_link(len(links) + 1, video["id"], 0, OUTPUTS, 0, "VIDEO"))
    video["outputs"][0]["links"] = [len(links)]
    output = {"id": _id("output/VIDEO"), "name": "VIDEO", "type": "VIDEO", "linkIds": [len(links)], "pos": [1420, 20]}
    reroutes = workflow["extra"].get("reroutes", [])
    right = max(node["pos"][0] + node["size"][0] for node in nodes)
    sampler = str(by_key["sampler"]["id"])
    shown = [["-1", socket["name"]] for socket in sockets]
    shown += [[sampler, "seed"], [sampler, "control_after_generate"]]
    return {
        "id": _id(""),
        "revision": 0,
        "last_node_id": len(nodes) + 1,
        "last_link_id": 0,
        "nodes": [
            {
                "id": len(nodes) + 1,
                "type": _id("subgraph"),
                "pos": [0, 0],
                "size": [400, 480],
                "flags": {},
                "order": 0,
                "mode": 0,
                "title": NAME,
                "inputs": sockets,
                "outputs": [{"name": "VIDEO", "type": "VIDEO", "links": None}],
                "properties": {"proxyWidgets": shown, "cnr_id": PACK_NAME, "ver": VERSION},
                "widgets_values": values,
            }
        ],
        "links": [],
        "groups": [],
        "definitions": {
            "subgraphs": [
                {
                    "id": _id("subgraph"),
                    "version": 1,
                    "state": {
                        "lastGroupId": len(workflow["groups"]),
                        "lastNodeId": len(nodes) + 1,
                        "lastLinkId": len(links),
                        "lastRerouteId": len(reroutes),
                    },
                    "revision": 0,
                    "config": {},
                    "name": NAME,
                    "inputNode": {"id": INPUTS, "bounding": [-180, 0, 120, 20 * len(inputs) + 40]},
                    "outputNode": {"id": OUTPUTS, "bounding": [right + 60, 0, 120, 60]},
                    "inputs": inputs,
                    "outputs": [output],
                    "widgets": [],
                    "nodes": nodes,
                    "groups": workflow["groups"],
                    "links": links,
                    "reroutes": reroutes,
                    "extra": RENDERER,
                    "category": "Video generation and editing/Text to video",
                    "description": DESCRIPTION,
                }
            ]
        },
        "config": {},
        "extra": RENDERER | {"BlueprintDescription": DESCRIPTION, "BlueprintSearchAliases": ALIASES},
        "version": 0.4,
    }


def write_blueprint(object_info: ObjectInfo, path: Path = FILE) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(blueprint(object_info), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _list_widgets(node: dict[str, Any], info: dict[str, Any]) -> None:
    """Front ends of 1.35 to 1.45 give a new blueprint's widgets their values by their place among the inputs: so all
    must be there, in their order.
    """
    for widget, (kind, _) in input_specs(info).items():
        if widget in widget_slots(info):
            kind = "COMBO" if isinstance(kind, list) else kind
            node["inputs"].append({"name": widget, "type": kind, "widget": {"name": widget}, "link": None})


def _link(id_: int, source: int, output: int, target: int, socket: int, kind: str) -> dict[str, Any]:
    return {
        "id": id_,
        "origin_id": source,
        "origin_slot": output,
        "target_id": target,
        "target_slot": socket,
        "type": kind,
    }


def _id(of: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PACK_NAME}/{NAME}/{of}"))
