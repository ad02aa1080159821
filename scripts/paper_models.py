"""What a seed of the paper in miniature learned, small enough to come along: F-base's UNet in 8 bits, and of other
models their difference from it, as LoRAs of low rank.

Writes into workflows/weights/, and prints of each file its size, how much of the change it keeps, and how far the
model's prediction is from the real one's. Then `make workflows` makes the graph that loads them.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from vc2.evaluation.miniature.arms import BY_NAME, ENCODERS, ROOT, Place
from vc2.files import checkpoint
from vc2.files.merge import merge
from vc2.networks.config import UNetConfig
from vc2.networks.unet import VideoUNet

from .comfyui import ROOT as PACK
from .graph import PAPER_BASE, PAPER_MODELS
from .graphs import WEIGHTS
from .low_rank import difference

BUNDLE = 16_000_000  # bytes that may come along, the bundled miniature's included
RANKS = {"F-Spa-LORA": 2, "F-Temp-LORA": 2, "F-Spa-DIR": 6}


def eight_bits(unet: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices in fp8 (e4m3), which come out of it within a sixteenth; vectors, which are few, in halves."""
    return {name: t.to(torch.float8_e4m3fn if t.ndim > 1 else torch.float16) for name, t in unet.items()}


def bundled() -> list[Path]:
    """All weights that come along."""
    return sorted((PACK / "models").glob("*.safetensors")) + sorted(WEIGHTS.rglob("*.safetensors"))


def share_kept(before: Mapping[str, Tensor], after: Mapping[str, Tensor], shown: Mapping[str, Tensor]) -> float:
    """Of the change, by its squared norm: 1 is all of it."""
    lost = sum(float((shown[name].float() - after[name].float()).square().sum()) for name in before)
    whole = sum(float((after[name].float() - before[name].float()).square().sum()) for name in before)
    return 1 - lost / whole


@torch.no_grad()
def distance(config: UNetConfig, one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """How far two models' predictions are apart for the same noise, relative to the first's."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, config.in_channels, 8, 8, 8, generator=generator)
    context = torch.randn(4, 77, config.context_dim, generator=generator)
    timesteps, fps = torch.tensor([900, 600, 300, 50]), torch.full((4,), 8)
    unet, out = VideoUNet(config).eval(), []
    for weights in (one, other):
        unet.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
        out.append(unet(x, timesteps, context, fps=fps))
    return float((out[1] - out[0]).norm() / out[0].norm())


def write(place: Place, seed: int, folder: Path) -> list[str]:
    """The files, whole and within what may come along, or none; a line about each. Raises SystemExit."""

    def unet(name: str) -> checkpoint.Checkpoint:
        return checkpoint.load(place.folder(BY_NAME[name], seed) / "model.safetensors", torch.float32)

    base = unet("F-base")
    small = eight_bits(base.unet)
    lines = [f"{'F-base':16} in 8 bits: prediction off by {distance(base.config, base.unet, small):.3f}"]
    tensors = {folder / "diffusion_models" / PAPER_BASE: {checkpoint.UNET + name: t for name, t in small.items()}}
    for name, rank in RANKS.items():
        real = unet(name).unet
        change = difference(base.unet, real, rank)
        shown = merge(base.unet, change)
        there = merge({key: t.float() for key, t in small.items()}, change)
        off, base_off = (distance(base.config, real, other) for other in (there, base.unet))
        lines.append(
            f"{name:16} rank {rank}: keeps {share_kept(base.unet, real, shown):.3f} of the change; prediction off by"
            f" {off:.3f}, where F-base's is by {base_off:.3f}"
        )
        tensors[folder / "loras" / PAPER_MODELS[name]] = change
    size = sum(len(safetensors.torch.save({n: t.contiguous() for n, t in some.items()})) for some in tensors.values())
    size += sum(path.stat().st_size for path in bundled() if path not in tensors)
    if size > BUNDLE:
        raise SystemExit(f"{size / 1e6:.2f} MB with all others, and {BUNDLE / 1e6:.0f} may come along; lower RANKS")
    for path, of_file in tensors.items():
        checkpoint.save_part(path, "", of_file)
        lines.append(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.paper_models", description=__doc__)
    parser.add_argument("--seed", type=int, default=2, help="of runs/paper (default: 2, the first that counts)")
    args = parser.parse_args()
    print("\n".join(write(Place(ROOT, ENCODERS), args.seed, WEIGHTS)))


if __name__ == "__main__":
    main()
