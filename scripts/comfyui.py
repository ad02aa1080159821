"""A real ComfyUI to develop against: started with this pack linked in, and gone when we are.

`python -m scripts.comfyui install` prints where the tree is, `python -m scripts.comfyui start` serves it until Ctrl-C.
Which ComfyUI, and which front end, `fetch` says.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import ctypes
import importlib.metadata
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import psutil
import requests

from .fetch import CACHE, COMFYUI_VERSION, FRONT_END, ROOT, ComfyUIError, comfyui_tree, front_end

__all__ = [
    "CACHE",
    "COMFYUI_VERSION",
    "PACK_NAME",
    "ROOT",
    "ComfyUIError",
    "Server",
    "comfyui_tree",
    "free_port",
    "serve",
]

PACK_NAME = "comfyui-videocrafter2"

TROUBLE = re.compile(r"warning|error|cannot|failed|skip|not callable|did not", re.IGNORECASE)


class Server:
    """A running ComfyUI, as a context manager: ready once entered, gone once left, even when this process dies.

    `base` holds its models, input, output and user folders (default: a temporary one); `output` moves only the results
    elsewhere. `pack` is the folder linked in as the custom node pack. `cpu=None` uses a GPU if there is one. Start it
    from a thread that outlives it: Linux ends the server together with the thread that started it.
    """

    def __init__(
        self,
        *,
        base: Path | None = None,
        output: Path | None = None,
        pack: Path = ROOT,
        cpu: bool | None = None,
        port: int | None = None,
        extra_args: Sequence[str] = (),
        timeout: float = 300.0,
    ) -> None:
        self._temporary = base is None
        self.base = Path(tempfile.mkdtemp(prefix="comfyui-")) if base is None else base.resolve()
        self.output = output.resolve() if output else self.base / "output"
        self.pack = pack.resolve()
        self.cpu = cpu
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.extra_args = list(extra_args)
        self.timeout = timeout
        self.log_path = self.base / "comfyui.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ComfyUIError("the server is not running: use it in a with statement")
        return self._process.pid

    @property
    def rss(self) -> int:
        """Resident memory of the server process, in bytes."""
        return psutil.Process(self.pid).memory_info().rss

    @property
    def log(self) -> str:
        """Everything ComfyUI has written so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Return once the server answers and has loaded the pack.

        Raises ComfyUIError, with the log's end, where either fails.
        """
        tree, pages = comfyui_tree(), front_end()
        self._prepare_base(pages)
        # A `comfy` or `utils` on PYTHONPATH would shadow its own.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        atexit.register(self.stop)
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(tree, pages),
                cwd=self.base,
                env=environment | {"PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a process group of its own, so that stop() also reaches what it started
                preexec_fn=_end_with_parent(),
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and whatever it started. Harmless when it is not running."""
        atexit.unregister(self.stop)
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=15)
            with contextlib.suppress(ProcessLookupError):  # nobody left in the group
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if self._temporary:
            shutil.rmtree(self.base, ignore_errors=True)

    def _prepare_base(self, pages: Path | None) -> None:
        for folder in ("custom_nodes", "models", "input", "temp", "user/default/workflows", "user/default/subgraphs"):
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        self.output.mkdir(parents=True, exist_ok=True)
        link = self.base / "custom_nodes" / PACK_NAME
        if not link.is_symlink() or link.resolve() != self.pack:
            link.unlink(missing_ok=True)
            link.symlink_to(self.pack, target_is_directory=True)
        settings = self.base / "user" / "default" / "comfy.settings.json"
        if not settings.exists():  # no first-run tour and no update notice over the canvas
            seen: dict[str, object] = {"Comfy.TutorialCompleted": True, "Comfy.Notification.ShowVersionUpdates": False}
            # A ComfyUI may bring its front end in another way.
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                seen["Comfy.InstalledVersion"] = (
                    pages.name.removeprefix("front-end-") if pages else importlib.metadata.version(FRONT_END)
                )
            settings.write_text(json.dumps(seen))

    def _command(self, tree: Path, pages: Path | None) -> list[str]:
        command = [sys.executable, str(tree / "main.py"), *self._offline(tree)]
        command += ["--front-end-root", str(pages)] if pages else []
        command += ["--listen", "127.0.0.1", "--port", str(self.port)]
        command += ["--base-directory", str(self.base), "--output-directory", str(self.output)]
        command += ["--database-url", f"sqlite:///{self.base / 'user' / 'comfyui.db'}"]
        if self.cpu or (self.cpu is None and not _has_gpu()):
            command.append("--cpu")
        return command + self.extra_args

    def _offline(self, tree: Path) -> list[str]:
        """The options, of those that this ComfyUI has, that keep it from what lies outside `base`: paid nodes, and the
        database of everything in its folders, which another server may hold.
        """
        command = [sys.executable, str(tree / "main.py"), "--help"]
        try:
            listed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=self.timeout).stdout
        except subprocess.TimeoutExpired:
            return []  # it will not start either, and then its log says more
        has = set(re.findall(r"--[a-z-]+", listed))
        # In later versions the first is a deprecated name of the second.
        network = "--offline" if "--offline" in has else "--disable-api-nodes"
        return [option for option in (network, "--disable-assets") if option in has]

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.timeout
        while not _answers(f"{self.url}/system_stats"):
            if not self.running:
                code = self._process and self._process.returncode
                raise self._error(f"ComfyUI exited with code {code} while starting")
            if time.monotonic() > deadline:
                raise self._error(f"ComfyUI did not answer on {self.url} within {self.timeout:.0f} s")
            time.sleep(0.2)
        trouble = [line.strip() for line in self.log.splitlines() if _tells_of_trouble(line)]
        if trouble:
            raise self._error(f"ComfyUI started without the pack at {self.pack}:\n  " + "\n  ".join(trouble))

    def _error(self, message: str, lines: int = 40) -> ComfyUIError:
        return ComfyUIError(f"{message}\n--- the last lines of its log:\n" + "\n".join(self.log.splitlines()[-lines:]))


