"""Throughput, MFU, memory and the wait for data of training at VideoCrafter2's size, on one GPU. Writes
docs/training_gpu.md.

    make bench-training-gpu
    make bench-training-gpu ARGS="--recipes F-Spa-LORA --set compute.micro_batch=8"

Each recipe runs as it is written, with the share of its batch that one GPU has, through the trainer itself. Stand-ins
are only the weights (random, of the official size) and the files of the data sets: mp4 clips of WebVid's size and
length and pictures of 1024x1024, made here and read, decoded, cropped and encoded like any others. `--miniature` tries
the bench itself where there is no GPU: small networks, a small report, nothing written.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from bench.full_size import write_checkpoint
from tests import standin
from vc2.files.video import write_video
from vc2.training.cost import UTILISATION
from vc2.training.estimate import estimate, memory
from vc2.training.loop import Trainer
from vc2.training.meter import Meter
from vc2.training.prepare import prepare
from vc2.training.recipe import Recipe
from vc2.training.recipe_files import load_recipe

ROOT = Path(__file__).parent.parent
# On how many GPUs the paper trains each (section 4.1), and what a person with one card would run.
GPUS = {"F-base": 32, "F-Spa-DIR": 8, "F-Spa-LORA": 8, "your-images": 1}
WARM_UP, STEPS = 8, 48  # steps; at P(image) = 1/16 both kinds of F-base's are among 48
CLIPS, PICTURES = 64, 256
WEBVID = (336, 596, 120, 25.0)  # height, width, frames, fps
GOALS = {"F-base": 60, "F-Spa-LORA": 16}  # GB


@dataclass
class Result:
    step: float  # seconds
    samples: float  # a second: clips, or images on image-only data
    mfu: float  # 0 where the device's peak is unknown
    waited: float  # share of the time
    peak: float  # GB that tensors took at their most
    estimated: float  # GB, by `check`


def write_data(folder: Path, miniature: bool, clips: int = CLIPS, pictures: int = PICTURES) -> None:
    """Moving noise under a gradient: about as hard to decode as a film, and different in every file."""
    height, width, frames, fps = (48, 64, 20, 25.0) if miniature else WEBVID
    side, clips, pictures = (64, min(clips, 4), min(pictures, 16)) if miniature else (1024, clips, pictures)
    rng = np.random.default_rng(0)

    def texture(h: int, w: int) -> np.ndarray:
        coarse = Image.fromarray(rng.integers(0, 256, (h // 8, w // 8, 3), np.uint8)).resize(
            (w, h), Image.Resampling.BICUBIC
        )
        return (0.8 * np.asarray(coarse) + 0.2 * rng.integers(0, 256, (h, w, 3))).astype(np.uint8)

    (folder / "pictures").mkdir(parents=True)
    for k in tqdm(range(pictures), desc="writing pictures"):
        Image.fromarray(texture(side, side)).save(folder / "pictures" / f"{k}.jpg", quality=92)
        (folder / "pictures" / f"{k}.txt").write_text(f"picture number {k}, in many colours")
    for k in tqdm(range(clips), desc="writing clips"):
        scene = texture(height, width + frames)
        write_video(
            folder / "clips" / f"{k}.mp4", (np.ascontiguousarray(scene[:, t : t + width]) for t in range(frames)), fps
        )
        (folder / "clips" / f"{k}.txt").write_text(f"clip number {k}, moving left")


def recipe_of(name: str, folder: Path, miniature: bool, changes: list[str]) -> Recipe:
    """The recipe as it is written, on the files in `folder`, with one GPU's share of the batch."""
    written = load_recipe(name)
    overrides = [
        f"init={{unet: {folder / 'model.safetensors'}}}",
        "trackers=[]",
        f"steps={STEPS}",
        "save_every=1000000",
        "data.held_out=0",
        "validation.every=0",
        "samples.every=0",
        f"batch={written.batch // GPUS[name]}",
    ]
    for medium, source in written.data.sources.items():
        files = folder / ("clips" if medium == "clips" else "pictures")
        overrides.append(f"data.{medium}={{kind: folder, path: {files}, prepared: {source.prepared}}}")
    if miniature:
        overrides += [
            "data.width=64",
            "data.height=64",
            "batch=2",
            "steps=10",
            "compute.precision=fp32",
            "compute.micro_batch=null",
            "data.lengths=[[4, 1, 2]]",
            "data.workers=1",
        ]
    return load_recipe(name, overrides + changes)


