"""ComfyUI's own front end in headless Chromium, and what a person does with it."""

from __future__ import annotations

import base64
import os
import shutil
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from .comfyui import PACK_NAME, ROOT

ARTEFACTS = Path(os.environ.get("ARTEFACTS", ROOT / ".artefacts"))
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
READY = """window.app?.graph && app.extensionManager && !app.extensionManager.spinner
  && Object.keys(LiteGraph.registered_node_types).length > 10"""
# Messages of the front end itself, with or without this pack.
NOISE = (
    "reading 'id'",
    "api.comfy.org",
    "ERR_ABORTED",
    "templates",
    "favicon",
    "net::ERR_",
    "404 (Not Found)",
    "Failed to load resource",
    "Content Security",
    "fetching file size",
    "addSetting",  # in the stack of an error at the start of ComfyUI 0.3.64's front end
    "graph that was never set up",  # ComfyUI 0.8.0's, when a graph is cleared
)
DROP = """([name, type, data]) => {
  const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  const canvas = document.querySelector("#graph-canvas");
  const options = { dataTransfer: transfer, bubbles: true, cancelable: true, clientX: 800, clientY: 450 };
  for (const kind of ["dragenter", "dragover", "drop"]) canvas.dispatchEvent(new DragEvent(kind, options));
}"""


def chromium() -> str | None:
    """Where Chromium is, under one of the names that it goes by; None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Canvas:
    """A page with the editor open and its graph empty; `errors` are the console's, less the front end's own noise."""

    def __init__(self, page: Page, url: str, nodes_2: bool = False):
        self.page, self.errors = page, []
        page.on("console", self._listen)
        page.on("pageerror", self._fail)
        page.add_init_script("localStorage.setItem('vueNodesBannerDismissed', 'true')")
        page.request.post(f"{url}/settings", data={"Comfy.VueNodes.Enabled": nodes_2, "Comfy.TutorialCompleted": True})
        page.goto(url)
        page.wait_for_function(READY, timeout=120_000)
        page.evaluate("app.graph.clear()")

    def _fail(self, error: Any) -> None:
        if not any(noise in (error.stack or "") for noise in NOISE):
            self.errors.append(str(error))

    def _listen(self, message: Any) -> None:
        if message.type == "error" and not any(noise in message.text for noise in NOISE):
            self.errors.append(message.text)

    def drop(self, path: Path) -> None:
        """Drag a file onto the canvas."""
        kind = {".json": "application/json", ".mp4": "video/mp4", ".webm": "video/webm"}[path.suffix]
        self.page.evaluate(DROP, [path.name, kind, base64.b64encode(path.read_bytes()).decode()])
        self.wait_for_graph()

    def choose_file(self, path: Path) -> None:
        """Workflow > Open."""
        self.page.set_input_files("#comfy-file-input", str(path))
        self.wait_for_graph()

    def open_template(self, name: str) -> None:
        """From the Templates browser, under the pack's name."""
        self.page.click(".templates-tab-button")
        self.page.get_by_text(PACK_NAME, exact=False).first.click()
        self.page.click(f'[data-testid="template-workflow-{name}"]')
        self.wait_for_graph()

    def wait_for_graph(self) -> None:
        self.page.wait_for_function("app.graph._nodes.length > 0", timeout=30_000)
        self.page.wait_for_timeout(500)  # widgets take their values a moment after the nodes are there

    def missing_nodes(self) -> list[str]:
        return self.page.evaluate(
            "app.graph._nodes.filter(n => !LiteGraph.registered_node_types[n.type] && n.type != 'MarkdownNote').map(n"
            " => n.type)"
        )

    def api(self) -> dict[str, Any]:
        """The prompt that the queue button would send, less the preview that LoadVideo adds where its file exists."""
        prompt = self.page.evaluate("app.graphToPrompt().then(p => p.output)")
        for node in prompt.values():
            node["inputs"].pop("video-preview", None)
        return {key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in prompt.items()}

    def run(self) -> None:
        # Clicked by script: an overlay of the front end takes pointer events for a moment after loading.
        self.page.evaluate(
            "document.querySelector('[data-testid=queue-button] button, button[data-testid=queue-button]').click()"
        )

    def wait_for_video(self) -> None:
        """Until a video is on the page, decoded."""
        self.page.wait_for_function(
            "[...document.querySelectorAll('video')].some(v => v.videoWidth > 0)", timeout=180_000
        )

    def screenshot(self, name: str) -> None:
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        self.page.evaluate("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        self.page.wait_for_timeout(700)
        self.page.screenshot(path=ARTEFACTS / f"{name}.png")
