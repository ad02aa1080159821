"""Write locales/en/nodeDefs.json from the nodes' own texts: `python -m scripts.english_words`.

Translators find the English ones there, beside theirs.
"""

from __future__ import annotations

import json
from typing import Any

from .client import Client
from .comfyui import PACK_NAME, ROOT, Server


def words_of(nodes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A locale's entries for nodes of `/object_info`."""
    out = {}
    for name, info in nodes.items():
        specs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        tooltips = info.get("output_tooltips") or [None] * len(info["output"])
        out[name] = {
            "display_name": info["display_name"],
            "description": info["description"],
            "inputs": {
                key: {"name": spec[1].get("display_name", key), "tooltip": spec[1]["tooltip"]}
                for key, spec in specs.items()
            },
            "outputs": {
                str(i): {"name": output} | ({"tooltip": tooltip} if tooltip else {})
                for i, (output, tooltip) in enumerate(zip(info["output_name"], tooltips, strict=True))
            },
        }
    return out


def main() -> None:
    with Server(cpu=True) as server:
        nodes = {
            name: info
            for name, info in Client(server.url).object_info().items()
            if info["python_module"].endswith(PACK_NAME)
        }
    path = ROOT / "locales" / "en" / "nodeDefs.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(words_of(nodes), indent=2) + "\n")


if __name__ == "__main__":
    main()
