"""Run a saved graph without a browser: the UI's workflow JSON in, the prompt that `POST /prompt` takes out.

The browser saves a graph for drawing: widget values are a bare list, in the order in which the front-end laid the
widgets out. The server wants named inputs. `/object_info` knows the names and their order, so the two together are
enough.
"""

from __future__ import annotations

from typing import Any

Node = dict[str, Any]
ObjectInfo = dict[str, Any]

WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
UPLOADS = ("image_upload", "video_upload", "audio_upload", "animated_image_upload")
NOTES = {"Note", "MarkdownNote"}
REROUTE, PRIMITIVE = "Reroute", "PrimitiveNode"
DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
MUTED, BYPASSED = 2, 4


class WorkflowError(ValueError):
    """The saved graph cannot become a prompt; the message names the node."""


def ui_to_api(workflow: dict[str, Any], object_info: ObjectInfo) -> dict[str, dict[str, Any]]:
    """The API prompt, `{node id: {class_type, inputs, _meta}}`, of a workflow saved by the UI.

    Notes, reroutes and primitives exist only in the browser; muted and bypassed nodes do not run. None of them is in
    the result: links through reroutes and bypassed nodes lead on to what feeds them, a primitive's value is written
    where it was linked to.

    `object_info` is the server's `/object_info`. Raises WorkflowError for a node type it lacks and for subgraphs.
    """
    if "nodes" not in workflow:
        raise WorkflowError(
            "not a saved workflow: it has no 'nodes'. Save it from ComfyUI with Workflow > Save, not Export (API)"
        )
    graph = _Graph(workflow)
    prompt = {}
    for node in graph.nodes.values():
        if node["type"] in NOTES | {REROUTE, PRIMITIVE} or node.get("mode", 0) in (MUTED, BYPASSED):
            continue
        info = _info(node, graph, object_info)
        inputs = {name: _literal(value) for name, value in _widget_values(node, info).items()}
        for socket in node.get("inputs") or []:
            source = graph.source(socket.get("link"))
            if source is not None:
                inputs[socket["name"]] = source
        title = node.get("title") or info.get("display_name") or node["type"]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs, "_meta": {"title": title}}
    return prompt


def find_node(workflow: dict[str, Any], type: str, title: str | None = None) -> Node:
    """The one node of that type with that title (None: as its type is called).

    Raises WorkflowError, listing what there is, unless exactly one matches.
    """
    of_type = [node for node in workflow["nodes"] if node["type"] == type]
    matching = [node for node in of_type if node.get("title") == title]
    if len(matching) != 1:
        titles = sorted(str(node.get("title")) for node in of_type)
        raise WorkflowError(
            f"expected one {type} node titled {title!r}, found {len(matching)}; its {type} nodes are titled {titles}"
        )
    return matching[0]


def typed_widgets(node: Node, object_info: ObjectInfo) -> list[str]:
    """The node's widgets whose values are typed in: those that no link overrides.

    The browser's own nodes (notes, reroutes) have none.
    """
    if node["type"] not in object_info:
        return []
    linked = {socket["name"] for socket in node.get("inputs") or [] if socket.get("link") is not None}
    slots = widget_slots(object_info[node["type"]], node.get("widgets_values"))
    return [name for name in slots if name and name not in linked]


def set_widget(node: Node, name: str, value: object, object_info: ObjectInfo) -> None:
    """Type `value` into the node's widget `name`, in place, so that the graph saved with the result tells what ran."""
    where = f"node {node['id']} ({node['type']})"
    typed = typed_widgets(node, object_info)
    if name not in typed:
        raise WorkflowError(
            f"{where} has no widget {name!r} to type into; it has {typed}, and the others come from links"
        )
    values = node.setdefault("widgets_values", [])
    if isinstance(values, dict):
        values[name] = value
        return
    place = widget_slots(object_info[node["type"]], values).index(name)
    if place >= len(values):
        raise WorkflowError(
            f"{where}: its saved values end before {name!r}; open the workflow in ComfyUI and save it again"
        )
    values[place] = value


class _Graph:
    """Nodes and links by id, and the walk from a link back to the node that really feeds it."""

    def __init__(self, workflow: dict[str, Any]) -> None:
        self.nodes: dict[Any, Node] = {node["id"]: node for node in workflow["nodes"]}
        self.subgraphs = {graph["id"] for graph in (workflow.get("definitions") or {}).get("subgraphs") or []}
        self.links: dict[Any, tuple[Any, int]] = {}
        for link in workflow.get("links") or []:
            if isinstance(link, dict):  # the schema from litegraph 0.9 on
                self.links[link["id"]] = (link["origin_id"], link["origin_slot"])
            else:
                self.links[link[0]] = (link[1], link[2])

    def source(self, link: int | None) -> Any:
        """What the prompt holds for an input on this link.

        `[node id, output slot]`, a primitive's value, or None where nothing feeds it.
        """
        while link is not None:
            if link not in self.links or self.links[link][0] not in self.nodes:
                raise WorkflowError(
                    f"link {link} is used by a node but leads nowhere; save the workflow again from ComfyUI"
                )
            origin, slot = self.links[link]
            node = self.nodes[origin]
            if node.get("mode", 0) == MUTED:
                return None
            if node["type"] == PRIMITIVE:
                return _literal(node["widgets_values"][0])
            if node["type"] == REROUTE:
                link = node["inputs"][0].get("link")
            elif node.get("mode", 0) == BYPASSED:
                link = _bypass(node, slot)
            else:
                return [str(origin), slot]
        return None


