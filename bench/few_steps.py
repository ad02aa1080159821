"""What fewer passes of the network cost: ComfyUI's EasyCache at several thresholds, and fewer DDIM steps, with the
miniature. Writes docs/performance/few_steps.json and docs/performance.md.

    python -m bench.few_steps

In this process, with ComfyUI's own modules: its EasyCache node, its sampling, its VAE. The error is that of the latents
against those of all steps from the same noise, without added noise; the judge's verdict is `make bench-tiny`'s.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from bench import machine, performance_report, tiny
from bench.performance import keep
from scripts.comfyui import comfyui_tree
from tests.host.inside import import_pack

ROOT = Path(__file__).parent.parent
STEPS, GUIDANCE, FRAMES, FPS, SIDE = 25, 4.0, 8, 8, 8
FEWER, THRESHOLDS = (20, 10, 5, 4), (0.05, 0.1, 0.2, 0.4, 0.8)


class Host:
    """The miniature in ComfyUI, and how often its network has run (prompt and negative prompt together count once)."""

    def __init__(self) -> None:
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
            self.passes += len(x) / (2 * FRAMES)
            return forward(network, x, *args, **kwargs)

        model.HostUNet._forward = counted

    def text(self, prompt: str) -> list:
        encoded = self.clip.encode_from_tokens(self.clip.tokenize(prompt))
        return [[encoded, {"fps": FPS, "frames_per_clip": FRAMES}]]

    def cached(self, threshold: float) -> Any:
        from comfy_extras.nodes_easycache import EasyCacheNode

        return EasyCacheNode.execute(self.model, threshold, 0.15, 0.95, False).result[0]

    def sample(self, model: Any, prompt: str, seed: int, steps: int) -> Tensor:
        """Latents `[T, 4, h, w]`."""
        from pack.nodes.sample import VC2Sampler

        latent = {"samples": torch.zeros(FRAMES, 4, SIDE, SIDE)}
        conditions = (self.text(prompt), self.text(""))
        settings = {"seed": seed, "steps": steps, "guidance": GUIDANCE, "eta": 0.0, "denoise": 1.0}
        return VC2Sampler.execute(model, *conditions, latent, **settings).result[0]["samples"]

    def frames(self, latents: Tensor) -> Any:
        """uint8 `[T, H, W, 3]`."""
        return (self.vae.decode(latents) * 255).round().byte().cpu().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.few_steps", description=__doc__)
    parser.add_argument("--clips", type=int, default=32, choices=range(1, tiny.PROMPTS + 1), metavar="1..64")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    host, wanted = Host(), tiny.scenes()[: args.clips]
    ways: dict[tuple[str, str], Callable[[], tuple[Any, int]]] = {("DDIM", str(STEPS)): lambda: (host.model, STEPS)}
    ways |= {("DDIM", str(steps)): (lambda steps=steps: (host.model, steps)) for steps in FEWER}
    ways |= {("EasyCache", f"{t:g}"): (lambda t=t: (host.cached(t), STEPS)) for t in THRESHOLDS}
    whole: list[Tensor] = []
    rows = []
    for (kind, label), way in ways.items():
        model, steps = way()
        host.passes = 0.0
        latents = [host.sample(model, scene.caption, k, steps) for k, scene in enumerate(tqdm(wanted, desc=label))]
        whole = whole or latents
        errors = [
            float((a - b).pow(2).mean().sqrt() / b.pow(2).mean().sqrt()) for a, b in zip(latents, whole, strict=True)
        ]
        right = tiny.score([host.frames(z) for z in latents], wanted)["joint"] / 100
        rows.append(
            {
                "kind": kind,
                "label": label,
                "what": f"{kind}, {label} steps" if kind == "DDIM" else f"{kind}, threshold {label}, {STEPS} steps",
                "cost": host.passes / len(wanted),
                "error": sum(errors) / len(errors),
                "right": right,
                "count": len(wanted),
            }
        )
        print(rows[-1], flush=True)
    keep(args.out / "performance" / "few_steps.json", rows, machine.facts(torch.device("cpu")), key="what")
    performance_report.write(args.out)


if __name__ == "__main__":
    main()
