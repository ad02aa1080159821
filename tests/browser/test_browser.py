"""What people do in the real front end: drop a workflow, run it, watch the video, drop the video."""

from __future__ import annotations

import json

import pytest

from scripts.graph import DOWNLOADS, OFFICIAL
from scripts.graphs import FOLDER, QUICKSTART, WORKFLOWS
from scripts.workflow import find_node, set_widget, ui_to_api
from scripts.canvas import FLAGS, Canvas, chromium

CHROMIUM = chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (on Debian: apt install chromium)")
QUICKSTART_FILE = FOLDER / f"{QUICKSTART}.json"


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(params=[False, True], ids=["classic", "nodes2"])
def canvas(request, browser, server, client):
    if request.param and client.comfyui_version < (0, 3, 75):
        pytest.skip("the Nodes 2.0 of this ComfyUI's front end are an early trial that shows no videos")
    page = browser.new_page(viewport={"width": 1920, "height": 1000})
    yield Canvas(page, server.url, nodes_2=request.param)
    page.close()


@pytest.fixture
def classic(browser, server):
    page = browser.new_page(viewport={"width": 1920, "height": 1000})
    yield Canvas(page, server.url)
    page.close()


def expected_api(client, path):
    prompt = ui_to_api(json.loads(path.read_text()), client.object_info())
    return {key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in prompt.items()}


def test_dropped_run_watched_and_dropped_again(canvas, client, server, request, tmp_path):
    """The whole life of a workflow; the video that it made brings it back."""
    workflow = json.loads(QUICKSTART.read_text())
    # A seed for each run: the server would give the same graph's video from its cache.
    seed = 11 + len(request.node.callspec.id)
    set_widget(find_node(workflow, "VC2Sampler"), "seed", seed, client.object_info())
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(workflow))
    canvas.drop(path)
    assert canvas.missing_nodes() == []
    assert canvas.api() == expected_api(client, path)
    before = set(server.output.rglob("*.mp4"))
    canvas.run()
    canvas.wait_for_video()
    canvas.screenshot(f"quickstart-{request.node.callspec.id}")
    assert "failed to load" not in canvas.page.inner_text("body")
    (video,) = set(server.output.rglob("*.mp4")) - before
    canvas.page.evaluate("app.graph.clear()")
    canvas.drop(video)
    assert canvas.api() == expected_api(client, path)
    assert canvas.errors == []


@pytest.mark.parametrize("way", ["choose_file", "open_template"])
def test_other_ways_to_load(classic, client, way):
    if way == "choose_file":
        classic.choose_file(QUICKSTART)
    else:
        classic.open_template("quickstart")
    assert classic.missing_nodes() == []
    assert classic.api() == expected_api(client, QUICKSTART)
    assert classic.errors == []


def test_every_workflow_loads_as_the_tests_read_it(classic, client):
    for name in WORKFLOWS:
        path = FOLDER / f"{name}.json"
        classic.page.evaluate("app.graph.clear()")
        classic.drop(path)
        assert classic.missing_nodes() == [], name
        assert classic.api() == expected_api(client, path), name
        classic.screenshot(f"workflow-{name}")
        classic.page.keyboard.press("Escape")  # the dialog that offers the weights which are not here
    assert classic.errors == []


def test_missing_weights_are_named_with_folder_and_address(classic):
    """The front end offers a download for safetensors only; of the official .ckpt it shows where to get it."""
    folder, url = DOWNLOADS[OFFICIAL]
    classic.drop(FOLDER / "text_to_video.json")
    row = classic.page.get_by_role("dialog").get_by_text(f"{folder} / {OFFICIAL}", exact=True)
    row.wait_for(timeout=10_000)
    assert row.get_attribute("title") == url
    classic.screenshot("missing-weights")


def test_the_help_page_opens(classic):
    classic.drop(QUICKSTART)
    classic.page.evaluate("app.canvas.selectNode(app.graph._nodes.find(n => n.type == 'VC2Sampler'))")
    classic.page.click("[data-testid=info-button]")
    content = classic.page.locator(".node-help-content")
    content.wait_for(timeout=10_000)
    classic.page.wait_for_function(
        "document.querySelector('.node-help-content').innerText.includes('dynamic rescale')", timeout=10_000
    )
    classic.screenshot("help")
    assert classic.errors == []