def _bypass(node: Node, slot: int) -> int | None:
    """The link that passes through a bypassed node to its output `slot`.

    The input opposite, if the types fit, else the first that fits.
    """
    inputs = node.get("inputs") or []
    wanted = node["outputs"][slot]["type"]
    for socket in inputs[slot : slot + 1] + inputs:
        if socket["type"] == wanted or "*" in (socket["type"], wanted):
            return socket.get("link")
    return None


def _info(node: Node, graph: _Graph, object_info: ObjectInfo) -> dict[str, Any]:
    if node["type"] in graph.subgraphs:
        raise WorkflowError(
            f"node {node['id']} is a subgraph, which this converter does not expand: unpack it in ComfyUI and save"
            " again"
        )
    if node["type"] not in object_info:
        raise WorkflowError(
            f"node {node['id']}: this ComfyUI has no node type {node['type']!r}; is its custom node pack installed, or"
            " ComfyUI too old?"
        )
    return object_info[node["type"]]


def input_specs(info: dict[str, Any]) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Every input's (type, options), in the order in which the front-end lays them out."""
    specs = {}
    for group in ("required", "optional"):
        inputs = info["input"].get(group) or {}
        for name in info.get("input_order", {}).get(group, inputs):
            kind, *options = inputs[name]
            specs[name] = (kind, options[0] if options else {})
    return specs


def _is_widget(kind: Any, options: dict[str, Any]) -> bool:
    if options.get("forceInput") or options.get("hidden"):
        return False
    return isinstance(kind, list) or options.get("widgetType", kind) in WIDGET_TYPES | {DYNAMIC_COMBO}


def widget_slots(info: dict[str, Any], values: list | dict | None = None) -> list[str | None]:
    """Whose value each place of `widgets_values` holds.

    None stands for the browser's own controls, which the server never sees. A dynamic combo is followed by the inputs
    that its choice in `values` brings, as "combo.input"; without values, by those of its first.
    """
    return [name for name, _ in _widgets(info, values)]


def _widgets(info: dict[str, Any], values: list | dict | None) -> list[tuple[str | None, tuple[Any, dict[str, Any]]]]:
    """The name, or None, and the (type, options) of each place of `widgets_values`."""
    widgets: list[tuple[str | None, tuple[Any, dict[str, Any]]]] = []
    saved = values or []

    def lay_out(info: dict[str, Any], prefix: str) -> None:
        for name, (kind, options) in input_specs(info).items():
            if not _is_widget(kind, options):
                continue
            key: Any = prefix + name if isinstance(saved, dict) else len(widgets)
            widgets.append((prefix + name, (kind, options)))
            if options.get("control_after_generate", kind == "INT" and name in ("seed", "noise_seed")):
                widgets.append((None, (kind, options)))  # fixed | increment | randomize
                if kind == "COMBO" or isinstance(kind, list):
                    widgets.append((None, (kind, options)))  # a filter over the choices
            if kind == DYNAMIC_COMBO:
                known = key in saved if isinstance(saved, dict) else key < len(saved)
                chosen = saved[key] if known else default_value(kind, options)
                for option in options["options"]:
                    if option["key"] == chosen:
                        lay_out({"input": option["inputs"]}, f"{prefix}{name}.")

    lay_out(info, "")
    uploads = any(options.get(flag) for _, (_, options) in widgets for flag in UPLOADS)
    return [*widgets, (None, ("STRING", {}))] if uploads else widgets


def _widget_values(node: Node, info: dict[str, Any]) -> dict[str, Any]:
    """Value by widget name.

    A graph saved before the node gained an input lacks that input's value: its default stands in, as in the browser. A
    choice among nothing is left out, so that ComfyUI names it.
    """
    saved = node.get("widgets_values") or []
    widgets = _widgets(info, saved)
    named = saved if isinstance(saved, dict) else dict(zip([name for name, _ in widgets], saved, strict=False))
    values = {name: named[name] if name in named else default_value(*spec) for name, spec in widgets if name}
    return {name: value for name, value in values.items() if value is not None}


def default_value(kind: Any, options: dict[str, Any]) -> Any:
    """What the browser shows in a new widget; None where there is nothing to choose from, such as no models."""
    if "default" in options:
        return options["default"]
    if isinstance(kind, list) or kind == "COMBO":
        choices = kind if isinstance(kind, list) else options.get("options")
        return choices[0] if choices else None
    if kind == DYNAMIC_COMBO:
        return options["options"][0]["key"]
    return {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}[options.get("widgetType", kind)]


def _literal(value: Any) -> Any:
    """A list would be read as a link `[node id, slot]`, so the protocol wraps it."""
    return {"__value__": value} if isinstance(value, list) else value
