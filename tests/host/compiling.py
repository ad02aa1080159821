"""For `test_compiling`, in a process of ComfyUI's: a MODEL compiled as one, and layer by layer as docs/host.md does."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from comfy_api.torch_helpers import set_torch_compile_wrapper
from pack.nodes.host.loading import load_model
from pack.vc2.files import checkpoint
from pack.vc2.networks.layers import SpatialTransformer
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
    unet = model.model.diffusion_model
    plain = sample(model)

    whole, seen = model.clone(), []
    set_torch_compile_wrapper(whole, backend="eager")
    first = next(m for m in unet.modules() if isinstance(m, SpatialTransformer)).transformer_blocks[0].attn1
    watch = first.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    found = {"as one": difference(sample(whole), plain)}
    watch.remove()

    counters.clear()
    found["by layers"] = difference(sample(written_down("aot_eager")(model)), plain)
    graphs = counters["stats"]["unique_graphs"]
    counters.clear()
    return found | {
        "shared": sorted(set(seen)),
        "graphs": graphs,
        "given back": [difference(sample(model), plain), counters["stats"]["unique_graphs"]],
    }
