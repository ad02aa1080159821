"""Two and four processes (gloo) do what one does at the same global batch, to float error; validation and saving hold nobody up."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from vc2.training import checkpoint as runs
from vc2.training.config import RecipeError
from vc2.training.loop import Trainer

ROOT = Path(__file__).parent.parent.parent
STEPS = 6


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def together(world: int, work) -> None:
    """Run `work(rank)` in `world` processes that know of one another, as `accelerate launch --cpu` would start them."""
    port, children = free_port(), []
    for rank in range(world):
        child = os.fork()
        if child:
            children.append(child)
            continue
        code = 1
        try:
            if world > 1:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                os.environ["ACCELERATE_USE_CPU"] = "true"
            for state in (AcceleratorState, GradientState, PartialState):
                state._reset_state()
            torch.set_num_threads(1)
            work(rank)
            code = 0
        except Exception:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * world


def curve(recipe, folder: Path, world: int) -> list[float]:
    """The losses of a run, as every process saw them."""
    out = folder.parent / f"{folder.name}-{world}.json"

    def work(rank: int) -> None:
        trainer = Trainer(recipe, folder)
        assert trainer.accelerator.num_processes == world
        losses, real = [], trainer.train_step

        def step(batch):
            losses.append(real(batch))
            return losses[-1]

        trainer.train_step = step
        trainer.run()
        out.with_suffix(f".{rank}").write_text(json.dumps([[x["loss"], x["grad_norm"]] for x in losses]))

    together(world, work)
    found = [json.loads(out.with_suffix(f".{rank}").read_text()) for rank in range(world)]
    assert all(f == found[0] for f in found)
    return [value for pair in found[0] for value in pair]


def final(folder: Path) -> dict[str, torch.Tensor]:
    return runs.latest(folder / "checkpoints")["model"]


@pytest.mark.parametrize(("world", "sharding"), [(2, "none"), (4, "none"), (2, "full")])
def test_many_processes_are_one(recipe, folder, world, sharding):
    settings = {"steps": STEPS, "batch": 4, "save_every": 3, "diffusion": {"dropout": 0.0}, "validation": {"every": 2}}
    alone = curve(recipe(**settings), folder.parent / "alone", 1)
    shared = curve(recipe(**settings, compute={"sharding": sharding}), folder.parent / "shared", world)
    assert len(alone) == 2 * STEPS
    assert shared == pytest.approx(alone, rel=2e-3)
    a, b = final(folder.parent / "alone"), final(folder.parent / "shared")
    assert a.keys() == b.keys()
    # Adam divides by the gradient's size: where that is rounding, so is the step. Weights are compared by what most of them do.
    moved = torch.cat([(a[name] - b[name]).flatten().abs() for name in a])
    assert moved.mean() < 2e-5
    assert (folder.parent / "shared" / "model.safetensors").is_file()


def test_images_alone_and_a_lora_too(recipe, folder):
    settings = {"steps": 4, "batch": 4, "data": {"clips": None}, "learn": {"part": "spatial", "how": "lora", "rank": 2}, "compute": {"micro_batch": 1}}
    assert curve(recipe(**settings), folder.parent / "two", 2) == pytest.approx(curve(recipe(**settings), folder.parent / "one", 1), rel=2e-3)


def test_a_checkpoint_serves_any_number_of_processes(recipe, folder):
    settings = {"batch": 4, "diffusion": {"dropout": 0.0}, "validation": {"every": 0}, "save_every": 3}
    straight = curve(recipe(steps=STEPS, **settings), folder.parent / "straight", 1)
    first = curve(recipe(steps=3, **settings, compute={"sharding": "full"}), folder.parent / "parted", 2)
    then = curve(recipe(steps=STEPS, **settings), folder.parent / "parted", 1)
    assert first + then == pytest.approx(straight, rel=2e-3)


def test_one_process_being_told_stops_all(recipe, folder):
    settings = recipe(steps=50, batch=2, save_every=100)

    def work(rank: int) -> None:
        trainer = Trainer(settings, folder)
        if rank == 1:
            trainer.asked_to_stop = True
        assert trainer.run() is False
        assert trainer.step == 1

    together(2, work)
    assert runs.latest(folder / "checkpoints")["step"] == 1


def test_a_save_that_fails_ends_every_process(recipe, folder, monkeypatch):
    settings = recipe(steps=4, batch=2, save_every=2)

    def work(rank: int) -> None:
        trainer = Trainer(settings, folder)

        def full_disk(*args, **kwargs):
            raise OSError(28, "No space left on device")

        runs.torch.save = full_disk
        with pytest.raises(OSError, match="No space left" if rank == 0 else "the first process could not save"):
            trainer.run()

    together(2, work)


def test_a_batch_that_does_not_divide_is_refused(recipe, folder):
    settings = recipe(batch=3)

    def work(rank: int) -> None:
        with pytest.raises(RecipeError, match=r"batch 3 does not divide into 2 processes .* a multiple of 2"):
            Trainer(settings, folder)

    together(2, work)


def test_through_accelerate_launch(recipe_file, folder):
    """The command of the README."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--main_process_port", str(free_port())]
    command += ["-m", "vc2.training", "run", str(recipe_file(steps=2)), "--runs", str(folder.parent)]
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert (folder / "model.safetensors").is_file()
    assert len([line for line in result.stderr.splitlines() if "wrote" in line]) == 1
