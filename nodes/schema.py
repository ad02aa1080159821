"""What newer ComfyUI versions know of a node beyond its inputs, left out where the host does not.

Unknown fields and arguments are TypeErrors there: `search_aliases`, `essentials_category` and `advanced` are none of
ComfyUI 0.3.75 or 0.8.0, and all of 0.28.0.
"""

from __future__ import annotations

import inspect
from typing import Any

from comfy_api.latest import io


def understood(kind: type, **arguments: Any) -> dict[str, Any]:
    """Those of the keyword arguments that the host's class `kind` takes."""
    parameters = inspect.signature(kind).parameters
    return {name: value for name, value in arguments.items() if name in parameters}


def search(*aliases: str, essentials: str | None = None) -> dict[str, Any]:
    """Arguments of io.Schema: what else people type to find the node, and its place among the host's essential ones."""
    return understood(io.Schema, search_aliases=[*aliases], essentials_category=essentials)


# For an input that is seldom changed: folded away where the host can.
ADVANCED = understood(io.Int.Input, advanced=True)
