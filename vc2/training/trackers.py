"""What trackers get of a run besides its figures: the recipe, one project for all runs, a name by which a resumed run
is the same one, and the sample clips.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker

from ..files.video import read_clip, write_video
from .recipe import Recipe

PROJECT = "videocrafter2"


def begin(accelerator: Accelerator, recipe: Recipe, folder: Path, step: int, run: str) -> None:
    """Start the recipe's trackers, on the first process. `run` is the name that no other run has.

    TensorBoard's events lie in `folder`; services (wandb, ...) get the run in the project `videocrafter2`, and wandb
    goes on with it where it is resumed. What a killed run logged after `step` will be logged again.
    """
    # Built here, since TensorBoard's folders are named after the run and not after the project.
    events = TensorBoardTracker(recipe.name, folder / "events", purge_step=step + 1)
    accelerator.log_with = [events if name == "tensorboard" else name for name in recipe.trackers]
    wandb = {"name": recipe.name, "id": run, "resume": "allow", "dir": str(folder)}
    accelerator.init_trackers(PROJECT, init_kwargs={"wandb": wandb, "trackio": {"name": run, "resume": "allow"}})
    if not accelerator.is_main_process:
        return
    for tracker in accelerator.trackers:
        if isinstance(tracker, TensorBoardTracker):
            # Its own way of keeping settings makes another run of them, each time.
            text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
            tracker.writer.add_text("recipe", "".join(f"    {line}\n" for line in text.splitlines()), step)
        else:
            tracker.store_init_configuration(settings(recipe))


def settings(recipe: Recipe) -> dict[str, Any]:
    """The recipe as trackers take it: dotted keys, each with a number or a text."""
    flat: dict[str, Any] = {}

    def put(tree: dict[str, Any], above: str) -> None:
        for name, value in tree.items():
            if isinstance(value, dict):
                put(value, f"{above}{name}.")
            else:
                flat[above + name] = value if isinstance(value, str | int | float) else json.dumps(value)

    put(recipe.model_dump(mode="json"), "")
    return flat


def log_clips(accelerator: Accelerator, folder: Path, step: int) -> None:
    """Show the mp4 files in `folder` to the trackers that can play them: TensorBoard and wandb."""
    if not accelerator.is_main_process:
        return
    for tracker in accelerator.trackers:
        for path in sorted(folder.glob("*.mp4")):
            _log_clip(tracker, path, step)


def _log_clip(tracker: GeneralTracker, path: Path, step: int) -> None:
    name = f"samples/{path.stem}"
    if isinstance(tracker, WandBTracker):
        import wandb

        tracker.log({name: wandb.Video(str(path), format="mp4")}, step=step)
    elif isinstance(tracker, TensorBoardTracker):
        from tensorboard.compat.proto.summary_pb2 import Summary

        # What is written of a video there is an animated gif among the images; torch's own way needs moviepy.
        frames, fps = read_clip(path)
        gif = write_video(path.with_suffix(".gif"), list(frames), fps)
        height, width = frames.shape[1:3]
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif.read_bytes())
        gif.unlink()
        tracker.writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)
        tracker.writer.flush()
