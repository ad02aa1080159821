"""docs/graph.png: the quickstart on the canvas, after a run. `python -m scripts.picture` makes it again."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from .canvas import FLAGS, Canvas, chromium
from .client import Client
from .comfyui import ROOT, Server
from .graphs import FOLDER, QUICKSTART

TARGET = ROOT / "docs" / "graph.png"
WIDTH, MARGIN = 1200, 20
CORNER = 160, 160  # clear of the menus
SHOW = """([x, y, scale, left, top]) => {
  app.canvas.deselectAll?.();
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset = [left / scale - x, top / scale - y];
  app.canvas.setDirty(true, true);
}"""


def graph_picture(server: Server, target: Path = TARGET) -> None:
    """Run the quickstart in the browser and keep what the canvas shows.

    With Nodes 2.0 where they are no early trial.
    """
    workflow = json.loads((FOLDER / f"{QUICKSTART}.json").read_text(encoding="utf-8"))
    workflow["extra"].pop("linearMode")  # as a graph, not as an app
    left, top, right, bottom = _bounds(workflow)
    scale = (WIDTH - 2 * MARGIN) / (right - left)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1900, "height": 1300})
        canvas = Canvas(page, server.url, nodes_2=Client(server.url).comfyui_version >= (0, 28)).open()
        path = Path(folder) / "graph.json"
        path.write_text(json.dumps(workflow))
        canvas.drop(path)
        canvas.run()
        canvas.wait_for_video()
        page.evaluate(SHOW, [left, top, scale, CORNER[0] + MARGIN, CORNER[1] + MARGIN])
        page.wait_for_timeout(2000)  # until the outline of the node that ran last has gone
        height = round((bottom - top) * scale) + 2 * MARGIN
        shot = Path(folder) / "graph.png"
        page.screenshot(path=shot, clip={"x": CORNER[0], "y": CORNER[1], "width": WIDTH, "height": height})
        browser.close()
        Image.open(shot).convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT).save(shot, optimize=True)
        shutil.copy(shot, target)


def _bounds(workflow: dict[str, Any]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of all groups and nodes, in pixels of the canvas."""
    boxes = [group["bounding"] for group in workflow["groups"]]
    boxes += [[*node["pos"], *node["size"]] for node in workflow["nodes"]]
    return (
        min(x for x, _, _, _ in boxes),
        min(y for _, y, _, _ in boxes),
        max(x + width for x, _, width, _ in boxes),
        max(y + height for _, y, _, height in boxes),
    )


if __name__ == "__main__":
    with Server(cpu=True) as server:
        graph_picture(server)
    print(TARGET)
