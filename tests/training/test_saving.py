"""Saving beside the run: what is written is the state of its step, nothing is lost, and a failure ends the run."""

from __future__ import annotations

import logging
import threading
import zipfile

import pytest
import torch

from tests.training.test_resume import tensors
from vc2.training import checkpoint as runs
from vc2.training.loop import Trainer
from vc2.training.saving import HostCopies, Writer

STEPS = 4


@pytest.fixture
def slow_disk(monkeypatch):
    """Writing waits until it is let go on; what was begun, in order."""
    real, go_on, begun = torch.save, threading.Event(), []

    def save(state, file):
        begun.append(state["step"])
        assert go_on.wait(60)
        real(state, file)

    monkeypatch.setattr(runs.torch, "save", save)
    yield go_on, begun
    go_on.set()


def test_the_run_goes_on_while_its_state_of_before_is_written(recipe, folder, slow_disk):
    go_on, begun = slow_disk
    trainer = Trainer(recipe(), folder)
    batches = trainer.objective.batches(0, 0, 1)
    trainer.train_step(next(batches))
    trainer.meter.done({"loss": 1.0})
    expected = {name: tensor.clone() for name, tensor in tensors(trainer.state_dict()).items()}
    trainer.save(wait=False)
    trainer.train_step(next(batches))
    trainer.meter.done({"loss": 2.0})
    assert runs.all_steps(trainer.checkpoints) == []
    go_on.set()
    trainer.writer.wait()
    state = runs.latest(trainer.checkpoints)
    assert begun == [state["step"]] == [1]
    assert state["figures"] == {"loss": [1.0]}
    saved = tensors(state)
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], expected[name]) for name in expected)
    now = tensors(trainer.state_dict())
    assert not all(torch.equal(now[name], expected[name]) for name in expected)


def test_a_second_save_waits_for_the_first(recipe, folder, slow_disk):
    go_on, begun = slow_disk
    trainer = Trainer(recipe(), folder)
    batches = trainer.objective.batches(0, 0, 1)
    trainer.train_step(next(batches))
    trainer.save(wait=False)
    trainer.train_step(next(batches))
    second = threading.Thread(target=trainer.save)
    second.start()
    second.join(0.5)
    assert second.is_alive()
    assert begun == [1]
    go_on.set()
    second.join(60)
    assert begun == [1, 2]
    assert [path.name for path in runs.all_steps(trainer.checkpoints)] == ["step-00000001.pt", "step-00000002.pt"]


def test_copies_lie_in_the_same_memory_every_time():
    copies = HostCopies(torch.device("cpu"))
    a, b = torch.ones(2, 3), torch.zeros(2, 3)
    first = [copies.copy(a), copies.copy(b)]
    a.fill_(5)
    assert [float(tensor.sum()) for tensor in first] == [6.0, 0.0]
    copies.begin()
    again = [copies.copy(b), copies.copy(a), copies.copy(torch.ones(2, 3, dtype=torch.uint8))]
    assert [tensor.data_ptr() for tensor in again[:2]] == [tensor.data_ptr() for tensor in first]
    assert [float(tensor.sum()) for tensor in again] == [0.0, 30.0, 6.0]
    assert again[2].dtype == torch.uint8


def test_when_a_run_says_that_it_is_done_all_is_on_disk(recipe, folder, slow_disk, caplog):
    go_on, _ = slow_disk
    timer = threading.Timer(1.0, go_on.set)
    timer.start()
    with caplog.at_level(logging.INFO):
        assert Trainer(recipe(steps=STEPS, save_every=STEPS - 1), folder).run()
    assert [path.name for path in runs.all_steps(folder / "checkpoints")] == ["step-00000003.pt", "step-00000004.pt"]
    assert not list((folder / "checkpoints").glob(".*"))
    assert "model.safetensors" in caplog.text


def test_a_write_that_fails_ends_the_run_with_its_message(recipe, folder, monkeypatch):
    """At the next step, and not when it would save again."""
    trainer = Trainer(recipe(steps=100, save_every=2), folder)

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs.torch, "save", full_disk)
    with pytest.raises(OSError, match=r"step-00000002\.pt could not be written \(.*No space left on device"):
        trainer.run()
    assert 2 <= trainer.step <= 4
    assert runs.all_steps(trainer.checkpoints) == []


def test_what_was_being_written_is_kept_where_something_else_ends_the_run(recipe, folder, slow_disk, monkeypatch):
    go_on, _ = slow_disk
    trainer = Trainer(recipe(steps=10, save_every=2), folder)
    real = trainer.train_step

    def breaks(batch):
        if trainer.step == 2:
            threading.Timer(0.3, go_on.set).start()
            raise ValueError("broken")
        return real(batch)

    trainer.train_step = breaks
    with pytest.raises(ValueError, match="broken"):
        trainer.run()
    assert runs.latest(trainer.checkpoints)["step"] == 2


def test_a_failure_beside_another_is_told_too(caplog):
    def fails():
        raise OSError("the disk is full")

    def run(error: Exception | None) -> None:
        with Writer() as writer:
            writer.write(fails)
            if error:
                raise error

    with pytest.raises(ValueError, match="first"):
        run(ValueError("first"))
    assert "the disk is full" in caplog.text
    with pytest.raises(OSError, match="full"):
        run(None)


def test_checksums_are_left_out_of_the_file_and_of_nothing_else(tmp_path):
    path = runs.save(tmp_path, 1, {"x": torch.arange(1000.0)}, keep=1)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is not None
    assert torch.equal(runs.latest(tmp_path)["x"], torch.arange(1000.0))
    torch.save({"x": 1}, tmp_path / "other.pt")
    with zipfile.ZipFile(tmp_path / "other.pt") as archive:
        assert archive.testzip() is None


def test_a_checkpoint_that_is_gone_already_ends_no_run(tmp_path, monkeypatch):
    """Someone removed it just when the run was about to."""
    for step in (1, 2):
        runs.save(tmp_path, step, {}, keep=2)
    listed = runs.all_steps(tmp_path)
    listed[0].unlink()
    monkeypatch.setattr(runs, "all_steps", lambda folder: [*listed, runs.path_of(folder, 3)])
    assert runs.save(tmp_path, 3, {}, keep=2) == tmp_path / "step-00000003.pt"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002.pt", "step-00000003.pt"]
