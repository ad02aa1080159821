"""The same deeds on a ComfyUI without the pack: whatever the console says there is the front end's own noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext

from scripts.canvas import Canvas


def _node(id_: int, kind: str, values: list[Any], inputs: dict[str, tuple[str, int]], output: str) -> dict[str, Any]:
    return {
        "id": id_,
        "type": kind,
        "pos": [350 * id_, 200],
        "size": [300, 200],
        "flags": {},
        "order": id_,
        "mode": 0,
        "inputs": [{"name": name, "type": type_, "link": link} for name, (type_, link) in inputs.items()],
        "outputs": [{"name": output, "type": output, "links": [id_] if id_ < 3 else []}],
        "properties": {},
        "widgets_values": values,
    }


def workflow(**extra: Any) -> dict[str, Any]:
    """Frames of one colour become a video."""
    nodes = [
        _node(1, "EmptyImage", [64, 64, 8, 255], {}, "IMAGE"),
        _node(2, "CreateVideo", [8], {"images": ("IMAGE", 1)}, "VIDEO"),
        _node(3, "SaveVideo", ["video/stock", "auto", "auto"], {"video": ("VIDEO", 2)}, "VIDEO"),
    ]
    links = [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "VIDEO"]]
    return {
        "last_node_id": 3,
        "last_link_id": 2,
        "nodes": nodes,
        "links": links,
        "groups": [],
        "config": {},
        "extra": extra,
        "version": 0.4,
    }


def without_its_model() -> dict[str, Any]:
    """A workflow whose loader names weights that are not here, and where they are."""
    name, hub = "sd_xl_base_1.0.safetensors", "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0"
    loader = _node(1, "CheckpointLoaderSimple", [name], {}, "MODEL") | {"outputs": []}
    models = [{"name": name, "url": f"{hub}/resolve/main/{name}", "directory": "checkpoints"}]
    loader["properties"] = {"models": models}
    return workflow() | {"nodes": [loader], "links": []}


# A node of a name that ours has too, with one help page for every language: what the front end says when it looks for
# the language's own is the same then.
HELPED = """
class Helped:
    FUNCTION, CATEGORY, RETURN_TYPES = "run", "stock", ()
    INPUT_TYPES = classmethod(lambda cls: {"required": {}})

    def run(self):
        return ()


NODE_CLASS_MAPPINGS = {"VC2Sampler": Helped}
WEB_DIRECTORY = "./web"
"""


def pack(folder: Path) -> Path:
    """What is linked in instead of ours: a node that does nothing, and its help page."""
    (folder / "web" / "docs").mkdir(parents=True)
    (folder / "web" / "docs" / "VC2Sampler.md").write_text("# A page")
    (folder / "__init__.py").write_text(HELPED)
    return folder


def noise(editors: BrowserContext, url: str, output: Path, nodes_2: bool, scratch: Path) -> set[str]:
    """What the console says while someone does with stock nodes what the tests do with ours; what is done beside the
    nodes is the same with Nodes 2.0, and done without them.
    """

    def saved(content: dict[str, Any]) -> Path:
        path = scratch / "stock.json"
        path.write_text(json.dumps(content))
        return path

    heard: set[str] = set()
    canvas = Canvas(editors.new_page(), url, nodes_2=nodes_2).open()
    if not nodes_2:
        canvas.choose_file(saved(workflow()))
        canvas.clear()
        helped = _node(1, "VC2Sampler", [], {}, "NONE") | {"outputs": []}
        canvas.drop(saved(workflow() | {"nodes": [helped], "links": []}))
        canvas.help("VC2Sampler").wait_for()
        canvas.clear()
        canvas.search_templates("video")
        canvas.page.wait_for_timeout(1000)
        heard |= set(canvas.errors)
        canvas.open()
    canvas.page.evaluate("fetch('/favicon.ico')")  # which Chromium asks for when it likes
    canvas.drop(saved(workflow()))
    canvas.run()
    canvas.wait_for_video()
    canvas.screenshot(f"stock-{nodes_2}")
    canvas.clear()
    canvas.drop(max(output.rglob("*.mp4"), key=lambda path: path.stat().st_mtime))
    canvas.clear()
    canvas.drop(saved(without_its_model()))
    canvas.page.wait_for_timeout(1000)
    canvas.clear()
    canvas.drop(saved(workflow(linearMode=True, linearData={"inputs": [[1, "width"]], "outputs": [3]})))
    canvas.show_graph()
    canvas.page.wait_for_timeout(1000)
    canvas.page.close()
    return heard | set(canvas.errors)
