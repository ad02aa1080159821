"""What a run writes: checkpoints that are whole, a file to load, held-out losses, clips, and figures for trackers."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from tests.training.processes import ended, fork
from tests.training.runs import photos, train
from tests.training.test_resume import last_step
from vc2.files import checkpoint
from vc2.files.video import read_video
from vc2.training import checkpoint as runs
from vc2.training.errors import RecipeError
from vc2.training.loop import Trainer


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    runs.save(tmp_path, 1, {"x": torch.ones(3)}, keep=2)

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs.torch, "save", full_disk)
    with pytest.raises(OSError, match=r"No space left.*step-00000001\.pt, is whole"):
        runs.save(tmp_path, 2, {"x": torch.zeros(3)}, keep=2)
    assert runs.latest(tmp_path)["step"] == 1
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
def test_a_device_that_is_really_full_says_so(tmp_path, monkeypatch):
    """torch reports a write that failed late in its own way; it must come out as the same clear error."""
    runs.save(tmp_path, 1, {"x": torch.ones(3)}, keep=2)
    real = open
    monkeypatch.setattr(
        "builtins.open",
        lambda path, mode="r", *a, **k: (
            real("/dev/full", mode) if str(path).endswith(".tmp") else real(path, mode, *a, **k)
        ),
    )
    with pytest.raises(OSError, match=r"could not be written .*step-00000001\.pt, is whole"):
        runs.save(tmp_path, 2, {"x": torch.zeros(3_000_000)}, keep=2)
    monkeypatch.undo()
    assert runs.latest(tmp_path)["step"] == 1


@pytest.mark.parametrize("damage", [lambda whole: b"", lambda whole: whole[: len(whole) // 2], lambda whole: b"x" * 99])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    runs.save(tmp_path, 1, {"weights": torch.zeros(1000)}, keep=2)
    path = runs.path_of(tmp_path, 2)
    path.write_bytes(damage(runs.path_of(tmp_path, 1).read_bytes()))
    with pytest.raises(
        RecipeError, match=rf"{path.name} is not a whole checkpoint \(.*remove it: the run then goes on"
    ):
        runs.load(tmp_path)
    path.unlink()
    assert runs.load(tmp_path)["step"] == 1


def test_checkpoints_are_rotated(recipe, folder):
    Trainer(recipe(steps=6, save_every=1, keep=3), folder).run()
    assert [p.name for p in runs.all_steps(folder / "checkpoints")] == [f"step-{k:08d}.pt" for k in (4, 5, 6)]


def test_the_exported_file_is_a_whole_checkpoint(recipe, folder):
    Trainer(recipe(steps=1, sampling={"width": 64}), folder).run()
    loaded = checkpoint.load(folder / "model.safetensors")
    assert loaded.vae
    assert loaded.text
    assert loaded.schedule.rescaled
    assert loaded.metadata["sampling"] == '{"width": 64}'


def test_validation_repeats_its_noise_and_timesteps_and_changes_nothing(recipe, folder):
    trainer = Trainer(recipe(validation={"every": 1, "quantiles": [0.1, 0.9]}), folder)
    samples = trainer.objective.held_out
    assert {medium: len(some) for medium, some in samples.items()} == {"clips": 4, "images": 4}
    first = trainer.objective.validate(trainer.model, trainer.accelerator)
    assert first == trainer.objective.validate(trainer.model, trainer.accelerator)
    assert {"clips t=100", "images t=900", "clips"} <= set(first)
    with_validation = train(trainer, 1)
    plain = Trainer(recipe(), folder.parent / "plain")
    assert with_validation == train(plain, 1)
    assert trainer.network.training


def test_clips_are_sampled_while_it_trains(recipe, folder, monkeypatch):
    settings = {"width": 64, "height": 64, "frames": 3, "steps": 2, "fps": 8, "guidance": 2.0}
    samples = {"every": 2, "prompts": ["a red circle", "a blue square"]}
    trainer, seen = Trainer(recipe(steps=2, samples=samples, sampling=settings), folder), []
    real = trainer.objective.sample

    def spy(*arguments):
        seen.append({name: p.detach().clone() for name, p in trainer.network.named_parameters()})
        assert last_step(folder) == 2  # kept before anything else can go wrong
        return real(*arguments)

    monkeypatch.setattr(trainer.objective, "sample", spy)
    assert trainer.run()
    averages, [sampled] = trainer.ema.weights(), seen
    assert all(torch.equal(sampled[name], average) for name, average in averages.items())
    assert not all(torch.equal(p, sampled[name]) for name, p in trainer.network.named_parameters())
    clips = sorted((folder / "samples" / "step-00000002").iterdir())
    assert [p.name for p in clips] == ["00-a-red-circle.mp4", "01-a-blue-square.mp4"]
    assert read_video(clips[0]).shape == (3, 64, 64, 3)
    assert len(read_video(folder / "first-batch.mp4")) in (1, 2, 4)


def test_trackers_get_the_figures(recipe, folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shows = {
        "validation": {"every": 4, "metrics": ["duplicates"]},
        "samples": {"every": 4, "prompts": ["a red circle"]},
        "sampling": {"width": 64, "height": 64, "frames": 3, "steps": 1},
    }
    Trainer(recipe(steps=4, log_every=2, trackers=["tensorboard"], **shows), folder).run()
    events = EventAccumulator(str(next(p.parent for p in folder.rglob("events.out*"))))
    events.Reload()
    of_training = {"loss", "grad_norm", "clips/s", "data_wait", "lr", "data/broken"}
    assert of_training | {"validation/clips", "samples/duplicates"} <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("loss")] == [2, 4]


def test_a_resumed_run_logs_what_one_that_was_never_stopped_logs(recipe, folder, tmp_path):
    """Killed after its last checkpoint: what came after is logged again, and counts once; and a mean is of all its
    steps.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    images = photos(tmp_path / "photos", good=12, bad=4)
    settings = {"steps": 8, "log_every": 2, "save_every": 3, "trackers": ["tensorboard"]}
    settings["data"] = {"clips": None, "images": images, "held_out": 0, "broken_share": 1.0}

    def logged(run):
        events = EventAccumulator(str(next(p.parent for p in run.rglob("events.out*"))))
        events.Reload()
        return {e.step: e.value for e in events.Scalars("loss")}, {
            e.step: e.value for e in events.Scalars("data/broken")
        }

    straight = folder.parent / "straight"
    assert ended(fork(lambda: 0 if Trainer(recipe(**settings), straight).run() else 1)) == 0

    def killed():
        trainer = Trainer(recipe(**settings), folder)
        real, trainer.train_step = (
            trainer.train_step,
            lambda batch: real(batch) if trainer.step < 5 else os.kill(os.getpid(), signal.SIGKILL),
        )
        trainer.run()

    assert ended(fork(killed)) == -signal.SIGKILL
    assert last_step(folder) == 3
    again = (folder / "skipped.txt").read_text()
    assert "step 3:" in again or "step 4:" in again  # of steps that will be done again
    assert ended(fork(lambda: 0 if Trainer(recipe(**settings), folder).run() else 1)) == 0
    assert logged(folder) == logged(straight)
    assert (folder / "skipped.txt").read_text() == (straight / "skipped.txt").read_text()
