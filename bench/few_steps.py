"""What fewer passes of the network cost: ComfyUI's EasyCache and LazyCache at several thresholds, fewer DDIM steps, and
T2V-Turbo's way, with the miniature. Writes docs/performance/few_steps.json and docs/performance.md.

    python -m bench.few_steps
    python -m bench.few_steps --only LazyCache --frames 16

In this process, with ComfyUI's own modules: its nodes of both caches, its sampling, its VAE. The error is that of the
latents against those of all steps from the same noise, without added noise; T2V-Turbo adds noise of its own, so that it
has none. The judge's verdict is `make bench-tiny`'s.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bench import machine, performance_report, tiny
from bench.performance import keep
from scripts.bundle import TURBO_LORA  # by the recipe `tiny/turbo`
from scripts.comfyui import comfyui_tree
from scripts.miniature import TURBO_SETTINGS
from tests.host.inside import import_pack
from vc2.training.sources import world

ROOT = Path(__file__).parent.parent
STEPS, GUIDANCE, SIDE, LENGTHS = 25, 4.0, 8, (8, 16)
FEWER, THRESHOLDS = (20, 10, 5, 4, 2), (0.05, 0.1, 0.2, 0.4, 0.8)
TURBO_STEPS = (8, 4, 2, 1)
CACHES, TURBO = ("EasyCache", "LazyCache"), "T2V-Turbo"
KINDS = ("DDIM", *CACHES, TURBO)
Sampled = Callable[[str, int], Tensor]  # of a caption and a seed: latents `[T, 4, h, w]`


class Host:
    """The miniature in ComfyUI, and how often its network has run (prompt and negative prompt together count once).
    A clip has `length` frames and lasts a second.
    """

    def __init__(self) -> None:
        self.length = LENGTHS[0]
        import_pack(str(comfyui_tree()), str(ROOT))
        from pack.nodes.host import loading, model
        from pack.vc2.files import checkpoint

        loaded = checkpoint.load(ROOT / "models" / "vc2-tiny.safetensors")
        self.model, self.clip, self.vae = (
            loading.load_model(loaded),
            loading.load_clip(loaded),
            loading.load_vae(loaded),
        )
        self.passes, forward = 0.0, model.HostUNet._forward

        def counted(network: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            self.passes += len(x) / (2 * self.length)
            return forward(network, x, *args, **kwargs)

        model.HostUNet._forward = counted

    def text(self, prompt: str) -> list:
        encoded = self.clip.encode_from_tokens(self.clip.tokenize(prompt))
        return [[encoded, {"fps": self.length, "frames_per_clip": self.length}]]

    def cached(self, kind: str, threshold: float) -> Any:
        from comfy_extras import nodes_easycache

        node = getattr(nodes_easycache, f"{kind}Node")
        return node.execute(self.model, threshold, 0.15, 0.95, False).result[0]

    def turbo(self) -> Any:
        from pack.nodes.host import loading

        return loading.apply_lora(self.model, str(TURBO_LORA), 1.0)

    def sampled(self, model: Any, steps: int) -> Sampled:
        from pack.nodes.sample import VC2Sampler

        def sample(prompt: str, seed: int) -> Tensor:
            conditions = (self.text(prompt), self.text(""))
            settings = {"seed": seed, "steps": steps, "guidance": GUIDANCE, "eta": 0.0, "denoise": 1.0}
            return VC2Sampler.execute(model, *conditions, self.empty(), **settings).result[0]["samples"]

        return sample

    def sampled_by_turbo(self, model: Any, steps: int) -> Sampled:
        from pack.nodes.turbo import VC2TurboSampler

        def sample(prompt: str, seed: int) -> Tensor:
            settings = {**TURBO_SETTINGS, "seed": seed, "steps": steps}
            given = (model, self.text(prompt), self.empty())
            return VC2TurboSampler.execute(*given, **settings, motion_guidance=0.0).result[0]["samples"]

        return sample

    def empty(self) -> dict[str, Tensor]:
        return {"samples": torch.zeros(self.length, 4, SIDE, SIDE)}

    def frames(self, latents: Tensor) -> Any:
        """uint8 `[T, H, W, 3]`."""
        return (self.vae.decode(latents) * 255).round().byte().cpu().numpy()


def ways(host: Host, kinds: Collection[str]) -> dict[tuple[str, str], Sampled]:
    """By kind and label. All steps come first, whatever the kinds, since errors are those against them; only T2V-Turbo,
    which has no error, does without.
    """
    found: dict[tuple[str, str], Sampled] = {}
    if set(kinds) != {TURBO}:
        found["DDIM", str(STEPS)] = host.sampled(host.model, STEPS)
    if "DDIM" in kinds:
        found |= {("DDIM", str(steps)): host.sampled(host.model, steps) for steps in FEWER}
    for kind in CACHES:
        if kind in kinds:
            found |= {(kind, f"{t:g}"): host.sampled(host.cached(kind, t), STEPS) for t in THRESHOLDS}
    if TURBO in kinds:
        turbo = host.turbo()
        found |= {(TURBO, str(steps)): host.sampled_by_turbo(turbo, steps) for steps in TURBO_STEPS}
    return found


def picture_error(clip: np.ndarray, scene: world.Scene) -> float:
    """How far frames, uint8 `[T, H, W, 3]`, are from the nearest picture that the world has of the scene's colour and
    shape, wherever its object is: root mean square, in levels of 0..255, the mean over the frames.
    """
    reach = range(-world.REACH, world.REACH + 1)
    positions = torch.tensor([[x, y] for x in reach for y in reach])
    ids = torch.ones(len(positions), dtype=torch.long)
    drawn = tiny.pixels(world.render(ids * scene.colour, ids * scene.shape, positions))
    ours, theirs = (torch.from_numpy(some).flatten(1).double() for some in (clip, drawn))
    distances = torch.cdist(ours, theirs)
    return float(distances.amin(1).mean() / clip[0].size ** 0.5)


def measured(host: Host, wanted: list[world.Scene], kinds: Collection[str]) -> list[dict[str, Any]]:
    """A row for each of the ways, with clips of the scenes."""
    whole: list[Tensor] = []
    rows: list[dict[str, Any]] = []
    for (kind, label), sample in ways(host, kinds).items():
        host.passes = 0.0
        latents = [sample(scene.caption, k) for k, scene in enumerate(tqdm(wanted, desc=f"{kind} {label}"))]
        whole = whole or latents
        errors = [
            float((a - b).pow(2).mean().sqrt() / b.pow(2).mean().sqrt()) for a, b in zip(latents, whole, strict=True)
        ]
        clips = [host.frames(z) for z in latents]
        pictures = [picture_error(clip, scene) for clip, scene in zip(clips, wanted, strict=True)]
        how = f"threshold {label}, {STEPS} steps" if kind in CACHES else f"{label} step{'s' * (label != '1')}"
        rows.append(
            {
                "kind": kind,
                "label": label,
                "what": f"{kind}, {how}, {host.length} frames",
                "frames": host.length,
                "cost": host.passes / len(wanted),
                "error": None if kind == TURBO else sum(errors) / len(errors),
                "picture": sum(pictures) / len(pictures),
                "right": tiny.score(clips, wanted)["joint"] / 100,
                "count": len(wanted),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.few_steps", description=__doc__)
    parser.add_argument("--clips", type=int, default=32, choices=range(1, tiny.PROMPTS + 1), metavar="1..64")
    parser.add_argument(
        "--only", nargs="+", choices=KINDS, default=KINDS, help="measure these; rows of others stay as they are"
    )
    parser.add_argument("--frames", type=int, nargs="+", default=LENGTHS, choices=LENGTHS, help="(default: 8 16)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    host, wanted, facts = Host(), tiny.scenes()[: args.clips], machine.facts(torch.device("cpu"))
    for host.length in args.frames:
        rows = [row for row in measured(host, wanted, args.only) if row["kind"] in args.only]
        keep(args.out / "performance" / "few_steps.json", rows, facts, key="what")
    performance_report.write(args.out)


if __name__ == "__main__":
    main()
