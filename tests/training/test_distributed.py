"""Two and four processes (gloo) do what one does at the same global batch, to float error; validation and saving hold
nobody up.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import weakref
from pathlib import Path

import psutil
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from safetensors.torch import load_file

from tests.training.processes import all_ended, fork, until_step
from vc2.networks import compiled as compiled_layers
from vc2.training import checkpoint as runs
from vc2.training import kernels
from vc2.training.errors import RecipeError
from vc2.training.loop import Trainer

ROOT = Path(__file__).parent.parent.parent
STEPS = 6


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def together(world: int, work) -> None:
    """Run `work(rank)` in `world` processes that know of one another, as `accelerate launch --cpu` would start them."""
    port = free_port()

    def begin(rank: int) -> None:
        if world > 1:
            os.environ |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
            os.environ["ACCELERATE_USE_CPU"] = "true"
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()
        torch.set_num_threads(1)
        work(rank)

    children = [fork(lambda rank=rank: begin(rank)) for rank in range(world)]
    assert all_ended(children) == [0] * world


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
    """All that a run leaves to go on with, flat."""
    state = runs.latest(folder / "checkpoints")
    flat = {f"model {name}": tensor for name, tensor in state["model"].items()}
    for name, moments in state["optimizer"].items():
        flat |= {f"{kind} {name}": tensor for kind, tensor in moments.items()}
    return flat | {f"ema {name}": tensor for name, tensor in state["ema"]["shadow"].items()}


@pytest.mark.parametrize(
    "shared_by", [[(2, "none"), (2, "full")], pytest.param([(4, "none")], marks=pytest.mark.slow)], ids=["two", "four"]
)
def test_many_processes_are_one(recipe, folder, shared_by):
    settings = {"steps": STEPS, "batch": 4, "save_every": 3, "diffusion": {"dropout": 0.0}, "validation": {"every": 2}}
    alone = curve(recipe(**settings), folder.parent / "alone", 1)
    assert len(alone) == 2 * STEPS
    a = final(folder.parent / "alone")
    for world, sharding in shared_by:
        run = folder.parent / f"{world}-{sharding}"
        shared = curve(recipe(**settings, compute={"sharding": sharding}), run, world)
        assert shared == pytest.approx(alone, rel=2e-3), run.name
        b = final(run)
        assert a.keys() == b.keys()
        # Adam divides by the gradient's size: where that is rounding, so is the step. Weights are compared by what most
        # of them do.
        moved = torch.cat([(a[name] - b[name]).flatten().abs() for name in a if name.startswith("model ")])
        assert moved.mean() < 2e-5, run.name
        assert all(a[name].dtype == b[name].dtype and a[name].shape == b[name].shape for name in a)
        assert (run / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_processes_distil_as_one(recipe, folder, start, sharding):
    settings = {
        "objective": "consistency",
        "init": {"unet": start},
        "steps": 3,
        "batch": 2,
        "data": {"images": None, "caption_dropout": 0},
        "diffusion": {"dropout": 0.0},
        "consistency": {"timesteps": 20},
        "learn": {"part": "all"},
    }
    assert curve(recipe(**settings, compute={"sharding": sharding}), folder.parent / "two", 2) == pytest.approx(
        curve(recipe(**settings), folder.parent / "one", 1), rel=2e-3
    )


def test_images_alone_and_a_lora_too(recipe, folder):
    settings = {
        "steps": 4,
        "batch": 4,
        "data": {"clips": None},
        "learn": {"part": "spatial", "how": "lora", "rank": 2},
        "compute": {"micro_batch": 1},
    }
    assert curve(recipe(**settings), folder.parent / "two", 2) == pytest.approx(
        curve(recipe(**settings), folder.parent / "one", 1), rel=2e-3
    )
    one, two = final(folder.parent / "one"), final(folder.parent / "two")
    for name in (name for name in one if name.startswith("model ") and name.endswith("lora_B.weight")):
        assert one[name].any(), name  # zero at first, and decay would leave it so
    # Without the exchange of gradients each process would follow its own half of the batch.
    moved = torch.cat([(one[name] - two[name]).flatten().abs() for name in one if name.startswith("model ")])
    size = torch.cat(
        [one[name].flatten().abs() for name in one if name.endswith("lora_B.weight") and name.startswith("model ")]
    )
    assert moved.mean() < 0.02 * size.mean()


@pytest.mark.slow
def test_compiled_layers_are_shared_among_processes_too(recipe, folder, monkeypatch):
    """With torch's tracing but no compiler, as in test_kernels."""
    traced = folder.parent / "traced"
    traced.mkdir()

    def backend(graph, _):
        (traced / f"{os.environ['RANK']}-{sharding}").touch()
        return graph.forward

    monkeypatch.setattr(compiled_layers, "BACKEND", backend)
    monkeypatch.setattr(kernels, "require_compiler", lambda: None)
    settings = {
        "steps": 2,
        "batch": 4,
        "data": {"images": None, "lengths": [[2, 1, 1]]},
        "diffusion": {"dropout": 0.0},
        "optimizer": {"warmup": 0},  # so that the second step shows what the first has learned
    }
    alone = curve(recipe(**settings), folder.parent / "alone", 1)
    for sharding in ("none", "full"):
        compiled = recipe(**settings, compute={"compile": True, "sharding": sharding})
        assert curve(compiled, folder.parent / sharding, 2) == pytest.approx(alone, rel=2e-3), sharding
    assert {path.name for path in traced.iterdir()} == {"0-none", "1-none", "0-full", "1-full"}


