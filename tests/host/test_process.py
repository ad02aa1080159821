"""The server as a process: what it says when ComfyUI will not start, and that nothing outlives us.

A few lines of Python stand in for ComfyUI.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from scripts.comfyui import PACK_NAME, ComfyUIError, Server, comfyui_tree, free_port

ANSWERS = """
    import http.server, subprocess, sys
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
    port = int(sys.argv[sys.argv.index("--port") + 1])
    http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


HELPS = """
    import sys
    if "--help" in sys.argv:
        sys.exit(print({options!r}))
"""


@pytest.fixture
def comfyui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a stand-in for ComfyUI's tree whose main.py is the code given, with its options."""

    def make(code: str, options: str = "[--disable-api-nodes]") -> Path:
        tree = tmp_path / "tree"
        (tree / "comfy").mkdir(parents=True)
        (tree / "main.py").write_text(textwrap.dedent(HELPS.format(options=options)) + textwrap.dedent(code))
        monkeypatch.setenv("COMFYUI_PATH", str(tree))
        return tree

    return make


def gone(pid: int, seconds: float = 10.0) -> bool:
    """Whether the process ends within that time; one that has ended and that nobody has waited for counts as gone."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_a_tree_of_your_own_serves_instead(comfyui, tmp_path: Path) -> None:
    tree = comfyui(ANSWERS)
    assert comfyui_tree(tmp_path / "cache") == tree
    assert not (tmp_path / "cache").exists()


def test_a_wrong_path_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(ComfyUIError, match=r"no main\.py and no comfy there"):
        comfyui_tree()


def test_a_server_makes_its_folders_and_leaves_nothing(comfyui) -> None:
    comfyui(ANSWERS)
    with Server(cpu=True) as server:
        pid, base = server.pid, server.base
        assert (base / "custom_nodes" / PACK_NAME).resolve() == server.pack
        assert (base / "user" / "default" / "workflows").is_dir()
        assert server.running
    assert not server.running
    assert gone(pid)
    assert not base.exists()
    server.stop()  # a second time is harmless


def test_your_own_folder_stays(comfyui, tmp_path: Path) -> None:
    comfyui(ANSWERS)
    for _ in range(2):  # the second time, everything is there already
        with Server(cpu=True, base=tmp_path / "base", output=tmp_path / "videos") as server:
            assert "--cpu" in psutil.Process(server.pid).cmdline()
    assert (tmp_path / "videos").is_dir()
    assert (tmp_path / "base" / "comfyui.log").is_file()


@pytest.mark.parametrize(
    ("options", "used"),
    [
        ("[--disable-api-nodes]", {"--disable-api-nodes"}),
        ("[--disable-api-nodes] [--enable-assets]", {"--disable-api-nodes"}),
        ("[--offline] [--disable-api-nodes] [--disable-assets]", {"--offline", "--disable-assets"}),
        ("[--port PORT]", set()),
    ],
)
def test_options_are_those_that_this_comfyui_has(comfyui, options: str, used: set[str]) -> None:
    comfyui(ANSWERS, options)
    with Server(cpu=True) as server:
        given = psutil.Process(server.pid).cmdline()
    assert {"--offline", "--disable-api-nodes", "--disable-assets"} & set(given) == used
    assert "--front-end-root" not in given


def test_another_front_end_is_served(comfyui, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comfyui(ANSWERS)
    (tmp_path / "front-end-1.2.3").mkdir()
    monkeypatch.setattr("scripts.comfyui.front_end", lambda: tmp_path / "front-end-1.2.3")
    with Server(cpu=True) as server:
        given = psutil.Process(server.pid).cmdline()
        settings = json.loads((server.base / "user" / "default" / "comfy.settings.json").read_text())
    assert given[given.index("--front-end-root") + 1] == str(tmp_path / "front-end-1.2.3")
    assert settings["Comfy.InstalledVersion"] == "1.2.3"


def test_a_death_at_start_shows_the_log(comfyui) -> None:
    comfyui("import sys; sys.exit('no such option: --fancy')")
    with pytest.raises(ComfyUIError, match=r"(?s)exited with code 1.*no such option: --fancy"):
        Server(cpu=True).start()


def test_a_server_that_never_answers_is_given_up(comfyui) -> None:
    comfyui("import time; print('still loading'); time.sleep(60)")
    with pytest.raises(ComfyUIError, match=r"(?s)did not answer.*still loading"):
        Server(cpu=True, timeout=1.0).start()


@pytest.mark.parametrize(
    "line",
    [
        f"   0.0 seconds (IMPORT FAILED): /base/custom_nodes/{PACK_NAME}",
        f"Error while calling comfy_entrypoint in /base/custom_nodes/{PACK_NAME}: no module named torchvision",
        (
            f"Skip /base/custom_nodes/{PACK_NAME} module for custom nodes due to the lack of NODE_CLASS_MAPPINGS or"
            " NODES_LIST (need one)."
        ),
        f"/base/custom_nodes/{PACK_NAME}/nodes/load.py:3: DeprecationWarning: old",
    ],
)
def test_a_pack_that_did_not_load_is_an_error(comfyui, line: str) -> None:
    comfyui(f"print({line!r})" + textwrap.dedent(ANSWERS))
    with pytest.raises(ComfyUIError, match="started without the pack") as error:
        Server(cpu=True).start()
    assert line.strip() in str(error.value)


def test_a_pack_that_loaded_is_none(comfyui) -> None:
    comfyui(f"print('   0.1 seconds: /tmp/errors/custom_nodes/{PACK_NAME}')" + textwrap.dedent(ANSWERS))
    with Server(cpu=True) as server:
        assert PACK_NAME in server.log


def test_stopping_also_ends_what_the_server_started(comfyui) -> None:
    comfyui(
        "import subprocess; print('child', subprocess.Popen(['sleep', '60']).pid, flush=True)"
        + textwrap.dedent(ANSWERS)
    )
    with Server(cpu=True) as server:
        child = int(server.log.split("child ")[1].split()[0])
        assert psutil.pid_exists(child)
    assert gone(child)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with a parent that was killed outright")
def test_a_killed_parent_leaves_no_server(comfyui, tmp_path: Path) -> None:
    comfyui(ANSWERS)
    code = """
        import pathlib, sys, time
        from scripts.comfyui import Server
        with Server(cpu=True, base=pathlib.Path(sys.argv[1])) as server:
            print(server.pid, flush=True)
            time.sleep(60)
    """
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "base")],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    assert gone(pid)


def test_a_taken_port_is_not_preferred() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) != port
    assert free_port(port) == port
