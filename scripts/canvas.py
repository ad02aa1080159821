"""ComfyUI's own front end in headless Chromium, and what a person does with it."""

from __future__ import annotations

import base64
import mimetypes
import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from playwright.sync_api import ConsoleMessage, Locator, Page

# A folder for pictures of what was seen; without it none are taken, which cost a second each.
ARTEFACTS = os.environ.get("ARTEFACTS")
PATIENCE = 180_000.0  # milliseconds; a busy machine takes minutes for what a quiet one does in seconds
APP = "[data-testid=linear-widgets]"
TEMPLATE = "template-workflow-"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# What earlier pages of this server left, and a banner that comes once.
FORGET = """localStorage.clear(); sessionStorage.clear(); localStorage.setItem("vueNodesBannerDismissed", "true")"""
# A veil lies over the page while it starts; what comes too early leaves it there for good.
READY = """window.app?.graph && app.extensionManager && !app.extensionManager.spinner
  && !document.querySelector(".p-blockui-mask") && Object.keys(LiteGraph.registered_node_types).length > 10"""
# In a dialog, or since 1.42 in a panel.
MISSING_MODELS = """() => {
  const stores = document.querySelector("#vue-app").__vue_app__.config.globalProperties.$pinia.state.value;
  const shown = stores.dialog.dialogStack.flatMap(dialog => dialog.contentProps?.missingModels ?? []);
  return [...shown, ...(stores.missingModel?.missingModelCandidates ?? [])]
    .map(({ name, directory, url }) => ({ name, directory, url }));
}"""
# Where on the page the button of a node is that the canvas draws.
BUTTON = """label => {
  const shows = widget => (widget.label ?? widget.name) == label;
  const node = app.graph._nodes.find(node => node.widgets?.some(shows));
  const widget = node.widgets.find(shows);
  const { scale, offset } = app.canvas.ds;
  const { left, top } = app.canvas.canvas.getBoundingClientRect();
  const [x, y] = [node.pos[0] + node.size[0] / 2, node.pos[1] + (widget.last_y ?? widget.y) + 10];
  return [left + (x + offset[0]) * scale, top + (y + offset[1]) * scale];
}"""
SHOWN = """ending => {
  const node = app.graph._nodes.find(node => node.type == "VC2SaveVideo");
  const drawn = node.previewMediaType == "image" ? (node.imgs ?? []).map(image => image.src) : [];
  const onNodes = e => e.closest(".dom-widget, [data-node-id]");
  const players = [...document.querySelectorAll("video, video source, img")].filter(onNodes);
  const files = [...drawn, ...players.map(e => e.currentSrc || e.src || "")].filter(url => url.includes("vc2_"));
  return files.length > 0 && files.every(url => url.includes(ending));
}"""
TYPE = """([kind, name, value]) => {
  const node = app.graph._nodes.find(node => node.type == kind);
  const widget = node.widgets.find(widget => widget.name == name);
  widget.value = value;
  widget.callback?.(value);
}"""
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
    """ComfyUI's editor on a page, once it is told to `open`.

    `errors` are what the browser's console has told of, in a form that is the same on another server, and without what
    is in `noise`: what the front end does by itself.
    """

    def __init__(self, page: Page, url: str, nodes_2: bool = False, noise: Collection[str] = (), language: str = "en"):
        self.page, self.url, self.noise = page, url, noise
        self.errors: list[str] = []
        self._settings: dict[str, Any] = {
            "Comfy.VueNodes.Enabled": nodes_2,
            "Comfy.TutorialCompleted": True,
            "Comfy.Locale": language,
        }
        page.set_default_timeout(PATIENCE)
        page.on("console", self._listen)
        page.on("pageerror", lambda error: self._note(str(error)))
        page.add_init_script(FORGET)
        self._used_up = True  # nothing is open yet

    def open(self) -> Canvas:
        """With an empty graph, and loaded only where that takes it: at first, and after what stays on the page.
        `errors` are then those of loading it, or none.
        """
        self.errors.clear()
        if not self._used_up and not self.shows_app():
            self.clear()
        if self._used_up or self.shows_app() or self.page.locator("[role=dialog]").count():
            self.page.request.post(f"{self.url}/settings", data=self._settings)
            self.page.goto(self.url)
            self.page.wait_for_function(READY)
            self.page.evaluate("app.graph.clear()")
            # With Nodes 2.0 a node keeps the place that one of its number had in a graph that was taken away.
            self._used_up = self._settings["Comfy.VueNodes.Enabled"]
        return self

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._note(f"{message.text} ({message.location.get('url', '')})")

    def _note(self, message: str) -> None:
        message = message.splitlines()[0].replace(self.url, "")
        message = re.sub(r"https?://([^/'\s]+)[^'\s]*", r"\1", message)  # which file of a site is no matter
        message = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+", "#", message)
        if message not in self.noise:
            self.errors.append(message)

    def drop(self, path: Path) -> None:
        """Drag a file onto the canvas."""
        kind = mimetypes.guess_type(path, strict=False)[0]
        self.page.evaluate(DROP, [path.name, kind, base64.b64encode(path.read_bytes()).decode()])
        self.wait_for_graph()

    def choose_file(self, path: Path) -> None:
        """Workflow > Open."""
        self.page.set_input_files("#comfy-file-input", str(path))
        self.wait_for_graph()

    def search_templates(self, words: str) -> set[str]:
        """The names of the templates that a search finds; the browser of templates stays open."""
        self._used_up = True  # a hundred moving pictures go on moving behind the dialog when it is closed
        self.page.click(".templates-tab-button")
        box = self.page.locator("[role=dialog] input[placeholder*=Search]").first
        box.wait_for()
        box.fill(words)
        self.page.wait_for_timeout(2000)  # the search waits for the typing to end
        shown: set[str] = set()
        while (now := self._templates()) != shown:
            self.page.wait_for_timeout(500)
            shown = now
        return shown

    def _templates(self) -> set[str]:
        ids = self.page.eval_on_selector_all(f"[data-testid^={TEMPLATE}]", "cards => cards.map(c => c.dataset.testid)")
        return {str(name).removeprefix(TEMPLATE) for name in ids}

    def open_template(self, name: str) -> None:
        """From the browser of templates, as a search finds it."""
        self.search_templates(name)
        self.page.click(f"[data-testid={TEMPLATE}{name}]")
        self.wait_for_graph()

    def wait_for_pictures(self) -> None:
        """Until those that are on the page have been loaded."""
        self.page.wait_for_function("[...document.images].every(image => image.complete)")
        self.page.wait_for_timeout(1000)  # they fade in

    def close_dialogs(self) -> None:
        self.page.keyboard.press("Escape")
        self.page.wait_for_timeout(500)  # a dialog that still closes would take the next of its kind with it

    def clear(self) -> None:
        """Close what lies over the canvas, and empty it."""
        self.close_dialogs()
        self.page.evaluate("app.graph.clear()")

    def wait_for_graph(self) -> None:
        self.page.wait_for_function("app.graph?._nodes.length > 0")
        self.page.wait_for_timeout(500)  # widgets take their values a moment after the nodes are there

    def missing_nodes(self) -> list[str]:
        return self.page.evaluate(
            "app.graph._nodes.filter(n => !LiteGraph.registered_node_types[n.type] && n.type != 'MarkdownNote').map(n"
            " => n.type)"
        )

    def missing_models(self, name: str) -> list[dict[str, str]]:
        """Name, directory and url of the weights that the front end says are missing, once that one is among them."""
        self.page.wait_for_function(f"name => ({MISSING_MODELS})().some(model => model.name == name)", arg=name)
        return self.page.evaluate(MISSING_MODELS)

    def api(self) -> dict[str, Any]:
        """The prompt that the queue button would send, less the preview that LoadVideo adds where its file exists."""
        prompt = self.page.evaluate("app.graphToPrompt().then(p => p.output)")
        for node in prompt.values():
            node["inputs"].pop("video-preview", None)
        return {key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in prompt.items()}

    def fit(self) -> None:
        """Show the whole graph."""
        self.page.evaluate("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        self.page.wait_for_timeout(700)

    def press(self, label: str) -> None:
        """The button of that name on a node."""
        self.fit()
        button = self.page.locator("[data-node-id]").get_by_role("button", name=label, exact=True)  # no side panel's
        if button.count():
            button.click()
        else:
            self.page.mouse.click(*self.page.evaluate(BUTTON, label))

    def lists_blueprints(self) -> bool:
        """Whether the front end asks the server for subgraphs that packs bring."""
        return self.page.evaluate("typeof app.api.getGlobalSubgraphs == 'function'")

    def add_node(self, title: str) -> None:
        """As a search for nodes finds it. Nothing tells that its list is complete, so it is asked with more patience
        where nothing came of it.
        """
        for patience in (1000, 4000, 15_000):
            self.page.mouse.dblclick(1000, 500)
            self.page.wait_for_timeout(patience)
            self.page.keyboard.type(title)
            self.page.wait_for_timeout(2 * patience)
            self.page.keyboard.press("Enter")
            self.page.wait_for_timeout(patience)
            self.page.mouse.click(1000, 500)  # newer front ends let it hang on the pointer first
            self.page.wait_for_timeout(patience)
            if self.page.evaluate("app.graph._nodes.length"):
                break
            self.page.keyboard.press("Escape")
        self.wait_for_graph()

    def help(self, kind: str) -> Locator:
        """Open the help page of the graph's only node of that kind."""
        self._used_up = True  # it stays open
        self.page.evaluate("kind => app.canvas.selectNode(app.graph._nodes.find(n => n.type == kind))", kind)
        self.page.click("[data-testid=info-button]")
        return self.page.locator(".node-help-content")

    def run(self) -> None:
        self.page.click("[data-testid=queue-button] button, button[data-testid=queue-button]")

    def version(self) -> tuple[int, ...]:
        """The front end's."""
        return tuple(int(n) for n in self.page.evaluate("__COMFYUI_FRONTEND_VERSION__").split(".")[:2])

    def type_into(self, kind: str, widget: str, value: Any) -> None:
        """A value for a widget of the graph's only node of that kind."""
        self.page.evaluate(TYPE, [kind, widget, value])

    def shows_app(self) -> bool:
        return self.page.locator(APP).count() > 0

    def wait_for_app(self) -> None:
        self.page.wait_for_selector(APP)

    def show_graph(self) -> None:
        """Of a workflow that opens as an app, where the front end has that."""
        if self.shows_app():
            self._used_up = True
            self.skip_tour()
            self.page.evaluate("app.extensionManager.command.execute('Comfy.ToggleLinear')")
            self.page.wait_for_function(f"!document.querySelector('{APP}')")

    def skip_tour(self) -> None:
        """Of app mode, which newer front ends offer the first time."""
        self.page.wait_for_timeout(1000)
        skip = self.page.get_by_role("button", name="Skip", exact=True)
        if skip.count():
            skip.click()

    def wait_for_video(self) -> None:
        """Until a video is on the page, decoded."""
        self.page.wait_for_function("[...document.querySelectorAll('video')].some(v => v.videoWidth > 0)")

    def wait_for_shown(self, ending: str) -> None:
        """Until the saving node shows files with that ending and no others."""
        self.page.wait_for_function(SHOWN, arg=ending)

    def screenshot(self, name: str, whole_graph: bool = True) -> None:
        """Into the folder that ARTEFACTS names: of the graph, or of the page as it is."""
        if ARTEFACTS:
            if whole_graph:
                self.close_dialogs()
                self.fit()
            picture(self.page, name)


def picture(page: Page, name: str, **options: Any) -> None:
    """Of the page, into the folder that ARTEFACTS names, if it does."""
    if ARTEFACTS:
        page.screenshot(path=Path(ARTEFACTS) / f"{name}.png", **options)
