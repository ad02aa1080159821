"""What a computation takes, counted operation by operation: on torch's meta device nothing is computed, so the full
size fits anywhere, and the numbers are the same on every machine.

`python -m bench.counted` counts steps and decoding at full size, and writes them into docs/performance/counted.json
beside what is there of other versions. To count an older one, run this file with that one's checkout first on
PYTHONPATH and `--version` (0.2.0 is commit c0b9ca1).
"""

from __future__ import annotations

import argparse
import importlib
import json
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@dataclass
class Counts:
    """`peak`: bytes of the storages that were made and live at once, at their most; `flops`: of products and
    convolutions; `operations`: how many of each kind; `moved`: the bytes that these read and wrote.
    """

    peak: int = 0
    flops: int = 0
    operations: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)


class _Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()
        self._live: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        known = {x.untyped_storage()._cdata for x in inputs}
        out = func(*args, **(kwargs or {}))
        outputs = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        for tensor in outputs:
            self._see(tensor.untyped_storage(), known)
        # `_unsafe_view`, after a matrix product, is a view by another name.
        is_view = func.is_view or func.overloadpacket.__name__ == "_unsafe_view"
        if not is_view:
            name = func.overloadpacket.__name__
            self.counts.operations[name] += 1
            self.counts.moved[name] += sum(x.numel() * x.element_size() for x in (*inputs, *outputs))
        return out

    def _see(self, storage: torch.UntypedStorage, known: set[int]) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._live or key in known:
            return

        def gone(_: object) -> None:
            del self._live[key]
            self._bytes -= size

        self._live[key] = weakref.ref(storage, gone)
        self._bytes += size
        self.counts.peak = max(self.counts.peak, self._bytes)


def count(work: Callable[[], object]) -> Counts:
    """What `work` takes; what it returns lives no longer than it."""
    with FlopCounterMode(display=False) as flops, _Count() as mode:
        work()
    mode.counts.flops = flops.get_total_flops()
    return mode.counts


def fused_attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """One kernel, as a GPU has it; without a device torch would choose one that keeps all weights."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0].transpose(1, 2).flatten(2)


@dataclass(frozen=True)
class Step:
    """A step of the UNet at full size in bf16: `prompts` clips in one batch, forward; and where it is `training`,
    backward too, with gradients of all weights.
    """

    width: int = 512
    height: int = 320
    frames: int = 16
    prompts: int = 2
    window: tuple[int, int] | None = None  # FreeNoise's length and stride
    training: bool = False

    @property
    def latent(self) -> int:
        """Bytes of one channel of what goes in, which `PEAK` is for."""
        return 2 * self.prompts * self.frames * (self.height // 8) * (self.width // 8)

    def count(self, change: Callable[[Any], AbstractContextManager[object] | None] = lambda unet: None) -> Counts:
        """What it takes, the network changed first, or within what the change returns. Attention is one kernel,
        whatever the machine.
        """
        unet = _network().requires_grad_(self.training)
        within = change(unet) or nullcontext()
        options = {"window": self.window} if self.window else {}
        with torch.set_grad_enabled(self.training), torch.device("meta"):
            # 0.2.0 knew one prompt a clip.
            clips = 1 if hasattr(importlib.import_module(unet.__module__), "for_each_prompt") else self.prompts
            x = torch.zeros(clips, 4, self.frames, self.height // 8, self.width // 8, dtype=torch.bfloat16)
            context, t = torch.zeros(self.prompts, 77, 1024, dtype=torch.bfloat16), torch.zeros(clips)

            def work() -> None:
                out = unet(x, t, context, t, **options)
                if self.training:
                    out.sum().backward()

            with within:
                return count(work)


@dataclass(frozen=True)
class Decoding:
    """A clip's latents to pixels, as the command line does it, in bf16."""

    width: int
    height: int
    frames: int = 16

    def count(self) -> Counts:
        vae = _module("autoencoder").AutoencoderKL(device="meta", dtype=torch.bfloat16).eval().requires_grad_(False)
        to_pixels = importlib.import_module("vc2.pipeline").to_pixels
        z = torch.zeros(4, self.frames, self.height // 8, self.width // 8, device="meta")
        # What is on the meta device cannot leave it, and need not.
        with patch.object(Tensor, "cpu", lambda x: x), patch.object(Tensor, "numpy", lambda x: x), torch.no_grad():
            return count(lambda: to_pixels(vae, z))


def _module(name: str) -> Any:
    try:  # 0.2.0 had no folders; these are found beside it where a newer version is installed
        return importlib.import_module(f"vc2.{name}")
    except ModuleNotFoundError:
        return importlib.import_module(f"vc2.networks.{name}")


def _network() -> Any:
    """Of VideoCrafter2, in bf16, without weights."""
    config = _module("config").UNetConfig.vc2()
    network = _module("unet").VideoUNet(config, device="meta", dtype=torch.bfloat16).eval()
    for module in network.modules():
        if isinstance(module, _module("attention").Attention):
            module.backend = fused_attention
    return network


STEPS: dict[str, Step | Decoding] = {
    "guided step, 512x320": Step(),
    "guided step, 1024x576": Step(1024, 576),
    "guided step, FreeNoise, 64 frames": Step(frames=64, window=(16, 4)),
    "training step": Step(prompts=1, training=True),
    "decoding, 512x320": Decoding(512, 320),
    "decoding, 256x256": Decoding(256, 256),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.counted", description=__doc__)
    parser.add_argument("--version", default="now", help="what is counted is called so (default: now)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs")
    args = parser.parse_args()
    path = args.out / "performance" / "counted.json"
    rows = json.loads(path.read_text())["rows"] if path.is_file() else []
    rows = [row for row in rows if row["version"] != args.version]
    for what, step in STEPS.items():
        made = {"version": args.version, "what": what, "torch": torch.__version__.split("+")[0]}
        rows.append({**made, **vars(step.count())})
        print(rows[-1], flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
