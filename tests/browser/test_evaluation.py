"""The pages of the evaluation in a real browser: the report of sets, and blind votes."""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from playwright.sync_api import Browser, Page

from scripts.canvas import picture
from tests.evaluation.scored import HOSTILE, PROMPTS, hashed, of_set
from vc2.evaluation import __main__ as command
from vc2.evaluation import suites
from vc2.evaluation.rate import votes
from vc2.evaluation.rate.server import Rating, application
from vc2.evaluation.rate.session import begin
from vc2.evaluation.rows import append_scores
from vc2.evaluation.sets import SCORES
from vc2.files.video import write_video

NAMES = ("ours", "theirs")


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> list[Path]:
    """Two sets of three prompts: a bright bar that moves over a ground that tells the set."""
    folder = tmp_path_factory.mktemp("sets")
    for level, name in enumerate(NAMES, 1):
        (folder / name).mkdir()
        for prompt in PROMPTS:
            frames = np.full((8, 64, 96, 3), 60 * level, np.uint8)
            for time in range(8):
                frames[time, :, 12 * time : 12 * time + 8] = 255
            write_video(folder / name / f"{prompt}-0.mp4", frames, 8)
        append_scores(folder / name / SCORES, hashed(folder / name, of_set(name, level)))
    return [folder / name for name in NAMES]


class Heard:
    """A page, and what its console said."""

    def __init__(self, browser: Browser, **options):
        self.context = browser.new_context(**options)
        self.page: Page = self.context.new_page()
        self.errors: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def screenshot(self, name: str) -> None:
        picture(self.page, name, full_page=True)


@pytest.fixture
def page(browser) -> Iterator[Heard]:
    heard = Heard(browser, viewport={"width": 1100, "height": 900})
    yield heard
    heard.context.close()


# The report


