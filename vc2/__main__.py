"""`python -m vc2 "a prompt" -o clip.mp4`: text to video without ComfyUI.

Many prompts: `python -m vc2 --prompts file.txt -o folder/`, one a line; under `accelerate launch` every process takes
its share, and with `--skip-existing` only what an earlier one did not come to.
"""

from __future__ import annotations

import argparse
import io
import logging
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import __version__
from .command import exit_status
from .files.video import FORMATS, check_clips, existing_files, format_of, write_video
from .plural import plural

if TYPE_CHECKING:
    from .pipeline import Settings, TextToVideo

TINY = Path(__file__).parent.parent / "models" / "vc2-tiny.safetensors"
SEEDS = 2**64
LARGEST = 4096 * 4096  # pixels a frame

log = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m vc2", description="Text to video with VideoCrafter2.")
    p.add_argument("prompt", nargs="?", help="what to show")
    p.add_argument("--prompts", type=Path, metavar="FILE", help="a text file, one prompt a line, instead of one prompt")
    p.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        help="the video: .mp4, .webm, .gif, .webp, or .png for one file a frame, name_00000.png on; with --prompts the"
        " folder for 0000.mp4 on",
    )
    existing = p.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace files that exist, which else are refused")
    existing.add_argument(
        "--skip-existing",
        action="store_true",
        help="leave clips that exist, whatever they show, and make the others, each as it would have been",
    )
    p.add_argument(
        "--checkpoint",
        type=Path,
        default=TINY,
        help="a .ckpt or .safetensors in the official layout (default: the miniature, which comes with a git checkout"
        " and not with an installed package)",
    )
    add_sampling(p)
    p.add_argument("--seed", type=int, default=0, help="prompt n of a file, counted from 0, uses seed + n (default: 0)")
    p.add_argument("--format", choices=list(FORMATS), help="file format with --prompts (default: mp4)")
    p.add_argument("--version", action="version", version=f"comfyui-videocrafter2 {__version__}")
    return p


def add_sampling(p: argparse.ArgumentParser) -> None:
    """The options that say how clips are sampled, and on what; `load` and `settings_of` read them."""
    p.add_argument("--negative", help="negative prompt (default: empty)")
    p.add_argument("--frames", type=int, help="frames in the clip (default: the checkpoint's, 16)")
    p.add_argument("--size", metavar="WxH", help="e.g. 512x320 (default: the checkpoint's)")
    p.add_argument(
        "--steps",
        type=int,
        help="denoising steps (default: the checkpoint's, 50; T2V-Turbo: 4). DDIM runs more where the count does not"
        " divide 1000, as the official code does: 31 for 30, 500 for 400",
    )
    p.add_argument("--guidance", type=float, help="guidance scale (default: the checkpoint's, 12; T2V-Turbo: 7.5)")
    p.add_argument("--eta", type=float, help="noise added again at each step, 0 to 1 (default: 1)")
    p.add_argument(
        "--fps",
        type=float,
        help="frame rate that the model is told, by which it chooses how far things move from frame to frame (default:"
        " the checkpoint's, 28; T2V-Turbo: 16)",
    )
    p.add_argument(
        "--save-fps", type=float, default=10, help="playback rate of the file, whatever --fps is (default: 10)"
    )
    p.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    p.add_argument("--dtype", choices=["fp32", "fp16", "bf16"], help="precision (default: the file's; fp32 on a CPU)")
    p.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile, the UNet's layers each by itself; needs a C++ compiler. Compiling takes minutes, once for"
        " each size: for many clips",
    )


def jobs(args: argparse.Namespace) -> list[tuple[str, Path, int]]:
    """(prompt, file, seed) of every clip asked for. Raises ValueError for what cannot be done."""
    if (args.prompt is None) == (args.prompts is None):
        raise ValueError("give either a prompt or --prompts FILE")
    if not 0 < args.save_fps < math.inf:
        raise ValueError(f"--save-fps must be positive, found {args.save_fps}")
    if args.prompts is None:
        if args.format not in (None, format_of(args.out)):
            raise ValueError(f"--format {args.format} contradicts the ending of {args.out}, which decides by itself")
        prompts, paths = [args.prompt], [args.out]
    else:
        prompts, suffix = read_prompts(args.prompts), FORMATS[args.format or "mp4"].suffix
        paths = [args.out / f"{n:04d}{suffix}" for n in range(len(prompts))]
    if not 0 <= args.seed <= SEEDS - len(prompts):
        raise ValueError(f"--seed must be between 0 and 2^64 - {len(prompts)}, found {args.seed}")
    return list(zip(prompts, paths, range(args.seed, args.seed + len(prompts)), strict=True))


