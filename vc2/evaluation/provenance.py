"""What made a result: the code's commit, and the versions of what it stands on."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import __version__

LIBRARIES = ("torch", "numpy", "open_clip_torch", "accelerate", "imageio-ffmpeg")


def commit() -> str:
    """The commit of the code that runs, `-dirty` where files are changed other than the rows; "" outside a checkout."""
    root = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", root, *words], check=True, capture_output=True, text=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return ""  # installed into a folder of somebody else's checkout
        rows = (":!docs/miniature/rows", ":!docs/miniature/later")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *rows)
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def versions() -> dict[str, str]:
    """Of Python, this package and what it stands on."""
    found = {"python": platform.python_version(), "comfyui-videocrafter2": __version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found
