"""One real ComfyUI for the whole test run, started when the first test asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator

# The networks of the tests are too small to gain from threads, and threads that wait for one another are slow on a busy
# machine. Set before torch is imported; the server inherits it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from scripts.client import Client
from scripts.comfyui import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """ComfyUI on the CPU with this pack loaded. Its files lie under `server.base`, what it wrote is `server.log`."""
    with Server(
        cpu=True, base=tmp_path_factory.mktemp("comfyui"), extra_args=["--preview-method", "latent2rgb"]
    ) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Server) -> Client:
    """Speaks to `server`."""
    return Client(server.url)
