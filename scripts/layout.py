"""From a described graph to the workflow JSON that the browser saves, laid out on the canvas.

The server's `/object_info` knows what the description leaves out: slots, the order of widgets, defaults.
"""

from __future__ import annotations

import importlib.metadata
import math
import re
import uuid
from typing import Any

from . import miniature
from .comfyui import COMFYUI_VERSION, PACK_NAME
from .graph import DOWNLOADS, PROMPT_TITLE, Graph, Node, Place
from .languages import translations
from .wires import Box, Router
from .workflow import ObjectInfo, default_value, input_specs, widget_slots

VERSION = importlib.metadata.version(PACK_NAME)

# Pixels. The width holds the longest file name, the gaps a group's frame on either side.
WIDTHS = {
    "VC2LoadCheckpoint": 270,
    "VC2LoadDiffusionModel": 280,
    "CLIPTextEncode": 270,
    "VC2PromptTravel": 270,
    "VC2VideoConditioning": 260,
    "VC2TemporalGuidance": 270,
    "VC2Sampler": 250,
    "KSampler": 250,
    "VC2FIFOSampler": 250,
    "VC2TurboSampler": 250,
    "VC2SaveVideo": 280,
}
WIDTH, GAP, FIRST_GAP = 225, 34, 44
TOPS = (0, 190, 140, 0, 0)  # stepped, so that MODEL and VAE pass above what stands between their ends
TITLE, GROUP_TITLE, PADDING = 30, 36, 10
FOOTER = 30  # of a node with an error
BELOW, BELOW_GROUP = TITLE + 18, TITLE + GROUP_TITLE + 2 * PADDING + FOOTER
PREVIEWS = {"VC2SaveVideo": 190, "LoadVideo": 250}
PROMPT_COLOURS = {PROMPT_TITLE: ("#232", "#353"), "Negative prompt": ("#322", "#533")}
NOTE_COLOURS = ("#222", "#000")
RANDOMISED = "randomize"
# The sizes suit Nodes 2.0 already; its first versions would spread the nodes.
RENDERER = {"workflowRendererVersion": "Vue-corrected"}


def to_ui(name: str, graph: Graph, object_info: ObjectInfo) -> dict[str, Any]:
    """The workflow as the browser would save it (schema version 0.4).

    Raises ValueError for an input that its node does not have, and where a wire finds no way around the nodes.
    """
    ids = {key: i for i, key in enumerate(graph.nodes, 1)}
    sizes = {key: _size(node, object_info[node.kind]) for key, node in graph.nodes.items()}
    places, columns = _places(graph, sizes)
    boxes = {key: _box(*place) for key, place in places.items()}
    note = _note(graph, len(ids) + 1, columns, boxes)
    groups = _groups(graph, boxes)
    captions = [Box(x, y, x + w, y + GROUP_TITLE) for x, y, w, _ in (group["bounding"] for group in groups)]
    router = Router([*boxes.values(), _box(*note["pos"], *note["size"])], captions)
    nodes: list[dict[str, Any]] = []
    links: list[list[Any]] = []
    reroutes: list[dict[str, Any]] = []
    ends: list[dict[str, int]] = []
    for key, node in graph.nodes.items():
        info, specs = object_info[node.kind], input_specs(object_info[node.kind])
        if unknown := set(node.inputs) - set(specs):
            raise ValueError(f"{name}: {node.kind} has no input {', '.join(sorted(unknown))}")
        inputs: list[dict[str, Any]] = []
        for slot, kind, is_widget in _sockets(info, node):
            socket: dict[str, Any] = {"name": slot, "type": kind, "link": None}
            if slot in node.inputs:
                source, output = node.inputs[slot]
                socket["link"] = len(links) + 1
                links.append([len(links) + 1, ids[source], output, ids[key], len(inputs), kind])
                way = router.route(_output(places[source], output), _input(places[key], len(inputs)))
                for i, point in enumerate(way):
                    before = {"parentId": len(reroutes)} if i else {}
                    reroutes.append({"id": len(reroutes) + 1, **before, "pos": list(point), "linkIds": [len(links)]})
                if way:
                    ends.append({"id": len(links), "parentId": len(reroutes)})
            inputs.append(socket | ({"widget": {"name": slot}} if is_widget else {}))
        outputs = zip(info["output_name"], info["output"], strict=True)
        x, y, width, height = places[key]
        colours = dict(zip(("color", "bgcolor"), PROMPT_COLOURS.get(node.title or "", ()), strict=False))
        nodes.append(
            {
                "id": ids[key],
                "type": node.kind,
                "pos": [x, y],
                "size": [width, height],
                "flags": {},
                "order": ids[key] - 1,
                "mode": 0,
                "inputs": inputs,
                "outputs": [{"name": output, "type": type_, "links": []} for output, type_ in outputs],
                "properties": _properties(node),
                "widgets_values": _values(node, info),
            }
            | ({"title": node.title} if node.title else {})
            | ({"showAdvanced": True} if key in graph.unfolded else {})
            | colours
        )
    by_id = {node["id"]: node for node in nodes}
    for link, source, output, *_ in links:
        by_id[source]["outputs"][output]["links"].append(link)
    routed = {"reroutes": reroutes, "linkExtensions": ends} if reroutes else {}
    # A graph without a note is part of another, not opened by itself.
    ours = {"videocrafter2": _ours(name, graph, ids, [*nodes, note], groups)} if graph.note else {}
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PACK_NAME}/{name}")),
        "revision": 0,
        "last_node_id": len(ids) + 1,
        "last_link_id": len(links),
        "nodes": [*nodes, note],
        "links": links,
        "groups": groups,
        "config": {},
        "extra": RENDERER | routed | _app(graph, ids) | ours,
        "version": 0.4,
    }


