"""Exact resume: killed at any point, and stopped by signals, a run ends with the same bits as one that was never
touched.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.fixtures import run020
from tests.training.processes import ended, fork, until_step
from vc2.training import checkpoint as runs
from vc2.training.loop import Trainer
from vc2.training.recipe import Recipe
from vc2.training.recipe_files import load_recipe

ROOT = Path(__file__).parent.parent.parent
STEPS = 16


@pytest.fixture(autouse=True)
def one_thread():
    """A sum's order must not depend on how many threads there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tensors(state: dict) -> dict[str, torch.Tensor]:
    """All of a checkpoint's, flat."""
    flat = {f"model {n}": t for n, t in state["model"].items()}
    flat |= {f"ema {n}": t for n, t in state["ema"]["shadow"].items()}
    return flat | {
        f"optimizer {kind} {name}": torch.as_tensor(value)
        for name, moments in state["optimizer"].items()
        for kind, value in moments.items()
    }


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Everything that a finished run leaves: the last checkpoint, optimizer and all, and averages (exported)."""
    exported = load_file(folder / "model.safetensors")
    return tensors(runs.latest(folder / "checkpoints")) | {f"file {n}": t for n, t in exported.items()}


def assert_same_bits(a: Path, b: Path) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert not [name for name in first if not torch.equal(first[name], second[name])]


def start(recipe, folder: Path) -> int:
    """A run in a process of its own."""
    return fork(lambda: 0 if Trainer(recipe, folder).run() else 130)


def last_step(folder: Path) -> int:
    found = runs.all_steps(folder / "checkpoints")
    return int(found[-1].stem[5:]) if found else 0


@pytest.mark.slow
def test_killed_at_twenty_random_points_it_ends_with_the_same_bits(recipe, folder):
    """SIGKILL, twenty times in one run, which saves at every step: kills fall into computing and into saving, before
    the first step and after.
    """
    settings = recipe(steps=64, save_every=1, batch=1, data={"clips": None})
    straight = folder.parent / "straight"
    assert ended(start(settings, straight)) == 0
    rng, at = random.Random(0), []
    for _ in range(20):
        child, before = start(settings, folder), last_step(folder)
        wanted, deadline = before + rng.randint(0, 2), time.monotonic() + 60
        while last_step(folder) < wanted and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.3))  # a step and its saving take about as long
        os.kill(child, signal.SIGKILL)
        assert ended(child) == -signal.SIGKILL  # it was still at work
        at.append(last_step(folder))
    assert len(set(at)) > 10
    assert ended(start(settings, folder)) == 0
    assert_same_bits(straight, folder)
    assert not list((folder / "checkpoints").glob(".step-*.tmp"))


def test_killed_while_it_saves_the_checkpoint_before_it_is_whole(recipe, folder, monkeypatch):
    settings = recipe(steps=STEPS, save_every=1)
    straight = folder.parent / "straight"
    assert ended(start(settings, straight)) == 0

    real = torch.save
    for written in (0.1, 0.5, 1.0):

        def half_a_save(state, file, written=written):
            if state["step"] != 3 or (folder / f"killed-{written}").exists():
                real(state, file)
                return
            (folder / f"killed-{written}").touch()
            real(state, file)
            file.truncate(int(file.tell() * written))
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(runs.torch, "save", half_a_save)
        assert ended(start(settings, folder)) == -signal.SIGKILL
        assert last_step(folder) == 2
    monkeypatch.undo()
    assert ended(start(settings, folder)) == 0
    assert_same_bits(straight, folder)


def test_through_the_command_with_signals(recipe_file, folder):
    """SIGUSR1 saves and goes on, SIGTERM saves and stops, the same command goes on to the end; readers in processes of
    their own.
    """
    recipe = recipe_file(steps=24, save_every=1000, data={"workers": 1})
    command = [sys.executable, "-m", "vc2.training", "run", "--runs", str(folder.parent), str(recipe)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr
    until_step(3, process.stderr)
    process.send_signal(signal.SIGUSR1)
    deadline = time.monotonic() + 60
    while not (saved := last_step(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert 3 <= saved < 24
    os.killpg(process.pid, signal.SIGTERM)  # as launchers and terminals do: to its readers too
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130, messages
    assert "the same command goes on" in messages
    stopped = last_step(folder)
    assert saved <= stopped < 24
    again = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    assert f"goes on from step {stopped}" in again.stderr
    other = folder.parent / "straight"
    Trainer(load_recipe(recipe, ["data.workers=0"]), other).run()
    assert_same_bits(folder, other)


def go_on(settings, folder: Path) -> None:
    """A run that is stopped and resumed in the middle, and one that is not."""
    straight = folder.parent / "straight"
    assert Trainer(settings, straight).run()
    trainer = Trainer(settings, folder)
    batches = trainer.objective.batches(0, 0, 1)
    for _ in range(3):
        trainer.train_step(next(batches))
    trainer.save()
    assert Trainer(settings, folder).run()
    assert_same_bits(straight, folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"learn": {"part": "spatial", "how": "lora", "rank": 2}},
        pytest.param(
            {"learn": {"part": "temporal", "how": "lora", "rank": 2}, "optimizer": {"final_lr": 1e-4}},
            marks=pytest.mark.slow,
        ),
        {
            "learn": {"part": "all", "how": "lora", "rank": 2},
            "compute": {"precision": "bf16", "gradient_checkpointing": True},
        },
        pytest.param({"learn": {"part": "temporal"}, "compute": {"micro_batch": 1}}, marks=pytest.mark.slow),
        {"data": {"workers": 2}},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_whatever_learns_and_however_it_goes_on_to_the_same_bits(recipe, folder, changes):
    go_on(recipe(**changes), folder)


@pytest.mark.slow
def test_8_bit_adam_goes_on_to_the_same_bits(recipe, folder):
    """bitsandbytes keeps its moments in bytes, its scales in tables, and its step as a plain number."""
    go_on(recipe(optimizer={"kind": "adamw8bit"}), folder)
    moments = [m["state1"] for m in runs.latest(folder / "checkpoints")["optimizer"].values()]
    assert {m.dtype for m in moments if m.numel() >= 4096} == {torch.uint8}


def test_a_run_begun_by_0_2_0_ends_as_it_did_there(tmp_path, monkeypatch):
    """But for what another CPU rounds differently: a step moves weights by about 1e-3."""
    monkeypatch.chdir(tmp_path)  # a checkpoint belongs to its recipe, which names its start from here
    settings, folder = load_recipe(run020.write(tmp_path)), tmp_path / "run020"
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copy(run020.HERE / "step-00000004.pt", folder / "checkpoints")
    trainer = Trainer(settings, folder)
    assert trainer.step == 4
    assert trainer.run()
    expected, state = runs.latest(run020.HERE), runs.latest(folder / "checkpoints")
    assert state.keys() == expected.keys()
    for name in ("step", "counts", "in_a_row", "figures", "start", "data"):
        assert state[name] == expected[name], name
    assert Recipe.model_validate_json(state["recipe"]) == Recipe.model_validate_json(expected["recipe"])
    result, wanted = tensors(state), tensors(expected)
    assert result.keys() == wanted.keys()
    for kind, tolerance in (
        ("model", 1e-5),
        ("ema", 1e-5),
        ("optimizer exp_avg ", 1e-6),
        ("optimizer exp_avg_sq", 1e-10),
    ):
        names = [name for name in wanted if name.startswith(kind)]
        assert len(names) > 50
        assert max(float((result[name] - wanted[name]).abs().max()) for name in names) < tolerance, kind


@contextlib.contextmanager
def not_as_root():
    """Nothing is read-only to root."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)


def test_a_read_only_folder_is_a_clear_error_and_the_checkpoint_in_it_stays(recipe, cache):
    with tempfile.TemporaryDirectory() as name:  # pytest's folders are closed to others
        run = Path(name) / "small"
        trainer = Trainer(recipe(), run, cache)
        trainer.save()
        [first] = runs.all_steps(trainer.checkpoints)
        before = first.read_bytes()
        trainer.train_step(next(trainer.objective.batches(0, 0, 1)))
        Path(name).chmod(0o755)
        trainer.checkpoints.chmod(0o555)
        with (
            not_as_root(),
            pytest.raises(OSError, match=r"step-00000001\.pt could not be written .*step-00000000\.pt, is whole"),
        ):
            trainer.save()
        assert list(trainer.checkpoints.iterdir()) == [first]
        assert first.read_bytes() == before
        trainer.checkpoints.chmod(0o755)


def test_a_folder_that_cannot_be_is_a_clear_error(recipe, folder):
    folder.mkdir()
    (folder / "checkpoints").write_text("a file stands in the way")
    trainer = Trainer(recipe(), folder)
    with pytest.raises(OSError, match=r"step-00000000\.pt could not be written .*name that with --runs"):
        trainer.save()
