"""`python -m vc2 "a prompt" -o clip.mp4`: text to video without ComfyUI.

Many prompts: `python -m vc2 --prompts file.txt -o folder/`, one a line; under `accelerate launch` every process takes
its share.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
from pathlib import Path

from .files.video import FORMATS, format_of

TINY = Path(__file__).parent.parent / "models" / "vc2-tiny.safetensors"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m vc2", description="Text to video with VideoCrafter2.")
    p.add_argument("prompt", nargs="?", help="what to show")
    p.add_argument(
        "--prompts", type=Path, metavar="FILE", help="a text file, one prompt a line, instead of a single prompt"
    )
    p.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        help="the video (.mp4, .webm, .gif, .webp, .png frames); with --prompts a folder",
    )
    p.add_argument(
        "--checkpoint",
        type=Path,
        default=TINY,
        help="a .ckpt or .safetensors in the official layout (default: the bundled miniature)",
    )
    p.add_argument("--negative", help="negative prompt (default: empty)")
    p.add_argument("--frames", type=int, help="frames in the clip (default: the checkpoint's, 16)")
    p.add_argument("--size", metavar="WxH", help="e.g. 512x320 (default: the checkpoint's)")
    p.add_argument("--steps", type=int, help="denoising steps (default: the checkpoint's, 50; T2V-Turbo: 4)")
    p.add_argument("--guidance", type=float, help="guidance scale (default: the checkpoint's, 12; T2V-Turbo: 7.5)")
    p.add_argument("--eta", type=float, help="fresh noise at each step, 0..1 (default: 1)")
    p.add_argument("--fps", type=float, help="frame rate as a condition (default: the checkpoint's, 28; T2V-Turbo: 16)")
    p.add_argument("--save-fps", type=float, default=10, help="playback rate of the file (default: 10)")
    p.add_argument("--seed", type=int, default=0, help="the n-th prompt of a file uses seed + n")
    p.add_argument("--format", choices=list(FORMATS), default="mp4", help="file format with --prompts")
    p.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    p.add_argument("--dtype", choices=["fp32", "fp16", "bf16"], help="precision (default: the file's; fp32 on a CPU)")
    return p


def jobs(args: argparse.Namespace) -> list[tuple[str, Path, int]]:
    """(prompt, file, seed) of every clip asked for. Raises ValueError for what cannot be done."""
    if (args.prompt is None) == (args.prompts is None):
        raise ValueError("give either a prompt or --prompts FILE")
    if not 0 < args.save_fps < math.inf:
        raise ValueError(f"--save-fps must be positive, found {args.save_fps}")
    if args.prompts is None:
        format_of(args.out)
        return [(args.prompt, args.out, args.seed)]
    if not args.prompts.is_file():
        raise ValueError(f"{args.prompts}: no such prompt file")
    lines = [line.strip() for line in args.prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{args.prompts}: no prompts in it; write one a line")
    return [(line, args.out / f"{n:04d}{FORMATS[args.format].suffix}", args.seed + n) for n, line in enumerate(lines)]


def parse_size(text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    width, separator, height = text.lower().partition("x")
    if not (separator and width.isdigit() and height.isdigit()):
        raise ValueError(f"--size must be WIDTHxHEIGHT, e.g. 512x320, found {text!r}")
    return int(width), int(height)


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        work = jobs(args)
        width, height = parse_size(args.size)
        # torch is imported only now, so that a wrong argument is told at once.
        import torch
        from tqdm import tqdm

        from .files.video import write_video
        from .pipeline import TextToVideo, override

        rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        device = device_of(args.device or _best_device(torch), int(os.environ.get("LOCAL_RANK", 0)))
        dtype = {None: None, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[args.dtype]
        if not args.checkpoint.exists() and args.checkpoint == TINY:
            raise FileNotFoundError(
                f"{TINY} is missing: the miniature comes with a git checkout of the project; give --checkpoint"
            )
        model = TextToVideo(args.checkpoint, device, dtype)
        settings = override(
            model.settings,
            width=width, height=height, frames=args.frames, steps=args.steps, guidance=args.guidance, eta=args.eta, fps=args.fps, negative=args.negative,
        )  # fmt: skip
        settings.check()
        for prompt, path, seed in work[rank::world]:
            with tqdm(desc=prompt[:40], unit="step", position=rank) as bar:

                def report(done: int, count: int, bar=bar) -> None:
                    bar.total = count
                    bar.update(done - bar.n)

                clip = model([prompt], [seed], settings, report)[0]
            note = {
                "prompt_text": {"prompt": prompt, "seed": seed, "checkpoint": args.checkpoint.name, **vars(settings)}
            }
            print(write_video(path, clip, args.save_fps, note))
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing half-written is left", file=sys.stderr)
        return 130
    return 0


def device_of(name: str, local_rank: int) -> str:
    """`name`, where "cuda" alone is this process's own GPU."""
    return f"cuda:{local_rank}" if name == "cuda" else name


def _best_device(torch) -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


if __name__ == "__main__":
    sys.exit(main())
