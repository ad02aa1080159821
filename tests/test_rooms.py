"""Who may import what under `nodes/`, read from the source, without ComfyUI.

Only `nodes/host` knows what is inside ComfyUI, and its own imports go one way.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

NODES = Path(__file__).parent.parent / "nodes"
# ComfyUI's public interface, and what every ComfyUI has.
FREE = {*sys.stdlib_module_names, "comfy_api.latest", "folder_paths", "torch", "numpy"}
# Each file of a storey may import those of the storeys before it.
STOREYS = [
    {"flags", "hooks", "progress", "space"},
    {"checks", "model"},
    {"advice", "freeinit", "windows"},
    {"guidance", "loading", "run", "samplers"},
]


def imported(source: str) -> set[str]:
    """The modules that the code imports, wherever in it; a relative import starts with its dots."""
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            dots = "." * node.level
            # `from . import model` imports a module for each name.
            modules |= {dots + node.module} if node.module else {dots + alias.name for alias in node.names}
    return modules


def test_imports_are_seen_wherever_they_are():
    source = "import a.b\nif x:\n    from . import c, d\ndef f():\n    from .e.g import h\n    from i import j as k\n"
    assert imported(source) == {"a.b", ".c", ".d", ".e.g", "i"}


@pytest.mark.parametrize("path", sorted(NODES.glob("*.py")), ids=lambda path: path.name)
def test_nodes_know_only_the_public_interface(path):
    """Whatever else a node needs of ComfyUI is a function in `nodes/host`."""
    inside = {name for name in imported(path.read_text()) if not name.startswith(".")}
    assert {name for name in inside if name not in FREE and name.split(".")[0] not in FREE} == set()


def test_every_file_of_the_host_has_its_storey():
    assert {path.stem for path in (NODES / "host").glob("*.py")} == set().union({"__init__"}, *STOREYS)


@pytest.mark.parametrize("storey", range(len(STOREYS)), ids=lambda storey: "-".join(sorted(STOREYS[storey])))
def test_the_hosts_imports_go_one_way(storey):
    below = set().union(*STOREYS[:storey])
    for name in STOREYS[storey]:
        modules = imported((NODES / "host" / f"{name}.py").read_text())
        siblings = {module[1:].split(".")[0] for module in modules if module.startswith(".") and module[1] != "."}
        assert siblings <= below, name
        # Beyond its own room it knows the system, not the nodes.
        assert {module for module in modules if module.startswith("..") and not module.startswith("...vc2")} == set()
