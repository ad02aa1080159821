"""What is measured beside the official code where no case is chosen."""

from __future__ import annotations

from dataclasses import dataclass

WORKLOADS = ("UNet forward", "guided step", "prompt to frames", "decode", "training step")


@dataclass(frozen=True)
class Case:
    """`width` and `height` are the clip's, in pixels; `network` is one of `bench.workloads.WIDTHS`; `compiled` is ours
    alone.
    """

    workload: str
    network: str
    frames: int
    width: int
    height: int
    precision: str = "fp32"
    compiled: bool = False
    steps: int = 1

    @property
    def latents(self) -> tuple[int, ...]:
        return (1, 4, self.frames, self.height // 8, self.width // 8)

    @property
    def short(self) -> str:
        steps = f", {self.steps} steps" if self.steps > 1 else ""
        return f"{self.workload}{steps}" + ", compiled" * self.compiled

    @property
    def clip(self) -> str:
        return f"{self.frames} of {self.width}x{self.height}"

    @property
    def title(self) -> str:
        words = f"{self.workload}, {self.frames} frames of {self.width}x{self.height}, {self.precision}"
        return words + ", compiled" * self.compiled


# What a CPU computes in a quarter of an hour; those of one width together, whose networks are made once.
ON_A_CPU = [
    *(Case("UNet forward", "full", 16, 128, 128, precision) for precision in ("fp32", "bf16")),
    *(Case("UNet forward", "fifth", frames, 128, 128) for frames in (8, 16, 64, 128)),
    *(Case("UNet forward", "fifth", *clip) for clip in ((16, 256, 256), (8, 512, 320), (2, 1024, 576))),
    Case("UNet forward", "fifth", 16, 128, 128, "bf16"),
    Case("guided step", "fifth", 16, 128, 128),
    Case("guided step", "fifth", 16, 128, 128, compiled=True),
    Case("guided step", "fifth", 16, 128, 128, "bf16"),
    Case("prompt to frames", "fifth", 8, 64, 64, steps=5),
    *(Case("decode", "fifth", *clip) for clip in ((4, 64, 64), (2, 256, 256))),
    Case("training step", "fifth", 8, 128, 128),
]
ON_A_GPU = [
    *(Case("UNet forward", "full", frames, 512, 320, "bf16") for frames in (8, 16, 64, 128)),
    *(Case("guided step", "full", 16, *size, "bf16") for size in ((256, 256), (512, 320), (1024, 576))),
    Case("guided step", "full", 16, 512, 320, "fp32"),
    Case("guided step", "full", 16, 512, 320, "bf16", compiled=True),
    *(Case("prompt to frames", "full", 16, 512, 320, "bf16", compiled, steps=50) for compiled in (False, True)),
    Case("decode", "full", 16, 512, 320, "bf16"),
    *(Case("training step", "full", 16, 256, 256, "bf16", compiled) for compiled in (False, True)),
    Case("training step", "full", 16, 256, 256, "fp32"),
]