@pytest.fixture(scope="module")
def report(sets, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("report")
    arguments = ["report", *map(str, sets), "-o", str(out), "--title", HOSTILE, "--prompts", "3"]
    assert command.main(arguments) == 0
    return out / "report.html"


def test_the_report_opens_without_a_network_and_filters(page, report):
    page.context.set_offline(True)
    page.page.goto(report.as_uri())
    shown = "document.querySelectorAll('.cell:not([hidden])').length"
    total = page.page.evaluate(shown)
    assert total >= 6
    assert page.page.evaluate("[...document.images].every(image => image.complete && image.naturalHeight > 0)")
    assert page.page.inner_text("h1") == HOSTILE  # as text
    page.screenshot("report")
    page.page.uncheck("input[name=set][value=theirs]")
    assert page.page.evaluate(
        "[...document.querySelectorAll('.cell:not([hidden])')].every(c => c.dataset.set == 'ours')"
    )
    assert page.page.evaluate(shown) < total
    page.page.fill("#prompt", "PANDA")
    assert page.page.evaluate(
        "[...document.querySelectorAll('.cell:not([hidden])')].every(c => c.dataset.prompt.includes('panda'))"
    )
    page.page.fill("#prompt", "no such prompt")
    assert page.page.evaluate(shown) == 0
    page.page.fill("#prompt", "")
    page.page.check("input[name=set][value=theirs]")
    page.page.select_option("#seed", "0")
    assert page.page.evaluate(shown) == total
    assert [url for url in page.asked if not url.startswith(("file:", "data:"))] == []
    assert page.errors == []


def test_all_clips_play_in_step(page, report):
    page.page.goto(report.as_uri())
    moments = "document.getAnimations().map(a => Math.round(a.currentTime))"
    assert len(set(page.page.evaluate(moments))) == 1
    page.page.uncheck("input[name=set][value=theirs]")
    page.page.check("input[name=set][value=theirs]")  # hidden and shown again
    page.page.click("#pause")
    page.page.wait_for_function("document.getAnimations().every(a => a.playState == 'paused')")
    before = page.page.evaluate(moments)
    page.page.wait_for_timeout(300)
    assert page.page.evaluate(moments) == before
    page.page.click("#pause")
    page.page.wait_for_function("document.getAnimations().every(a => a.playState == 'running')")
    page.page.wait_for_timeout(100)
    assert len(set(page.page.evaluate(moments))) == 1
    assert page.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_fits_a_phone_in_both_themes(browser, report, scheme):
    phone = Heard(browser, viewport={"width": 390, "height": 800}, color_scheme=scheme)
    phone.page.goto(report.as_uri())
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390
    red = phone.page.evaluate("parseInt(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
    assert (red < 64) == (scheme == "dark")
    phone.screenshot(f"report-phone-{scheme}")
    assert phone.errors == []
    phone.context.close()


# Votes


@pytest.fixture
def rating(sets, tmp_path) -> Iterator[tuple[str, Path]]:
    """The page, on a port of its own, and the folder of its votes."""
    suite = tmp_path / "suite.jsonl"
    suite.write_text("".join(json.dumps({"id": id_, "prompt": text}) + "\n" for id_, text in PROMPTS.items()))
    folder = tmp_path / "votes"
    folder.mkdir()
    session = begin(sets, suites.load(str(suite)), ["visual", "motion"], None, 1, 0)
    session.save(folder)
    loop, ports = asyncio.new_event_loop(), queue.Queue[int]()

    async def start() -> web.AppRunner:
        runner = web.AppRunner(application(Rating(session, folder), "127.0.0.1"))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.put(runner.addresses[0][1])
        return runner

    def serve() -> None:  # in a thread: playwright's own loop runs in this one
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{ports.get(timeout=30)}/", folder
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_votes_by_keyboard_with_a_tie_an_undo_and_a_reload(page, rating):
    url, folder = rating
    page.page.goto(url)
    page.page.fill("#name", "Ada")
    page.page.press("#name", "Enter")

    def at(done: int) -> None:
        page.page.wait_for_function(f"document.querySelector('#count').textContent == '{done} of 6'", timeout=10_000)

    def press(key: str, done: int) -> None:
        page.page.wait_for_function("!busy")
        page.page.keyboard.press(key)
        at(done)

    at(0)
    page.page.wait_for_function("document.querySelectorAll('video').length == 2")
    page.page.wait_for_function("[...document.querySelectorAll('video')].every(v => v.readyState > 2 && !v.paused)")
    page.screenshot("rate")
    assert not any(name in page.page.content() for name in NAMES)
    press("ArrowLeft", 1)
    press("ArrowRight", 2)
    press(" ", 3)
    press("ArrowDown", 4)
    press("u", 3)
    assert [vote.choice for vote in votes.read(folder / "votes.jsonl")] == ["left", "right", "comparable"]
    page.page.reload()
    at(3)
    press("ArrowLeft", 4)
    press("ArrowLeft", 5)
    page.page.wait_for_function("!busy")
    page.page.keyboard.press("ArrowDown")
    page.page.wait_for_selector("#done:not([hidden])")
    assert page.errors == []
    assert not any(name in url for url in page.asked for name in (*NAMES, *PROMPTS))
    assert command.main(["rate", "-o", str(folder), "--tables"]) == 0
    tree = json.loads((folder / "results.json").read_text())
    cast = votes.read(folder / "votes.jsonl")
    assert len(cast) == 6
    for one in tree["versus"]:
        mine = [vote for vote in cast if vote.question == one["question"]]
        counted = [sum(vote.winner == name for vote in mine) for name in ("ours", None, "theirs")]
        assert [one[share]["votes"] for share in ("wins", "ties", "losses")] == counted
    assert sum(one["ties"]["votes"] for one in tree["versus"]) == 2


def test_the_rating_page_fits_a_phone_and_tells_when_a_vote_was_not_saved(browser, rating):
    url, folder = rating
    phone = Heard(browser, viewport={"width": 390, "height": 800}, color_scheme="dark", has_touch=True)
    phone.page.goto(url + "#Bob")
    phone.page.wait_for_selector("video")
    phone.page.wait_for_function("!busy")
    phone.screenshot("rate-phone")
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390
    (folder / "votes.jsonl").mkdir()  # the disk is full, say
    phone.page.tap("button.key[data-choice=right]")
    phone.page.wait_for_function("document.querySelector('#error').textContent.includes('not saved')")
    assert phone.page.inner_text("#count") == "0 of 6"
    (folder / "votes.jsonl").rmdir()
    phone.page.tap("button.key[data-choice=right]")
    phone.page.wait_for_function("document.querySelector('#count').textContent == '1 of 6'")
    phone.context.close()