def _values(node: Node, info: dict[str, Any]) -> list[Any]:
    """The widgets' values, in the browser's order; a seed's own control asks for a new one after each run."""
    specs = input_specs(info)
    given = {slot: value for slot, value in node.inputs.items() if not isinstance(value, tuple)}
    upload = "image" if any(options.get("video_upload") for _, options in specs.values()) else RANDOMISED
    return [
        upload if widget is None else given.get(widget, default_value(*specs[widget])) for widget in widget_slots(info)
    ]


def _properties(node: Node) -> dict[str, Any]:
    """Which pack the node is of, and where to fetch the weights that it names."""
    ours = node.kind.startswith("VC2")
    models = [
        {"name": value, "url": DOWNLOADS[value][1], "directory": DOWNLOADS[value][0]}
        for value in node.inputs.values()
        if isinstance(value, str) and value in DOWNLOADS
    ]
    return {
        "Node name for S&R": node.kind,
        "cnr_id": PACK_NAME if ours else "comfy-core",
        "ver": VERSION if ours else COMFYUI_VERSION,
    } | ({"models": models} if models else {})


def _sockets(info: dict[str, Any], node: Node) -> list[tuple[str, str, bool]]:
    """Name, type and whether it is a widget, of the inputs that take a link or have one."""
    widgets = {widget for widget in widget_slots(info) if widget}
    linked = {slot for slot, value in node.inputs.items() if isinstance(value, tuple)}
    specs = input_specs(info).items()
    plain = [(slot, kind, False) for slot, (kind, _) in specs if slot not in widgets]
    return plain + [(slot, kind, True) for slot, (kind, _) in specs if slot in widgets & linked]


def _box(x: int, y: int, width: int, height: int) -> Box:
    return Box(x, y - TITLE, x + width, y + height)


def _output(place: tuple[int, int, int, int], slot: int) -> tuple[float, float]:
    x, y, width, _ = place
    return x + width, y + 14 + 20 * slot


def _input(place: tuple[int, int, int, int], slot: int) -> tuple[float, float]:
    return place[0], place[1] + 14 + 20 * slot


def _size(node: Node, info: dict[str, Any]) -> tuple[int, int]:
    """Width and height that hold the node in every front end; Nodes 2.0 draws the tallest."""
    rows = max(len(_sockets(info, node)), len(info["output"]))
    widgets = sum(widget is not None for widget in widget_slots(info))
    texts = [node.inputs.get(name) for name, (_, options) in input_specs(info).items() if options.get("multiline")]
    lines = sum(2 + math.ceil(len(text) / 36) for text in texts if isinstance(text, str))
    height = 44 + 23 * rows + 31 * widgets + 14 * lines
    return WIDTHS.get(node.kind, WIDTH), height + PREVIEWS.get(node.kind, 0)


