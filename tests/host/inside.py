"""Code of the tests in a process with ComfyUI's modules, without its server.

`python -m tests.host.inside COMFYUI PACK MODULE ARGUMENT` prints one line of JSON: what `tests.host.MODULE` observes.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from scripts.comfyui import ROOT, comfyui_tree


def observed_inside(module: str, argument: Path) -> dict:
    """`tests.host.<module>.observe(argument)`, whose module may import ComfyUI and the pack, as `pack`."""
    result = subprocess.run(
        [sys.executable, "-m", __name__, str(comfyui_tree()), str(ROOT), module, str(argument)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def import_pack(comfyui: str, root: str) -> None:
    """The pack as the package `pack`, as ComfyUI would import it from custom_nodes."""
    sys.path.insert(0, comfyui)
    from comfy.cli_args import args

    args.cpu = True
    spec = importlib.util.spec_from_file_location("pack", f"{root}/__init__.py", submodule_search_locations=[root])
    assert spec is not None
    assert spec.loader is not None
    sys.modules["pack"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["pack"])


if __name__ == "__main__":
    tree, root, name, given = sys.argv[1:]
    import_pack(tree, root)
    json.dump(importlib.import_module(f"tests.host.{name}").observe(Path(given)), sys.stdout)