@pytest.mark.slow
def test_a_checkpoint_serves_any_number_of_processes(recipe, folder):
    settings = {"batch": 4, "diffusion": {"dropout": 0.0}, "validation": {"every": 0}, "save_every": 3}
    straight = curve(recipe(steps=STEPS, **settings), folder.parent / "straight", 1)
    first = curve(recipe(steps=3, **settings, compute={"sharding": "full"}), folder.parent / "parted", 2)
    then = curve(recipe(steps=STEPS, **settings), folder.parent / "parted", 1)
    assert first + then == pytest.approx(straight, rel=2e-3)


@pytest.mark.slow
def test_a_sharded_run_stopped_and_gone_on_with_is_the_same_to_the_bit(recipe, folder):
    """With validation and samples in between, after which nothing may be left in another form."""
    sampling = {"width": 64, "height": 64, "frames": 2, "steps": 1, "fps": 8}
    settings = {
        "batch": 4,
        "save_every": 2,
        "validation": {"every": 1},
        "samples": {"every": 2, "prompts": ["a red circle"]},
        "sampling": sampling,
        "compute": {"sharding": "full"},
        "learn": {"part": "spatial"},
    }
    straight = curve(recipe(steps=4, **settings), folder.parent / "straight", 2)
    assert curve(recipe(steps=2, **settings), folder, 2) + curve(recipe(steps=4, **settings), folder, 2) == straight
    a, b = final(folder.parent / "straight"), final(folder)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    learned = [name for name in a if name.startswith("model ")]
    assert {f"exp_avg {name.removeprefix('model ')}" for name in learned} <= a.keys()
    assert len(load_file(folder / "model.safetensors")) > len(learned)


def test_processes_that_find_different_checkpoints_say_so(recipe, folder):
    settings = recipe()
    trainer = Trainer(settings, folder.parent / "first")
    trainer.step = 3
    trainer.save()

    alive = []

    def work(rank: int) -> None:
        mine = folder.parent / ("first" if rank == 0 else "nothing")
        with pytest.raises(
            RecipeError,
            match=r"found checkpoints of different steps .*\[3, 0\]; every machine must see the same folder",
        ) as raised:
            Trainer(settings, mine, folder.parent / "cache")
        # Else it goes now, and torch's destructor may wait, with the interpreter's lock, for a thread that wants it.
        alive.append(raised)

    together(2, work)


def test_one_process_being_told_stops_all(recipe, folder):
    settings = recipe(steps=50, batch=2, save_every=100)

    def work(rank: int) -> None:
        trainer = Trainer(settings, folder)
        if rank == 1:
            trainer.signals.stop = True
        ddp = weakref.ref(trainer.model)
        assert trainer.run() is False
        assert trainer.step == 1
        assert ddp() is None  # or it might hang when it goes

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
        # The first process keeps the address book: it may not leave while the other still looks into it.
        torch.distributed.barrier()

    together(2, work)


@pytest.mark.slow
def test_through_a_launcher_that_is_told_to_stop(recipe_file, folder):
    """torchrun, which accelerate launch is on several GPUs. It hands SIGTERM to all processes of a rank, readers
    included: all the same the run is saved.
    """
    recipe = recipe_file(steps=60, batch=2, save_every=1000, data={"workers": 1})
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    command = [sys.executable, *launcher, "-m", "vc2.training", "run", str(recipe), "--runs", str(folder.parent)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr
    messages = until_step(3, process.stderr)
    assert len(psutil.Process(process.pid).children()) == 2
    process.send_signal(signal.SIGTERM)
    messages += process.communicate(timeout=60)[1]
    state = runs.latest(folder / "checkpoints")
    assert state, messages
    assert 3 <= state["step"] < 60
    assert messages.count("the same command goes on") == 2
