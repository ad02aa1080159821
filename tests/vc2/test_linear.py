"""Linears by oneDNN: the same numbers, and only where nothing is recorded, cast or patched."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vc2.networks import linear as module
from vc2.networks.convolutions import of_size_one
from vc2.networks.layers import SpatialTransformer
from vc2.networks.linear import OPERATIONS, Operations, linear
from vc2.networks.unet import VideoUNet

SIZES = {"model_channels": 32, "channel_mult": (1, 2), "num_head_channels": 16, "context_dim": 24}


@pytest.fixture
def asked(monkeypatch):
    """The weights that oneDNN was asked for, by a stand-in where there is none."""
    calls = []

    def product(x, weight, bias):
        calls.append(weight.data_ptr())
        return F.linear(x, weight, bias)

    monkeypatch.setattr(module, "DTYPES", (torch.float32, torch.bfloat16))
    monkeypatch.setattr(module, "_product", product)
    return calls


@pytest.mark.skipif(not module.DTYPES, reason="not the processor or the torch for oneDNN")
@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 7, 3), (2, 0, 3), (1, 1, 1, 3)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", module.DTYPES)
def test_the_numbers_are_those_of_torch(shape, bias, dtype):
    def draw(*size):
        return torch.randn(size, dtype=dtype)

    close = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 2**-7, "atol": 0.02}
    x, weight, b = draw(*shape), draw(4, 3), draw(4) if bias else None
    with torch.no_grad():
        found = linear(x, weight, b)
        torch.testing.assert_close(found, F.linear(x, weight, b), **close)
        assert found.is_contiguous()
        for other in (x.expand(2, *shape), draw(*shape[:-1], 6)[..., ::2]):
            for matrix in (weight, draw(3, 4).t()):
                torch.testing.assert_close(linear(other, matrix, b), F.linear(other, matrix, b), **close)


@pytest.mark.skipif(not module.DTYPES, reason="not the processor or the torch for oneDNN")
@pytest.mark.parametrize("dtype", module.DTYPES)
def test_large_products_are_right_too(dtype):
    """Channels first, as a transformer's projection has them."""
    x, weight = torch.randn(16, 320, 16).transpose(1, 2), torch.randn(320, 320)
    with torch.no_grad():
        found, exact = linear(x.to(dtype), weight.to(dtype)).float(), F.linear(x, weight)
    assert (found - exact).norm() < {torch.float32: 1e-5, torch.bfloat16: 0.01}[dtype] * exact.norm()


@pytest.mark.skipif(not module.DTYPES, reason="not the processor or the torch for oneDNN")
@pytest.mark.parametrize("dtype", module.DTYPES)
def test_a_graph_holds_it(dtype):
    """Without a compiler: what torch.compile would hand to one."""
    layer, graphs = OPERATIONS.Linear(3, 4, dtype=dtype), []

    def backend(graph, _):
        graphs.append([str(node.target) for node in graph.graph.nodes if node.op == "call_function"])
        return graph.forward

    x = torch.randn(2, 3, dtype=dtype)
    with torch.no_grad():
        found = torch.compile(layer, backend=backend, fullgraph=True)(x)
        torch.testing.assert_close(found, F.linear(x, layer.weight, layer.bias))
    assert [len(graph) for graph in graphs] == [1]
    assert "product" in graphs[0][0]


def test_a_network_without_gradients_asks_for_all_its_linears(asked):
    layer = SpatialTransformer(32, 2, 16, 1, 24, True, OPERATIONS)
    unet = VideoUNet(SIZES).eval()
    made = [m for m in unet.modules() if isinstance(m, nn.Linear)]
    x, t, context = torch.randn(1, 4, 2, 8, 8), torch.tensor([5]), torch.randn(1, 7, 24)
    with torch.no_grad():
        expected = unet(x, t, context)
    assert {m.weight.data_ptr() for m in made} <= set(asked)
    assert len(made) > 50
    assert {type(m) for m in layer.modules() if isinstance(m, nn.Linear)} == {OPERATIONS.Linear}
    asked.clear()
    torch.testing.assert_close(unet(x, t, context).detach(), expected)
    assert not asked  # autograd has to see them


def test_what_is_recorded_cast_or_no_plain_tensor_is_torchs(asked):
    x, weight = torch.randn(2, 3), nn.Parameter(torch.randn(4, 3))

    class Quantised(torch.Tensor):
        pass

    linear(x, weight).sum().backward()
    assert weight.grad is not None
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(x, weight).dtype == torch.bfloat16
        for kind in (torch.float16, torch.float64):
            assert linear(x.to(kind), weight.to(kind)).dtype == kind
        with pytest.raises(RuntimeError, match="dtype"):
            linear(x.bfloat16(), weight)
        with pytest.raises(RuntimeError, match="dtype"):
            linear(x, weight, torch.randn(4).bfloat16())
        linear(x, weight.data.as_subclass(Quantised))
        with pytest.raises(RuntimeError, match="mat1 and mat2"):
            linear(x, torch.randn(4, 2))
        tall = torch.randn(2, 3, 5).bfloat16().transpose(1, 2)  # a row of five tokens, and weights for four channels
        torch.testing.assert_close(linear(tall, weight.bfloat16()), F.linear(tall, weight.bfloat16()))
        for bias in (
            torch.randn(8)[::2],
            torch.randn(1).expand(4),
            torch.randn(1),
            torch.randn(1, 4),
            torch.tensor(2.0),
        ):
            torch.testing.assert_close(linear(x, weight, bias), x @ weight.t() + bias)
        assert linear(x.to("meta"), weight.to("meta")).device.type == "meta"
        assert not asked
        linear(x, weight)
        linear(x.bfloat16(), weight.bfloat16())
        linear(tall[:, :4], weight.bfloat16())
        of_size_one(nn.Conv1d)(3, 4, 1)(torch.randn(2, 5, 3).transpose(1, 2))
    assert len(asked) == 4


def test_a_host_may_cast_or_patch_a_layer(asked):
    class HostLinear(nn.Linear):
        patched = False

        def forward(self, x):
            return super().forward(x) + 1

    host = Operations(
        SimpleNamespace(Linear=HostLinear, Conv2d=nn.Conv2d),
        lambda layer, x: None if layer.patched else (layer.weight, layer.bias),
    )
    layer, x = host.Linear(3, 4), torch.randn(2, 3)
    assert isinstance(layer, HostLinear)
    assert host.Conv2d is nn.Conv2d
    with torch.no_grad():
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
        layer.patched = True
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias) + 1)
    assert len(asked) == 1


def test_layers_of_one_kind_are_of_one_class():
    assert Operations(nn).Linear is OPERATIONS.Linear
    assert copy.copy(OPERATIONS).Conv2d is nn.Conv2d