def read_prompts(path: Path) -> list[str]:
    """The lines of a text file that are not empty. Raises ValueError for a file that holds none, or is not UTF-8."""
    if not path.is_file():
        raise ValueError(f"{path}: no such prompt file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start} is not); save it as UTF-8") from error
    prompts = [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts:
        raise ValueError(f"{path}: no prompts in it; write one a line")
    return prompts


def parse_size(text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    width, separator, height = text.lower().partition("x")
    if not (separator and width.isdigit() and height.isdigit()):
        raise ValueError(f"--size must be WIDTHxHEIGHT, e.g. 512x320, found {text!r}")
    if int(width) * int(height) > LARGEST:
        raise ValueError(f"--size must be at most {LARGEST} pixels a frame, such as 1024x576, found {text!r}")
    return int(width), int(height)


def run(args: argparse.Namespace) -> None:
    """Sample and write this process's share of the clips; what it raises names what is wrong."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    share = jobs(args)[rank::world]
    parse_size(args.size)
    # Only this process's own files: another may have written some of its own already.
    if args.skip_existing:
        missing = [job for job in share if not any(file.is_file() for file in existing_files(job[1]))]
        log.info("%d of %s there already, and left alone", len(share) - len(missing), plural(len(share), "clip"))
        if not missing:
            return
        share = missing
    paths = [path for _, path, _ in share]
    check_clips(paths, args.overwrite)
    if not args.checkpoint.exists() and args.checkpoint == TINY:
        raise FileNotFoundError(
            f"{TINY} is missing: the miniature comes with a git checkout of the project; give --checkpoint"
        )
    # torch is imported only now, so that a wrong argument is told at once.
    from tqdm import tqdm

    from .pipeline import warn_of_cut

    model = load(args)
    settings = settings_of(args, model)
    check_clips(paths, args.overwrite, settings.frames)
    warn_of_cut([settings.negative, *(prompt for prompt, _, _ in share)], model.text.config.context_length)
    recorded = {name: value for name, value in vars(settings).items() if model.distilled or name != "original_steps"}
    if (steps_run := model.steps_run(settings)) != settings.steps:
        recorded["steps_run"] = steps_run
        log.info("%d steps do not divide 1000: DDIM runs %d", settings.steps, steps_run)
    for prompt, path, seed in share:
        with tqdm(desc=prompt[:40], unit="step", position=rank) as bar:

            def report(done: int, count: int, bar=bar) -> None:
                bar.total = count
                bar.update(done - bar.n)

            clip = model([prompt], [seed], settings, report)[0]
        note = {"prompt": prompt, "seed": seed, "checkpoint": args.checkpoint.name, **recorded}
        print(write_video(path, clip, args.save_fps, {"prompt_text": note}, overwrite=args.overwrite))


def load(args: argparse.Namespace) -> TextToVideo:
    """The checkpoint, on the device of this process. Raises what `TextToVideo` does."""
    import torch

    from .files.tensors import PRECISIONS
    from .networks.compiled import compile_layers, missing_compiler
    from .pipeline import TextToVideo

    if (args.device or "").startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {args.device}: torch finds no GPU here; expected cpu, or a torch for CUDA")
    device = device_of(args.device or _best_device(torch), int(os.environ.get("LOCAL_RANK", 0)))
    dtype = PRECISIONS[args.dtype] if args.dtype else None
    if args.compile and (missing := missing_compiler()):
        raise ValueError(f"--compile {missing}")
    model = TextToVideo(args.checkpoint, device, dtype)
    if args.compile:
        compile_layers(model.unet)
    return model


def settings_of(args: argparse.Namespace, model: TextToVideo) -> Settings:
    """The model's settings with those that the options of `add_sampling` name. Raises ValueError."""
    from .pipeline import override

    width, height = parse_size(args.size)
    settings = override(
        model.settings,
        width=width,
        height=height,
        frames=args.frames,
        steps=args.steps,
        guidance=args.guidance,
        eta=args.eta,
        fps=args.fps,
        negative=args.negative,
    )
    settings.check()
    return settings


def main(argv: list[str] | None = None) -> int:
    """The exit status: 0, 130 for Ctrl-C, 2 for what the user can put right, which one line tells."""
    args = parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A console may lack the letters of a file's name: no reason to fail once the file is there.
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return exit_status(lambda: run(args), RuntimeError, interrupted="interrupted; nothing half-written is left")


def device_of(name: str, local_rank: int) -> str:
    """`name`, where "cuda" alone is this process's own GPU."""
    return f"cuda:{local_rank}" if name == "cuda" else name


def _best_device(torch) -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


if __name__ == "__main__":
    sys.exit(main())
