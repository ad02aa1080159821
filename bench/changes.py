"""What each way of computing gives: a forward pass of the UNet with one thing done in another way, in turns with ours
as it is. Writes docs/performance/changes.json and docs/performance.md.

    python -m bench.changes

On a CPU, at a fifth of the width, unless `--network` and `--size` say otherwise.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench import machine, performance_report
from bench.around import BESIDE
from bench.cases import Case
from bench.performance import keep
from bench.ways import Beside, Change, Way, Within, as_class, plain
from bench.winograd import by_winograd
from bench.workloads import WIDTHS, Networks, Works, apart
from vc2.networks import layers, linear, slices
from vc2.networks.attention import Attention
from vc2.networks.compiled import compile_layers
from vc2.networks.unet import VideoUNet

ROOT = Path(__file__).parent.parent


def channels_last(unet: VideoUNet) -> None:
    for module in unet.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


def attention(backend: SDPBackend) -> Change:
    return lambda unet: sdpa_kernel(backend)


def at_once() -> Within:
    return patch.object(slices, "SLICE", 2**60)


def geglu_apart() -> Within:
    """GEGLU's product, which else goes where a factor was."""

    def forward(self: layers.GEGLU, x: Tensor) -> Tensor:
        x, gate = self.proj(x).chunk(2, -1)
        return x * F.gelu(gate)

    return patch.object(layers.GEGLU, "forward", forward)


def silu_apart() -> Within:
    """SiLU's result, which else goes where that of the norm before it was."""
    return patch.object(layers.SiLU, "forward", nn.SiLU.forward)


@contextmanager
def as_before() -> Iterator[None]:
    with at_once(), geglu_apart(), silu_apart():
        yield


def sum_in_its_product() -> Within:
    """The feed-forward's residual sum as part of its second product, which oneDNN can, on a CPU and outside a host."""

    def feed_forward(self: layers.TransformerBlock, x: Tensor) -> Tensor:
        out, done = self.ff.net[2], []
        for tokens in x.split(slices.rows_of_a_slice(x, 8)):
            wide = self.ff.net[0](self.norm3(tokens))
            done.append(torch.ops.mkldnn._linear_pointwise.binary(wide, tokens, out.weight, out.bias, "add"))
        return torch.cat(done) if len(done) > 1 else done[0]

    return patch.object(layers.TransformerBlock, "_feed_forward", feed_forward)


def by_products(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention over time as two batched products and a softmax."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def temporal_products(unet: VideoUNet) -> None:
    for block in unet.modules():
        if isinstance(block, layers.TemporalBlock):
            for module in block.modules():
                if isinstance(module, Attention):
                    module.backend = by_products


CHANGES = {
    "Linears by MKL": Way(
        lambda unet: patch.object(linear, "DTYPES", ()),
        "oneDNN is used: in float32, without gradients, with AVX-512; not tried on Intel's, where MKL has that too",
        False,
    ),
    "Linears by MKL, at full width": Way(
        lambda unet: patch.object(linear, "DTYPES", ()),
        "as above",
        False,
        Case("UNet forward", "full", 16, 128, 128),
    ),
    "Linears in bf16 by torch, at full width": Way(
        lambda unet: patch.object(linear, "DTYPES", ()),
        "oneDNN is used there too: torch has it compute a projection as many products, and copies weights for each",
        False,
        Case("UNet forward", "full", 16, 128, 128, "bf16"),
    ),
    "temporal convolutions as conv3d": Way(plain(nn.Conv3d), "conv2d over [B, C, T, H W] is used"),
    "init_attn's projections as conv1d": Way(plain(nn.Conv1d), "a Linear is used"),
    "GEGLU in memory of its own": Way(lambda unet: geglu_apart(), "its product takes a factor's place"),
    "SiLU in memory of its own": Way(lambda unet: silu_apart(), "it takes the place of the norm before it"),
    "the feed-forward at once": Way(
        lambda unet: at_once(),
        f"slices of {slices.SLICE >> 20} MiB are used, for memory; here all fits into one",
    ),
    "GEGLU, SiLU and feed-forward like this": Way(
        lambda unet: as_before(), "all three at once or in memory of their own, as in 0.2.0"
    ),
    "the feed-forward's sum in its product": Way(
        lambda unet: sum_in_its_product(),
        "not used: oneDNN's alone, and no host's layer could have it",
        False,
    ),
    "attention over time by products": Way(temporal_products, "torch's fused kernel is used"),
    "attention without a fused kernel": Way(attention(SDPBackend.MATH), "torch's fused kernel is used", False),
    "convolutions channels-last": Way(channels_last, "not used"),
    "temporal convolutions by Winograd": Way(
        as_class(nn.Conv3d, by_winograd), "not used: half of the products, but more copies", False
    ),
    "3x3 convolutions by Winograd": Way(
        as_class(nn.Conv2d, by_winograd), "not used: a quarter of the products, but more copies", False
    ),
    "layers compiled": Way(compile_layers, "`--compile`, which is for GPUs: slower here", False),
}


def counted(way: Way | Beside) -> dict[str, int] | None:
    found = way.count()
    return {"peak": round(found.peak / 2**20), "operations": sum(found.operations.values())} if found else None


def measured(works: Works, device: torch.device, rounds: int) -> dict[str, Any]:
    """Seconds of both in each round, and how far the results are apart."""
    ours, theirs = (work() for work in works.values())
    return {"seconds": machine.in_turns(works, device, rounds, warm_up=0), "difference": apart(theirs, ours)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.changes", description=__doc__)
    parser.add_argument("--network", choices=list(WIDTHS), default="fifth")
    parser.add_argument("--size", metavar="WxH", default="128x128")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=[*CHANGES, *BESIDE])
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    width, height = map(int, args.size.split("x"))
    here, facts = Case("UNet forward", args.network, args.frames, width, height), machine.facts(device)
    networks = Networks(here.network, device, with_official=False)
    ways: dict[str, Way | Beside] = {**CHANGES, **BESIDE}
    for what in args.only or ways:
        way = ways[what]
        case = way.case or here
        if case.network != networks.network:
            networks = Networks(case.network, device, with_official=False)
        row = {"what": what, "case": vars(case), **measured(way.works(case, networks), device, args.rounds)}
        row |= {"counted": counted(way), "note": way.note}
        print(what, machine.ratio(row["seconds"], "changed", "ours"), row["difference"], flush=True)
        keep(args.out / "performance" / "changes.json", [row], facts, key="what")
    performance_report.write(args.out)


if __name__ == "__main__":
    main()
