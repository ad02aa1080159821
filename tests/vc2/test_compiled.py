"""`--compile`: a graph for each layer, and the clip of the layers as they are written. With torch's tracing but no
compiler, which would take minutes.
"""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters
from torch._inductor import config
from torch._inductor.utils import run_and_get_code

from tests import standin
from vc2.__main__ import load, main, parser
from vc2.networks import compiled
from vc2.networks.unet import Block
from vc2.pipeline import override


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return standin.write(tmp_path_factory.mktemp("compiled") / "standin.safetensors")


def test_a_graph_for_each_layer_and_no_break(checkpoint, monkeypatch):
    calls = []

    def backend(graph, _):
        def compute(*inputs):
            calls.append(graph)
            return graph.forward(*inputs)

        return compute

    monkeypatch.setattr(compiled, "BACKEND", backend)
    monkeypatch.setattr(compiled, "missing_compiler", lambda: None)
    asked = ["a cat", "-o", "clip.mp4", "--checkpoint", str(checkpoint), "--device", "cpu"]
    plain, model = load(parser().parse_args(asked)), load(parser().parse_args([*asked, "--compile"]))
    settings = override(model.settings, width=32, height=24, frames=3, steps=2, guidance=4.0)
    torch._dynamo.reset()
    counters.clear()
    try:
        clips = [m(["a cat"], [0], settings).astype(np.int16) for m in (plain, model)]
    finally:
        torch._dynamo.reset()
    layers = sum(len(block) for block in model.unet.modules() if isinstance(block, Block))
    assert dict(counters["graph_break"]) == {}
    assert len(calls) == 2 * layers  # each layer is one graph, in each of two steps
    assert len(set(map(id, calls))) < layers  # which layers of one shape share
    assert np.abs(clips[0] - clips[1]).max() <= 1
    assert model.unet.state_dict().keys() == plain.unet.state_dict().keys()


def test_without_a_compiler_nothing_begins(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")
    out = tmp_path / "clip.mp4"
    assert main(["a cat", "-o", str(out), "--checkpoint", str(checkpoint), "--compile"]) == 2
    assert "--compile needs a C++ compiler, and no-such-compiler is not there" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("name", ["recompile_limit", "cache_size_limit"])
@pytest.mark.parametrize(("before", "after"), [(8, compiled.GRAPHS), (9999, 9999)])
def test_all_sizes_are_compiled_whatever_torch_calls_their_limit(monkeypatch, name, before, after):
    """cache_size_limit up to torch 2.6."""
    config = SimpleNamespace(**{name: before})
    monkeypatch.setattr(torch._dynamo, "config", config)
    compiled.compile_layers(torch.nn.Identity())
    assert vars(config) == {name: after}


@pytest.mark.slow
@pytest.mark.skipif(bool(compiled.missing_compiler()), reason="needs a C++ compiler")
def test_norms_activations_and_sums_are_compiled_together(checkpoint):
    """By the names that torch gives the functions it makes of a layer for a CPU: the operations that are in them."""
    model = load(parser().parse_args(["a cat", "-o", "clip.mp4", "--checkpoint", str(checkpoint), "--device", "cpu"]))
    block = model.unet.input_blocks[1]  # a convolutional layer, attention among pixels, attention among frames
    inputs = torch.zeros(1, 4, 2, 8, 8), torch.tensor([500]), torch.zeros(1, 77, model.unet.config.context_dim)
    torch._dynamo.reset()
    with config.patch({"cpp.descriptive_names": "original_aten", "force_disable_caches": True}), torch.no_grad():
        for layer in block:
            layer.compile(dynamic=False, backend=compiled.BACKEND)
        _, codes = run_and_get_code(model.unet, *inputs)
    functions = [set(re.findall(r"cpp_fused_(\w+)_\d+\b", code)) for code in codes]
    assert len(functions) == len(block) == 3

    def some_has(of: set[str], *operations: str) -> bool:
        return any(all(operation in name for operation in operations) for name in of)

    convolutional, *transformers = functions
    assert some_has(convolutional, "native_group_norm", "silu")
    assert some_has(convolutional, "add", "native_group_norm", "silu")  # the time's embedding too
    for transformer in transformers:
        assert some_has(transformer, "add", "native_layer_norm")
        assert some_has(transformer, "gelu", "mul")
    assert not any(re.search(r"aten\.(add|silu|gelu|native_\w+_norm)\.\w+\(", code) for code in codes)  # alone