def measure(recipe: Recipe, folder: Path) -> Result:
    """Steps of the trainer, after some to warm up."""
    cache = folder / "cache"
    if any(source.prepared != "no" for source in recipe.data.sources.values()):
        prepare(recipe, cache)
    trainer = Trainer(recipe, folder / "runs" / recipe.name, cache)
    meter = Meter(recipe, trainer.objective, trainer.accelerator)
    batches, warm_up = trainer.objective.batches(0, 0, 1), min(WARM_UP, recipe.steps // 2)
    cuda = torch.cuda.is_available()
    for step in tqdm(range(recipe.steps), desc=recipe.name):
        if step == warm_up:
            meter.averages()
            if cuda:
                torch.cuda.reset_peak_memory_stats()
        meter.wait()
        batch = next(batches)
        meter.compute(batch)
        meter.done(trainer.train_step(batch))
    means = meter.averages()
    peak = torch.cuda.max_memory_allocated() / 1e9 if cuda else 0.0
    return Result(
        recipe.batch / means["clips/s"],
        means["clips/s"],
        means.get("mfu", 0.0),
        means["data_wait"],
        peak,
        memory(recipe, estimate(recipe)) / 1e9,
    )


def run(name: str, folder: Path, args: argparse.Namespace) -> Result | str:
    """In a process of its own, so that one that runs out of memory leaves the others theirs; or how one failed."""
    command = [sys.executable, "-m", "bench.training_gpu", "--only", name, "--folder", str(folder), "--set", *args.set]
    result = subprocess.run(
        command + ["--miniature"] * args.miniature,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=None,
        text=True,
        check=False,
    )
    return (
        Result(**json.loads(result.stdout.splitlines()[-1]))
        if result.returncode == 0
        else f"failed with status {result.returncode}; its messages are above"
    )


def report(results: dict[str, Result | str], changes: list[str], device: str) -> str:
    rows = []
    for name, r in results.items():
        if isinstance(r, str):
            rows.append(f"| {name} | {r} | | | | | |")
            continue
        goal = f" (goal {GOALS[name]})" if name in GOALS else ""
        rows.append(
            f"| {name} | {r.step:.2f} s | {r.samples:.2f} | {r.mfu:.1%} | {r.peak:.1f} GB{goal} | {r.estimated:.1f} GB"
            f" | {r.waited:.1%} |"
        )
    where = f"{device}, {os.cpu_count()} CPU cores, torch {torch.__version__}"
    where += f", with {' '.join(changes)}" if changes else ""
    table = "\n".join(rows)
    return f"""# Training at full size on one GPU

Made by `make bench-training-gpu` on {where}.
Each recipe as it is written, with the share of its batch that one of its GPUs has; {STEPS - WARM_UP} steps through the
trainer after {WARM_UP} to warm up. Weights are random; clips are mp4 of 596x336, pictures jpg of 1024x1024, read and
decoded as any others. Goals: 45 % MFU in bf16 (the hours
that `check` tells assume {100 * UTILISATION:.0f} %), less than 2 % of the time waiting for data.

| recipe | step | samples a second | MFU | peak memory | estimated by `check` | waiting for data |
| --- | --- | --- | --- | --- | --- | --- |
{table}

MFU counts the UNet's own forward and backward pass. What gradient checkpointing computes again, and the work of the
autoencoder and the text encoder, are not in it.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", nargs="+", default=list(GPUS), choices=list(GPUS))
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="key=value", help="changes to every recipe, e.g. data.workers=12"
    )
    parser.add_argument(
        "--miniature", action="store_true", help="small networks, to try the bench itself; nothing is written"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "training_gpu.md")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(asdict(measure(recipe_of(args.only, args.folder, args.miniature, args.set), args.folder))))
        return
    if not torch.cuda.is_available() and not args.miniature:
        sys.exit("there is no CUDA device here; --miniature tries the bench on a CPU")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.miniature:
            standin.write(folder / "model.safetensors")
        else:
            write_checkpoint(folder / "model.safetensors")
        write_data(folder, args.miniature)
        results = {recipe: run(recipe, folder, args) for recipe in args.recipes}
    text = report(results, args.set, torch.cuda.get_device_name() if torch.cuda.is_available() else "a CPU")
    if not args.miniature:
        args.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
