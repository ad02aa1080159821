"""One real ComfyUI for each process that runs tests, started when the first test asks for it; and the tests' order."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator

# The networks of the tests are too small to gain from threads, and threads that wait for one another are slow on a busy
# machine. Set before torch is imported; the server inherits it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Who starts the tests in the background has them ignore Ctrl-C, and so would every process that a test sends one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from hypothesis import settings

from scripts.client import Client
from scripts.comfyui import Server

# A busy machine makes any example late.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """ComfyUI on the CPU with this pack loaded. Its files lie under `server.base`, what it wrote is `server.log`."""
    base = tmp_path_factory.mktemp("comfyui")
    with Server(cpu=True, base=base, extra_args=["--preview-method", "latent2rgb"]) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Server) -> Client:
    """Speaks to `server`."""
    return Client(server.url)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        from tests.scheduling import rank

        items.sort(key=lambda item: rank(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object | None:
    if config.option.dist != "loadfile":
        return None
    from tests.scheduling import Scheduling

    config.option.loadscopereorder = False  # by how many tests a file has, which says little
    return Scheduling(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line on what was skipped; the reasons tell how to get it."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    if reasons:
        terminalreporter.write_line(f"skipped: {'; '.join(f'{n} x {reason}' for reason, n in reasons.items())}")
