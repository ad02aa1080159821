"""Where a run is ended while it shows what it has learned, or told to stop meanwhile: nothing that was due is lost, and
nothing fails that need not.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training.test_history import lines
from vc2.training import loop, trackers
from vc2.training.errors import TrainingError
from vc2.training.history import History
from vc2.training.loop import Trainer
from vc2.training.signals import Signals

ROOT = Path(__file__).parents[2]
SAMPLING = {"width": 64, "height": 64, "frames": 2, "steps": 1}
SHOWS = {
    "steps": 4,
    "save_every": 2,
    "validation": {"every": 2},
    "samples": {"every": 2, "prompts": ["a red circle"]},
    "sampling": SAMPLING,
}


class Killed(BaseException):
    pass


def killed(*_):
    raise Killed


def shown(folder: Path) -> dict[str, list[int]]:
    return {what: [line["step"] for line in lines(folder, what)] for what in ("held_out", "sampled")}


def test_what_was_due_after_a_checkpoint_is_made_where_the_run_goes_on(recipe, folder, monkeypatch):
    """Killed before it was held out, or sampled; after the last step, too."""
    settings = recipe(**SHOWS)
    for method in ("_validate", "_sample", "_validate"):
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, method, killed)
            with pytest.raises(Killed):
                Trainer(settings, folder).run()
    assert shown(folder) == {"held_out": [2], "sampled": [2]}
    assert Trainer(settings, folder).run()
    assert shown(folder) == {"held_out": [2, 4], "sampled": [2, 4]}
    before = (folder / "history.jsonl").read_bytes()
    assert Trainer(settings, folder).run()  # once more, nothing is
    assert (folder / "history.jsonl").read_bytes() == before


def test_a_run_that_is_told_to_stop_does_so_before_it_shows_anything(recipe, folder, monkeypatch):
    """A launcher that has told it waits for half a minute."""
    step = Trainer.train_step

    def stopped(trainer, batch):
        trainer.signals.stop = trainer.step == 1
        return step(trainer, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", stopped)
        assert not Trainer(recipe(**SHOWS), folder).run()
    assert shown(folder) == {"held_out": [], "sampled": []}
    assert Trainer(recipe(**SHOWS), folder).run()
    assert shown(folder) == {"held_out": [2, 4], "sampled": [2, 4]}


@pytest.mark.parametrize("error", [RuntimeError("ffmpeg failed"), OSError(22, "Invalid argument")])
def test_ffmpeg_that_is_told_to_stop_too_costs_a_clip_and_not_the_run(recipe, folder, monkeypatch, error):
    def told(accelerator, folder, step, trainer=None):
        current[0].signals.stop = step == 2
        raise error

    current = [Trainer(recipe(**SHOWS), folder)]
    with monkeypatch.context() as patch:
        patch.setattr(trackers, "log_clips", told)
        assert not current[0].run()  # saved at the step after
        assert shown(folder)["sampled"] == []  # not all of it
        current[0] = Trainer(recipe(**SHOWS), folder)
        with pytest.raises(type(error)):  # nobody has told it anything
            current[0].run()
    assert Trainer(recipe(**SHOWS), folder).run()
    assert shown(folder)["sampled"] == [4]


def test_a_clip_that_was_not_written_is_the_only_one_that_is_lost(recipe, folder, monkeypatch):
    """At the last step: the other clip is there, and the same command makes what is not."""
    settings = recipe(**{**SHOWS, "steps": 2, "samples": {"every": 2, "prompts": ["a red circle", "a blue square"]}})
    trainer, write = Trainer(settings, folder), loop.write_video

    def told(path, *arguments):
        if path.name.startswith("00"):
            trainer.signals.stop = True
            raise RuntimeError("ffmpeg failed")
        return write(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "write_video", told)
        assert trainer.run()
    assert trainer.network.training
    there = folder / "samples" / "step-00000002"
    assert [path.name for path in there.glob("*.mp4")] == ["01-a-blue-square.mp4"]
    assert shown(folder)["sampled"] == []
    assert Trainer(settings, folder).run()
    assert len(list(there.glob("*.mp4"))) == 2
    assert shown(folder) == {"held_out": [2], "sampled": [2]}


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("sample", r"sampling at step 2 ran out of memory \(CUDA out of memory\); try sampling\.width"),
        ("export", r"memory ran out beside a step \(CUDA out of memory\)"),
        ("validate", r"validation at step 2 ran out of memory \(CUDA out of memory\); try fewer frames"),
    ],
)
def test_what_ran_out_of_memory_is_named_with_what_helps(recipe, folder, monkeypatch, method, message):
    trainer = Trainer(recipe(**SHOWS), folder)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory\nTried to allocate")

    monkeypatch.setattr(trainer.objective, method, full)
    with pytest.raises(TrainingError, match=message):
        trainer.run()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_signals_that_a_run_was_started_to_ignore_stay_ignored():
    code = """
import os, signal
from vc2.training.signals import Signals
asked = Signals()
with asked.answered():
    os.kill(os.getpid(), signal.SIGHUP)
    ignored = not asked.stop
    os.kill(os.getpid(), signal.SIGTERM)
    print(ignored, asked.stop, signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)
"""
    command = ["nohup", sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.stdout.split() == ["True", "True", "True"]
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # this process may be one of those
    try:
        asked = Signals()
        with asked.answered():
            os.kill(os.getpid(), signal.SIGHUP)
        assert asked.stop
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_first_try_that_failed_leaves_no_recipe_behind(recipe, tmp_path):
    History(tmp_path).begin(0, recipe(optimizer={"lr": 0.5}))
    name = History(tmp_path).name
    History(tmp_path).begin(0, recipe(optimizer={"lr": 0.1}))
    [line] = lines(tmp_path, "begun")
    assert line["recipe"]["optimizer"]["lr"] == 0.1
    assert line["begun"] == name  # by which trackers know the run
    History(tmp_path).begin(2, recipe(optimizer={"lr": 0.2}))
    assert lines(tmp_path, "begun") == [line]