def _tells_of_trouble(line: str) -> bool:
    """Whether a log line says that the pack did not load.

    ComfyUI starts and exits with 0 all the same, so nothing else tells.
    """
    if re.match(r"\s*[\d.]+ seconds: ", line):  # how long the import took, followed by a path that may hold any word
        return False
    return (
        "IMPORT FAILED" in line
        or "Unable to parse pyproject.toml" in line
        or (PACK_NAME in line and TROUBLE.search(line) is not None)
    )


def free_port(preferred: int | None = None) -> int:
    """The preferred port if nothing listens on it, else any free one."""
    if preferred:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port left a moment ago counts as free
            probe.bind(("127.0.0.1", preferred))
            return preferred
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(server: Server, path: str = "/") -> None:
    """Print the address to open and keep the server up until Ctrl-C or until it ends by itself."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` means the same as Ctrl-C here
    with contextlib.suppress(KeyboardInterrupt), server:
        print(f"ComfyUI is at {server.url}{path} (Ctrl-C stops it; log: {server.log_path})", flush=True)
        while server.running:
            time.sleep(0.5)
        raise ComfyUIError(f"ComfyUI ended by itself; its last lines:\n{server.log[-4000:]}")


def _answers(url: str) -> bool:
    with requests.Session() as session:
        session.trust_env = False  # a proxy from the environment knows nothing about our own machine
        try:
            return session.get(url, timeout=5).ok
        except requests.RequestException:
            return False


def _has_gpu() -> bool:
    import torch  # seconds to import, and only this question needs it

    return torch.cuda.is_available()


def _end_with_parent() -> Callable[[], object] | None:
    """On Linux, have the kernel end the server when we are killed outright, which no atexit handler survives."""
    if sys.platform != "linux":
        return None
    libc, set_parent_death_signal = ctypes.CDLL(None), 1
    return lambda: libc.prctl(set_parent_death_signal, signal.SIGTERM)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.comfyui", description=__doc__.splitlines()[0] if __doc__ else None
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install", help="fetch ComfyUI if it is not there yet, and print its folder")
    start = commands.add_parser(
        "start", help="serve ComfyUI with this pack until Ctrl-C; further arguments go to ComfyUI's main.py"
    )
    start.add_argument("--port", type=int, default=None, help="default: 8188, or any free port where that is taken")
    options, extra_args = parser.parse_known_args()
    if options.command == "install":
        print(comfyui_tree())
    else:
        serve(Server(base=CACHE / "base", port=options.port or free_port(8188), extra_args=extra_args))


if __name__ == "__main__":
    try:
        main()
    except ComfyUIError as error:
        sys.exit(str(error))
