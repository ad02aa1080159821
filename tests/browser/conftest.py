"""Chromium, the editor in both its generations, and a ComfyUI without the pack to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest
from playwright.sync_api import Browser, BrowserContext, ViewportSize, sync_playwright

from scripts.canvas import FLAGS, Canvas, chromium
from scripts.comfyui import Server
from tests.browser import stock

Noise = Callable[[bool], set[str]]
CLASSIC = pytest.mark.parametrize("editor", [False], ids=["classic"], indirect=True)
VIEWPORT = ViewportSize(width=1920, height=1000)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = chromium()
    if path is None:
        pytest.skip("no Chromium here (on Debian: apt install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def editors(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    """Opens pages for the editor with one cache for all, as a person's browser has it: the front end is megabytes of
    scripts, and reading them anew takes most of the time of opening it.
    """
    with browser.browser_type.launch_persistent_context(
        tmp_path_factory.mktemp("profile"), executable_path=chromium(), args=FLAGS, viewport=VIEWPORT
    ) as context:
        yield context


@pytest.fixture(scope="session")
def noise(editors: BrowserContext, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Noise]:
    """What the front end says by itself, with Nodes 2.0 or without: heard on a ComfyUI without the pack."""
    folder = tmp_path_factory.mktemp("stock")
    with Server(cpu=True, base=folder / "base", pack=stock.pack(folder / "pack")) as server:
        heard = cache(lambda nodes_2: stock.noise(editors, server.url, server.output, nodes_2, folder))
        yield lambda nodes_2: heard(False) | heard(nodes_2)


@pytest.fixture(scope="session", params=[False, True], ids=["classic", "nodes2"])
def editor(request, editors, server, client, noise) -> Iterator[Canvas]:
    """One page with each generation of nodes, for all tests."""
    if request.param and client.comfyui_version < (0, 3, 75):
        pytest.skip("the Nodes 2.0 of this ComfyUI's front end are an early trial that shows no videos")
    page = editors.new_page()
    yield Canvas(page, server.url, nodes_2=request.param, noise=noise(request.param))
    page.close()


@pytest.fixture
def canvas(editor) -> Canvas:
    """The editor with nothing in it, once with each generation of nodes; `@CLASSIC` tests run with one alone."""
    return editor.open()
