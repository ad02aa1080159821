"""What people do in the real front end: drop a workflow, run it, watch the video, drop the video."""

from __future__ import annotations

import json

import pytest

from scripts.graphs import FOLDER, QUICKSTART, WORKFLOWS
from scripts.workflow import find_node, set_widget, ui_to_api
from tests.browser.conftest import CLASSIC

QUICKSTART_FILE = FOLDER / f"{QUICKSTART}.json"


def expected_api(client, path):
    prompt = ui_to_api(json.loads(path.read_text()), client.object_info())
    return {key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in prompt.items()}


def seeded(client, path, seed):
    """The quickstart with another seed, which it keeps: the server would give the same graph's video from its cache."""
    workflow = json.loads(QUICKSTART_FILE.read_text())
    sampler = find_node(workflow, "VC2Sampler")
    set_widget(sampler, "seed", seed, client.object_info())
    sampler["widgets_values"][1] = "fixed"
    path.write_text(json.dumps(workflow))
    return path


def test_dropped_run_watched_and_dropped_again(canvas, client, server, request, tmp_path):
    """The whole life of a workflow; the video that it made brings it back."""
    path = seeded(client, tmp_path / "workflow.json", 11 + len(request.node.callspec.id))
    canvas.drop(path)
    canvas.show_graph()
    assert canvas.missing_nodes() == []
    assert canvas.api() == expected_api(client, path)
    before = set(server.output.rglob("*.mp4"))
    canvas.run()
    canvas.wait_for_video()
    canvas.screenshot(f"quickstart-{request.node.callspec.id}")
    assert "failed to load" not in canvas.page.inner_text("body")
    (video,) = set(server.output.rglob("*.mp4")) - before
    canvas.clear()
    canvas.drop(video)
    assert canvas.api() == expected_api(client, path)
    assert canvas.errors == []


@pytest.mark.parametrize("way", ["choose_file", "open_template"])
@CLASSIC
def test_other_ways_to_load(canvas, client, way):
    if way == "choose_file":
        canvas.choose_file(QUICKSTART_FILE)
    else:
        canvas.open_template(QUICKSTART)
    assert canvas.missing_nodes() == []
    assert canvas.api() == expected_api(client, QUICKSTART_FILE)
    assert canvas.errors == []


def test_every_workflow_loads_as_the_tests_read_it(canvas, client, request):
    for name in WORKFLOWS:
        path = FOLDER / f"{name}.json"
        canvas.clear()
        canvas.drop(path)
        assert canvas.missing_nodes() == [], name
        assert canvas.api() == expected_api(client, path), name
        canvas.show_graph()
        canvas.screenshot(f"{path.stem}-{request.node.callspec.id}")
    assert canvas.errors == []


@CLASSIC
def test_the_help_page_opens(canvas):
    canvas.drop(QUICKSTART_FILE)
    canvas.show_graph()
    canvas.help("VC2Sampler").wait_for()
    canvas.page.wait_for_function("document.querySelector('.node-help-content').innerText.includes('25 for a draft')")
    canvas.screenshot("help", whole_graph=False)
    assert canvas.errors == []