def _places(
    graph: Graph, sizes: dict[str, tuple[int, int]]
) -> tuple[dict[str, tuple[int, int, int, int]], list[tuple[int, int]]]:
    """x, y, width and height of every node, and of every column its left edge and width."""
    widths = [
        max((sizes[key][0] for key, node in graph.nodes.items() if node.place.column == column), default=0)
        for column in range(len(TOPS))
    ]
    columns, x = [], 0
    for i, width in enumerate(widths):
        columns.append((x, width))
        x += width + (FIRST_GAP if i == 0 else GAP)
    places = {}
    lowest: dict[int, tuple[Place, int]] = {}  # of each column: the last node's place, and where it ends
    for key, node in graph.nodes.items():
        place = node.place
        above, bottom = lowest.get(place.column, (None, 0))
        if above is place or (above and place.top is None and above.group == place.group):
            top = bottom + BELOW + (FOOTER if "Load" in node.kind else 0)
        elif place.top is not None:
            top = place.top
        else:
            top = bottom + BELOW_GROUP if above else TOPS[place.column]
        left, width = columns[place.column]
        places[key] = (left, top, width, sizes[key][1])
        lowest[place.column] = (place, top + sizes[key][1])
    return places, columns


def _groups(graph: Graph, boxes: dict[str, Box]) -> list[dict[str, Any]]:
    """A frame with a title around the nodes of each group."""
    groups = []
    for i, title in enumerate(dict.fromkeys(node.place.group for node in graph.nodes.values()), 1):
        inside = [boxes[key] for key, node in graph.nodes.items() if node.place.group == title]
        left, top = min(b.left for b in inside) - PADDING, min(b.top for b in inside) - PADDING - GROUP_TITLE
        right, bottom = max(b.right for b in inside) + PADDING, max(b.bottom for b in inside) + PADDING
        if title == "1 Load":
            bottom += FOOTER
        bounding = [left, top, right - left, bottom - top]
        groups.append({"id": i, "title": title, "bounding": bounding, "color": "#3f789e", "font_size": 22, "flags": {}})
    return groups


def _note(graph: Graph, id_: int, columns: list[tuple[int, int]], boxes: dict[str, Box]) -> dict[str, Any]:
    first, last, top = graph.note_at
    left, right = columns[first][0], sum(columns[last])
    if top is None:
        above = [box.bottom for box in boxes.values() if left <= box.left < right]
        top = int(max(above)) + BELOW + PADDING
    return {
        "id": id_,
        "type": "MarkdownNote",
        "title": "Read me",
        "pos": [left, top],
        "size": [right - left, _note_height(graph.note, right - left)],
        "flags": {},
        "order": id_ - 1,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "properties": {},
        "widgets_values": [graph.note],
        "color": NOTE_COLOURS[0],
        "bgcolor": NOTE_COLOURS[1],
    }


def _note_height(markdown: str, width: int) -> int:
    """Of the text as the browser sets it, so that the note has neither a scroll bar nor an empty half."""
    height = 36
    for line in filter(None, markdown.splitlines()):
        if line.startswith("#"):
            height += 36
        else:
            text = re.sub(r"\]\(.*?\)|[*\[]", "", line)
            height += 4 + 20 * math.ceil(len(text) * 5.9 / (width - (50 if line.startswith("-") else 30)))
    return height


def _app(graph: Graph, ids: dict[str, int]) -> dict[str, Any]:
    """App mode: the widgets to fill in, and the nodes whose results to show."""
    if not graph.app:
        return {}
    inputs = [[ids[node], widget] for node, widget in graph.app]
    return {"linearMode": True, "linearData": {"inputs": inputs, "outputs": [ids["save"]]}}


def _ours(
    name: str, graph: Graph, ids: dict[str, int], nodes: list[dict[str, Any]], groups: list[dict[str, Any]]
) -> dict[str, Any]:
    """What the pack's own scripts in web/ read: titles and note in other languages, and how to try the miniature.

    That is, for each widget to change: node, widget, the miniature's value, the graph's own.
    """
    ours: dict[str, Any] = {"languages": translations(name, nodes, groups)}
    if miniature.can_run(graph):
        ours["miniature"] = [[ids[edit.node], *edit[1:]] for edit in miniature.edits(name, graph)]
    return ours
