"""Chromium, the editor in both its generations, and a ComfyUI without the pack to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest
from playwright.sync_api import Browser, sync_playwright

from scripts.canvas import FLAGS, Canvas, chromium
from scripts.comfyui import Server
from tests.browser import stock

Noise = Callable[[bool], set[str]]


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
def noise(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Noise]:
    """What the front end says by itself, with Nodes 2.0 or without: heard on a ComfyUI without the pack."""
    folder = tmp_path_factory.mktemp("stock")
    with Server(cpu=True, base=folder / "base", pack=stock.pack(folder / "pack")) as server:
        yield cache(lambda nodes_2: stock.noise(browser, server.url, server.output, nodes_2, folder))


def _opened(browser: Browser, server: Server, noise: Noise, nodes_2: bool) -> Iterator[Canvas]:
    heard = noise(nodes_2)
    page = browser.new_page(viewport={"width": 1920, "height": 1000})
    yield Canvas(page, server.url, nodes_2=nodes_2, noise=heard)
    page.close()


@pytest.fixture(params=[False, True], ids=["classic", "nodes2"])
def canvas(request, browser, server, client, noise) -> Iterator[Canvas]:
    """The editor, once with each generation of nodes."""
    if request.param and client.comfyui_version < (0, 3, 75):
        pytest.skip("the Nodes 2.0 of this ComfyUI's front end are an early trial that shows no videos")
    yield from _opened(browser, server, noise, request.param)


@pytest.fixture
def classic(browser, server, noise) -> Iterator[Canvas]:
    yield from _opened(browser, server, noise, False)
