"""Compiled layers compute what is written, in training steps alone. With torch's tracing but no compiler, which would
take minutes: what inductor makes of the graphs is torch's, and `bench/training_compile.py` only says how long it takes.
"""

from __future__ import annotations

import pytest
import torch

from vc2.networks import compiled as compiling
from vc2.networks.unet import Block
from vc2.training import kernels
from vc2.training.errors import RecipeError
from vc2.training.loop import Trainer


@pytest.fixture
def traced(monkeypatch):
    """The graphs that would be compiled."""
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(compiling, "BACKEND", backend)
    monkeypatch.setattr(kernels, "require_compiler", lambda: None)
    yield graphs
    torch._dynamo.reset()


@pytest.mark.parametrize("checkpointing", [False, [0]])
def test_a_compiled_step_is_the_step(recipe, folder, traced, checkpointing):
    settings = {"data": {"images": None, "lengths": [[2, 1, 1]]}, "diffusion": {"dropout": 0.0}}
    plain = Trainer(recipe(**settings), folder)
    compute = {"compile": True, "gradient_checkpointing": checkpointing}
    compiled = Trainer(recipe(**settings, compute=compute), folder.parent / "compiled")
    assert compiled.network.state_dict().keys() == plain.network.state_dict().keys()
    batches = plain.objective.batches(0, 0, 1)
    for _ in range(2):
        batch = next(batches)
        a, b = plain.train_step(batch), compiled.train_step(batch)
        assert (b["loss"], b["grad_norm"]) == pytest.approx((a["loss"], a["grad_norm"]), rel=1e-4)
    layers = sum(len(block) for block in compiled.network.modules() if isinstance(block, Block))
    # Layers of one shape share a graph; none falls back to what is not compiled.
    assert 3 <= len(traced) <= layers
    shapes = len(traced)
    losses = [x.objective.validate(x.model, x.accelerator) for x in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert len(traced) == shapes  # validation has other sizes, and compiles nothing


def test_without_a_compiler_nothing_begins(recipe, folder, monkeypatch):
    monkeypatch.setenv("CXX", "ccache no-such-compiler")
    monkeypatch.setattr(compiling.shutil, "which", lambda name: "/usr/bin/ccache" if name == "ccache" else None)
    assert Trainer(recipe(compute={"compile": True}), folder)  # a wrapper is a compiler like any other
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RecipeError, match=r"needs a C\+\+ compiler, and no-such-compiler is not there; install it"):
        Trainer(recipe(compute={"compile": True}), folder)
    assert Trainer(recipe(), folder)


def test_a_gpu_gets_the_kernels_that_are_fast_there_and_a_cpu_stays_as_it_is(monkeypatch):
    before = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    try:
        kernels.choose_kernels(torch.device("cpu"))
        assert (torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()) == before == (False, "highest")
        kernels.choose_kernels(torch.device("cuda"))
        assert (torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()) == (True, "high")
    finally:
        torch.backends.cudnn.benchmark = before[0]
        torch.set_float32_matmul_precision(before[1])
