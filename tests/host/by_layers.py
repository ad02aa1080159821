"""For `test_by_layers`, in a process of ComfyUI's: docs/host.md's function that compiles a MODEL layer by layer."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from pack.nodes.host.loading import load_model
from pack.vc2.files import checkpoint
from torch._dynamo.utils import counters

from tests.host.contracts import difference, sample


def written_down(backend: str):
    """The page's `compile_layers`, with a backend that is quicker than its own."""
    page = (Path(__file__).parents[2] / "docs" / "host.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert '"inductor"' in code
    names: dict = {"torch": torch}
    exec(code.replace('"inductor"', repr(backend)), names)
    return names["compile_layers"]


def observe(path: Path) -> dict:
    model = load_model(checkpoint.load(path))
    plain = sample(model)
    compiled = written_down("aot_eager")(model)
    found = sample(compiled)
    graphs = counters["stats"]["unique_graphs"]
    counters.clear()
    again = sample(model)
    return {
        "difference": difference(found, plain),
        "layers": sum(len(b) for b in model.model.diffusion_model.modules() if type(b).__name__ == "Block"),
        "graphs": graphs,
        "given back": [difference(again, plain), counters["stats"]["unique_graphs"]],
    }
