"""From a described graph to the workflow JSON that the browser saves, laid out on the canvas.

The server's `/object_info` knows what the description leaves out: slots, the order of widgets, defaults.
"""

from __future__ import annotations

import importlib.metadata
import uuid
from typing import Any

from .comfyui import COMFYUI_VERSION, PACK_NAME
from .graphs import DOWNLOADS, Graph
from .workflow import ObjectInfo, default_value, input_specs, widget_slots

VERSION = importlib.metadata.version(PACK_NAME)


def to_ui(name: str, graph: Graph, object_info: ObjectInfo) -> dict[str, Any]:
    """The workflow as the browser would save it (schema version 0.4).

    Nodes stand from left to right by how much each waits for. Raises ValueError for an input that its node does not
    have.
    """
    ids = {key: i for i, key in enumerate(graph.nodes, 1)}
    places = _layout(graph, object_info)
    nodes: list[dict[str, Any]] = []
    links: list[list[Any]] = []
    for key, (kind, title, given) in graph.nodes.items():
        info, specs = object_info[kind], input_specs(object_info[kind])
        if unknown := set(given) - set(specs):
            raise ValueError(f"{name}: {kind} has no input {', '.join(sorted(unknown))}")
        inputs: list[dict[str, Any]] = []
        for slot, type_ in _sockets(info):
            link = None
            if slot in given:
                source, output = given[slot]
                link = len(links) + 1
                links.append([link, ids[source], output, ids[key], len(inputs), type_])
            inputs.append({"name": slot, "type": type_, "link": link})
        outputs = zip(info["output_name"], info["output"], strict=True)
        node = {
            "id": ids[key],
            "type": kind,
            **places[key],
            "flags": {},
            "order": ids[key] - 1,
            "mode": 0,
            "inputs": inputs,
            "outputs": [{"name": output, "type": type_, "links": []} for output, type_ in outputs],
            "properties": _properties(kind, given),
            "widgets_values": [
                # None: the browser's own control behind a seed
                "fixed" if widget is None else given.get(widget, default_value(*specs[widget]))
                for widget in widget_slots(info)
            ],
        }
        nodes.append(node | ({"title": title} if title else {}))
    by_id = {node["id"]: node for node in nodes}
    for link, source, output, *_ in links:
        by_id[source]["outputs"][output]["links"].append(link)
    note = {
        "id": len(ids) + 1,
        "type": "MarkdownNote",
        "title": "Read me",
        "pos": [0, -340],
        "size": [720, 250],
        "flags": {},
        "order": len(ids),
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "properties": {},
        "widgets_values": [graph.note],
    }
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PACK_NAME}/{name}")),
        "revision": 0,
        "last_node_id": len(ids) + 1,
        "last_link_id": len(links),
        "nodes": [*nodes, note],
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def _properties(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """Which pack the node is of, and where to fetch the weights that it names."""
    ours = kind.startswith("VC2")
    models = [
        {"name": value, "url": DOWNLOADS[value][1], "directory": DOWNLOADS[value][0]}
        for value in given.values()
        if isinstance(value, str) and value in DOWNLOADS
    ]
    return {
        "Node name for S&R": kind,
        "cnr_id": PACK_NAME if ours else "comfy-core",
        "ver": VERSION if ours else COMFYUI_VERSION,
    } | ({"models": models} if models else {})


def _sockets(info: dict[str, Any]) -> list[tuple[str, str]]:
    """Inputs that take a link and have no widget."""
    widgets = set(widget_slots(info))
    return [(name, kind) for name, (kind, _) in input_specs(info).items() if name not in widgets]


def _layout(graph: Graph, object_info: ObjectInfo) -> dict[str, dict[str, list[int]]]:
    """Where each node stands and how large it is, in pixels: a column for every step on the way from its inputs."""
    columns: dict[str, int] = {}
    bottoms: dict[int, int] = {}
    places = {}
    for key, (kind, _, given) in graph.nodes.items():
        info = object_info[kind]
        text = any(options.get("multiline") for _, options in input_specs(info).values())
        video = kind == "VC2SaveVideo"
        rows = max(len(_sockets(info)), len(info["output"]))
        height = 34 + 22 * rows + 28 * len(widget_slots(info)) + 110 * text + 300 * video
        width = 340 if text or video or "Load" in kind else 300
        column = 1 + max((columns[value[0]] for value in given.values() if isinstance(value, tuple)), default=-1)
        top = bottoms.get(column, 0)
        columns[key], bottoms[column] = column, top + height + 60
        places[key] = {"pos": [column * 380, top], "size": [width, height]}
    return places
