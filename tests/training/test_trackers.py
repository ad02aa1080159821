"""What trackers get of a run besides its figures: recipe, clips, and the same run again after a resume."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vc2.training import trackers
from vc2.training.history import History
from vc2.training.loop import Trainer
from vc2.training.recipe import Recipe

SAMPLED = {
    "steps": 4,
    "samples": {"every": 2, "prompts": ["a red circle"]},
    "sampling": {"width": 64, "height": 32, "frames": 3, "steps": 1, "fps": 8},
}


def events(folder) -> EventAccumulator:
    [path] = {path.parent for path in folder.rglob("events.out*")}
    accumulator = EventAccumulator(str(path), size_guidance={"images": 0})
    accumulator.Reload()
    return accumulator


def test_tensorboard_shows_the_recipe_and_the_clips(recipe, folder):
    measured = {"metrics": ["noise", "temporal_information"]}
    settings = recipe(**SAMPLED, validation=measured, trackers=["tensorboard"])
    trainer = Trainer(settings, folder)
    assert trainer.run()
    found = events(folder)
    assert [scalar.step for scalar in found.Scalars("samples/noise")] == [2, 4]
    assert all(scalar.value > 0 for scalar in found.Scalars("samples/temporal_information"))
    assert not any(name.startswith("samples/blur") for name in found.Tags()["scalars"])  # of the same metric, not asked
    [text] = found.Tensors("recipe/text_summary")
    shown = text.tensor_proto.string_val[0].decode()
    assert Recipe.model_validate(yaml.safe_load(shown)) == trainer.recipe
    clips = found.Images("samples/00-a-red-circle")
    assert [clip.step for clip in clips] == [2, 4]
    gif = Image.open(io.BytesIO(clips[-1].encoded_image_string))
    assert (gif.format, gif.n_frames, gif.size) == ("GIF", 3, (64, 32))
    assert gif.info["duration"] == pytest.approx(1000 / 8, abs=10)
    assert not list(folder.rglob("*.gif"))


def test_settings_are_flat(recipe):
    flat = trackers.settings(recipe(optimizer={"lr": 3e-4}))
    assert flat["optimizer.lr"] == 3e-4
    assert flat["data.clips.kind"] == "procedural"
    assert json.loads(flat["data.lengths"]) == [[4, 1, 2], [2, 1, 1]]
    assert flat["learn.alpha"] == "null"
    assert all(isinstance(value, str | int | float) for value in flat.values())


def test_wandb_gets_one_project_and_the_same_run_after_a_resume(recipe, folder, monkeypatch):
    """Without a network, into a folder; as if it had been run there."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    begun, logged, real = [], [], wandb.init

    def init(**settings):
        begun.append(settings)
        run = real(**settings)
        log = run.log
        monkeypatch.setattr(run, "log", lambda values, step=None, **k: logged.append(values) or log(values, step=step))
        return run

    monkeypatch.setattr(wandb, "init", init)
    settings = recipe(**SAMPLED, trackers=["wandb"])
    first = Trainer(settings, folder)
    first.signals.stop = True  # one step, as if told to stop
    assert not first.run()
    assert Trainer(settings, folder).run()
    name = History(folder).name
    for given in begun:
        assert (given["project"], given["name"], given["id"], given["resume"]) == (
            "videocrafter2",
            "small",
            name,
            "allow",
        )
    assert len(begun) == 2
    assert wandb.run is None  # ended
    [clip] = [values["samples/00-a-red-circle"] for values in logged if "samples/00-a-red-circle" in values][-1:]
    assert isinstance(clip, wandb.Video)
    assert any("loss" in values for values in logged)
    assert list(folder.glob("wandb/offline-run-*"))


def test_a_tracker_that_cannot_play_clips_is_left_in_peace(recipe, folder):
    from accelerate.tracking import GeneralTracker

    class Plain(GeneralTracker):
        name, requires_logging_directory = "plain", False
        tracker = None

    trainer = Trainer(recipe(), folder)
    trainer.accelerator.trackers = [Plain()]
    (folder / "samples").mkdir(parents=True)
    (folder / "samples" / "00-a.mp4").write_bytes(b"")
    trackers.log_clips(trainer.accelerator, folder / "samples", 1)


def test_frames_of_a_clip_are_those_that_were_sampled(recipe, folder, monkeypatch):
    """Of the run's own colours, not a palette of noise."""
    from vc2.files.video import write_video

    trainer = Trainer(recipe(trackers=["tensorboard"]), folder)
    trackers.begin(trainer.accelerator, trainer.recipe, folder, 0, "x")
    clip = np.zeros((2, 32, 48, 3), np.uint8)
    clip[0, ..., 0], clip[1, ..., 2] = 200, 200
    write_video(folder / "samples" / "clip.mp4", list(clip), 6)
    trackers.log_clips(trainer.accelerator, folder / "samples", 7)
    trainer.accelerator.end_training()
    [shown] = events(folder).Images("samples/clip")
    gif = Image.open(io.BytesIO(shown.encoded_image_string))
    for k, colour in enumerate(((200, 0, 0), (0, 0, 200))):
        gif.seek(k)
        assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - colour).max() < 12
    assert (shown.step, shown.width, shown.height) == (7, 48, 32)
