"""What a pack does that is at home in the front end: templates, missing weights, the app, the blueprint, languages."""

from __future__ import annotations

import json
import re

import pytest

from scripts.blueprint import FILE, NAME, SHOWN, text_to_video
from scripts.canvas import Canvas
from scripts.client import Client
from scripts.graph import DOWNLOADS, OFFICIAL
from scripts.graphs import FOLDER, QUICKSTART, WORKFLOWS
from scripts.thumbnails import miniature
from scripts.workflow import find_node, set_widget, ui_to_api
from tests.browser.conftest import CLASSIC
from tests.browser.test_browser import expected_api

QUICKSTART_FILE = FOLDER / f"{QUICKSTART}.json"
TEXT_TO_VIDEO = "VideoCrafter2_2_Text_to_Video"
TEMPLATES = {name for name in WORKFLOWS if "/" not in name}
NAMES_THE_MODEL = [name for name in WORKFLOWS if OFFICIAL in (FOLDER / f"{name}.json").read_text(encoding="utf-8")]
APP_MODE = (1, 41)


@CLASSIC
def test_a_search_finds_the_templates(canvas):
    assert canvas.search_templates("videocrafter") == TEMPLATES
    canvas.wait_for_pictures()
    canvas.screenshot("templates", whole_graph=False)
    assert canvas.errors == []


@CLASSIC
def test_missing_weights_are_named_with_folder_and_address(canvas, tmp_path):
    """Of every graph that needs them: the front end offers a download, or says where to get the file."""
    folder, url = DOWNLOADS[OFFICIAL]
    for number, file in enumerate([*(FOLDER / f"{name}.json" for name in NAMES_THE_MODEL), FILE]):
        # Other tests put a stand-in where the official file belongs, and the front end may still know of the last one.
        absent = f"absent-{number}.ckpt"
        path = tmp_path / file.name
        path.write_text(file.read_text().replace(OFFICIAL, absent))
        canvas.clear()
        canvas.drop(path)
        missing = {"name": absent, "directory": folder, "url": url.replace(OFFICIAL, absent)}
        assert missing in canvas.missing_models(absent), file.name
    canvas.screenshot("missing-weights", whole_graph=False)
    assert canvas.errors == []


def test_the_quickstart_opens_as_an_app(canvas, request):
    """Where the front end has app mode; where that is an early trial, as a graph."""
    canvas.drop(QUICKSTART_FILE)
    if canvas.version() >= APP_MODE:
        canvas.wait_for_app()
        canvas.skip_tour()
        shown = canvas.page.inner_text("[data-testid=linear-widgets]")
        assert [label for label in ("text", "steps", "seed", "guidance", "width") if label in shown] == [
            "text",
            "steps",
            "seed",
        ]
    else:
        assert not canvas.shows_app()
        assert canvas.page.is_visible("#graph-canvas")
    canvas.screenshot(f"app-{request.node.callspec.id}", whole_graph=False)
    assert canvas.errors == []


def test_the_blueprint_is_a_node(canvas, request):
    """A workflow of one node anywhere; where the front end lists blueprints, its search finds it."""
    canvas.drop(FILE)
    asked = {key: node["inputs"] for key, node in canvas.api().items()}
    inside = [inputs for key, inputs in asked.items() if ":" in key]
    described = text_to_video().nodes
    assert len(inside) == len(asked) == len(described)
    values = [item for inputs in inside for item in inputs.items()]
    assert all((widget, described[node].inputs[widget]) in values for _, node, widget in SHOWN)
    canvas.screenshot(f"blueprint-{request.node.callspec.id}")
    canvas.clear()
    if canvas.lists_blueprints():
        canvas.add_node(NAME)
        added = {key: node["inputs"] for key, node in canvas.api().items()}
        assert without_outer_id(added) == without_outer_id(asked)
    assert canvas.errors == []


def without_outer_id(prompt):
    """The node that holds the others has another id each time it is added."""
    return re.sub(r'"\d+:', '"', json.dumps(prompt))


@pytest.mark.parametrize("name", ["VideoCrafter2_Prompt_Travel", "VideoCrafter2_Turbo_4_Steps"])
def test_a_button_tries_the_miniature(canvas, client: Client, name, request):
    """It makes the graph that made the thumbnail, and then the one that was there."""
    object_info = client.object_info()
    canvas.drop(FOLDER / f"{name}.json")
    canvas.close_dialogs()
    before = canvas.api()
    assert before == expected_api(client, FOLDER / f"{name}.json")
    canvas.press("Miniature on / off")
    small = ui_to_api(miniature(name, WORKFLOWS[name](), object_info), object_info)
    assert {key: node["inputs"] for key, node in canvas.api().items()} == {
        key: node["inputs"] for key, node in small.items()
    }
    canvas.screenshot(f"miniature-{request.node.callspec.id}")
    canvas.press("Miniature on / off")
    assert canvas.api() == before
    assert canvas.errors == []


def test_the_language_of_the_page(editors, server, noise):
    """Titles, groups and the note of a template are in it; what it computes is the same."""
    page = editors.new_page()
    canvas = Canvas(page, server.url, noise=noise(False), language="zh").open()
    canvas.drop(FOLDER / f"{TEXT_TO_VIDEO}.json")
    canvas.close_dialogs()
    titles = page.evaluate("app.graph._nodes.map(node => node.title)")
    assert {"提示词", "反向提示词", "说明"} <= set(titles)
    groups = page.evaluate("app.graph._groups.map(group => group.title)")
    note = page.evaluate("app.graph._nodes.find(node => node.type == 'MarkdownNote').widgets[0].value")
    assert all(re.search("[\u4e00-\u9fff]", text) for text in [*groups, note])
    canvas.screenshot("chinese")
    page.close()
    assert canvas.errors == []


@CLASSIC
def test_names_of_files_take_replacements(canvas):
    """As in the stock save nodes."""
    canvas.drop(QUICKSTART_FILE)
    canvas.type_into("VC2SaveVideo", "filename_prefix", "video/%date:yyyy-MM-dd%/seed-%VC2Sampler.seed%")
    (save,) = [node for node in canvas.api().values() if node["class_type"] == "VC2SaveVideo"]
    assert re.fullmatch(r"video/\d{4}-\d\d-\d\d/seed-1", save["inputs"]["filename_prefix"])
    assert canvas.errors == []


@pytest.mark.parametrize("format", ["webp", "png"])
@CLASSIC
def test_pictures_bring_their_workflow_back(canvas, client: Client, server, format, tmp_path):
    object_info = client.object_info()
    workflow = json.loads(QUICKSTART_FILE.read_text())
    set_widget(find_node(workflow, "VC2SaveVideo"), "format", format, object_info)
    set_widget(find_node(workflow, "VC2Sampler"), "steps", 1, object_info)
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(workflow))
    file = client.run(ui_to_api(workflow, object_info), workflow=workflow).files[0]
    canvas.drop(server.output / file.subfolder / file.filename)
    assert canvas.api() == expected_api(client, path)
    assert canvas.errors == []


def test_the_node_shows_what_it_saved_last(canvas, client: Client, server, tmp_path):
    """A clip, then pictures, then another clip: never the one before."""
    workflow = json.loads(QUICKSTART_FILE.read_text())
    set_widget(find_node(workflow, "VC2Sampler"), "steps", 1, client.object_info())
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(workflow))
    canvas.drop(path)
    canvas.show_graph()
    for format in ("mp4", "webp", "webm"):
        canvas.type_into("VC2SaveVideo", "format", format)
        canvas.run()
        canvas.wait_for_shown(f".{format}")
    assert canvas.errors == []
