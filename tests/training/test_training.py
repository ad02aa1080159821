"""The trainer: recipes are checked, a run learns, stops and resumes exactly, and frozen parts stay as they are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests import standin
from vc2 import checkpoint
from vc2.autoencoder import SCALE_FACTOR, AutoencoderKL
from vc2.training import checkpoint as runs
from vc2.training.config import RecipeError, load_recipe
from vc2.training.data import procedural as world
from vc2.training.data.moments import FrameMoments, encode_world, fingerprint
from vc2.training.loop import NonFiniteError, Trainer
from vc2.training.objective import load_autoencoder, normalise_latents, random_frames
from vc2.training.partition import temporal_names

ROOT = Path(__file__).parent.parent.parent
TINY = ROOT / "training" / "recipes" / "tiny"
RECIPE = {
    "name": "small",
    "steps": 6,
    "batch": 2,
    "save_every": 2,
    "networks": {
        "unet": {"model_channels": 32, "channel_mult": [1, 1], "num_res_blocks": 1, "attention_resolutions": [2], "num_head_channels": 16, "context_dim": 64}
    },
    "data": {"lengths": [[4, 2], [2, 1]]},
    "optimizer": {"lr": 1e-3, "warmup": 2, "ema": 0.9},
}


@pytest.fixture(scope="session")
def parts(tmp_path_factory):
    """An autoencoder and a text tower to train on, and the frames it has encoded."""
    folder = tmp_path_factory.mktemp("parts")
    path = standin.write(folder / "parts.safetensors")
    return {"autoencoder": str(path), "text": str(path)}


@pytest.fixture
def recipe_file(tmp_path, parts):
    def write(**changes):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(RECIPE | {"init": parts} | changes))
        return path

    return write


@pytest.fixture(scope="session")
def cache(tmp_path_factory, parts):
    """Moments for every frame of the world. Random ones: encoding the real ones takes a minute, and the trainer's mechanics do not look at them."""
    folder = tmp_path_factory.mktemp("runs") / "cache"
    folder.mkdir()
    side = 2 * world.REACH + 1
    moments = torch.randn(len(world.COLOURS), len(world.SHAPES), side, side, 8, 8, 8, generator=torch.Generator().manual_seed(0)).half()
    save_file({"moments": moments}, folder / f"procedural-{fingerprint(load_autoencoder(parts['autoencoder']))}.safetensors")
    return folder


@pytest.fixture
def folder(tmp_path, cache):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "cache").symlink_to(cache)
    return tmp_path / "runs" / "small"


@pytest.mark.parametrize("path", sorted(TINY.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_is_valid(path):
    assert load_recipe(path).name.startswith("tiny-")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("optimizer.lrate=1", r"unknown key optimizer\.lrate; did you mean lr\?"),
        ("stepps=1", "unknown key stepps; did you mean steps"),
        ("steps=-1", "steps: .*greater than 0, found -1"),
        ("diffusion.trainable=space", "'spatial', 'temporal' or 'all', found 'space'"),
        ("steps", "not of the form key=value"),
        ("steps.more=1", "steps holds a single value"),
    ],
)
def test_recipe_errors_name_the_key(override, says):
    with pytest.raises(RecipeError, match=says):
        load_recipe(TINY / "base.yaml", [override])


@pytest.mark.parametrize(("text", "says"), [("steps: [", "is not YAML"), ("- 1\n- 2", "holds a list"), ("steps: 1", "name: Field required")])
def test_what_is_no_recipe_is_said_to_be_none(tmp_path, text, says):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(RecipeError, match=says):
        load_recipe(tmp_path / "bad.yaml")


def test_a_missing_start_is_one_line_not_a_traceback(tmp_path):
    command = [
        sys.executable,
        "-m",
        "vc2.training",
        "run",
        "--runs",
        str(tmp_path),
        str(TINY / "base.yaml"),
        "init.text=absent.safetensors",
        "init.autoencoder=absent.safetensors",
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1] == "error: absent.safetensors: no such checkpoint file"


def test_recipes_inherit(tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(RECIPE))
    (tmp_path / "row.yaml").write_text("base: base.yaml\nname: row\noptimizer: {lr: 0.5}\n")
    row = load_recipe(tmp_path / "row.yaml", ["seed=3"])
    assert (row.name, row.optimizer.lr, row.optimizer.warmup, row.seed) == ("row", 0.5, 2, 3)


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_a_stopped_run_resumes_to_the_same_bits(recipe_file, folder, tmp_path):
    recipe = load_recipe(recipe_file())
    Trainer(recipe, folder).run()
    straight = weights(folder)
    other = folder.parent / "again"
    first = Trainer(recipe, other)
    for _ in range(3):
        first.train_step()
    first.save()
    Trainer(recipe, other).run()
    resumed = weights(other)
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert len(list((other / "checkpoints").glob("step-*.pt"))) == runs.KEEP


def test_killed_and_resumed_through_the_command(recipe_file, folder):
    """SIGKILL while it trains, SIGTERM after that, then to the end: the same weights as a run never stopped."""
    recipe = recipe_file(steps=40, save_every=1)
    command = [sys.executable, "-m", "vc2.training", "run", "--runs", str(folder.parent), str(recipe)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for kind in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        steps = len(runs.all_steps(folder / "checkpoints")) and int(runs.all_steps(folder / "checkpoints")[-1].stem[5:])
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            found = runs.all_steps(folder / "checkpoints")
            if found and int(found[-1].stem[5:]) > steps:
                break
            time.sleep(0.01)
        process.send_signal(kind)
        assert process.wait(60) == (-signal.SIGKILL if kind == signal.SIGKILL else 130)
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    killed = weights(folder)
    torch.set_num_threads(1)
    other = folder.parent / "straight"
    Trainer(load_recipe(recipe), other).run()
    straight = weights(other)
    assert all(torch.equal(straight[name], killed[name]) for name in straight)


@pytest.mark.parametrize("part", ["spatial", "temporal"])
def test_a_frozen_part_stays_bitwise_as_it_was(recipe_file, folder, part):
    trainer = Trainer(load_recipe(recipe_file(diffusion={"trainable": part})), folder)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    for _ in range(4):
        trainer.train_step()
    temporal = temporal_names(trainer.model)
    changed = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    frozen = {name for name in before if (name in temporal) != (part == "temporal")}
    assert changed
    assert not changed & frozen
    learning = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert not learning & {id(p) for name, p in trainer.model.named_parameters() if name in frozen}


def test_what_does_not_learn_has_no_dropout(recipe_file, folder):
    trainer = Trainer(load_recipe(recipe_file(diffusion={"trainable": "spatial"})), folder)
    dropouts = [m for m in trainer.model.modules() if isinstance(m, torch.nn.Dropout)]
    assert dropouts
    assert not any(m.training for m in dropouts)
    assert trainer.model.input_blocks[1][0].in_layers.training


def test_another_recipe_does_not_go_on_in_the_same_folder(recipe_file, folder):
    first = Trainer(load_recipe(recipe_file()), folder)
    first.save()
    Trainer(load_recipe(recipe_file(steps=99)), folder)  # longer is fine
    with pytest.raises(RecipeError, match="another seed, optimizer"):
        Trainer(load_recipe(recipe_file(seed=5, optimizer={"lr": 1.0})), folder)


def test_it_learns(recipe_file, folder):
    """Even latents of pure noise have something to learn: how much noise there is at which timestep."""
    recipe = load_recipe(recipe_file(steps=60, batch=4, data={"lengths": [[2, 2]]}, optimizer={"lr": 2e-3, "warmup": 5, "clip": 1.0}))
    trainer = Trainer(recipe, folder)
    losses = [trainer.train_step()["loss"] for _ in range(60)]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_what_is_not_finite_is_skipped_and_then_stops(recipe_file, folder, monkeypatch):
    trainer = Trainer(load_recipe(recipe_file()), folder)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    loss = trainer.objective.loss
    monkeypatch.setattr(trainer.objective, "loss", lambda generator: (loss(generator)[0] * float("nan"), {}))
    with pytest.raises(NonFiniteError, match="5 steps in a row"):
        trainer.run()
    assert trainer.step == 4
    assert all(torch.equal(p, before[name]) for name, p in trainer.model.named_parameters())


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    runs.save(tmp_path, 1, {"x": torch.ones(3)})

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs.torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        runs.save(tmp_path, 2, {"x": torch.zeros(3)})
    assert runs.latest(tmp_path)["step"] == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_the_exported_file_is_a_whole_checkpoint(recipe_file, folder):
    Trainer(load_recipe(recipe_file(steps=1, sampling={"width": 64})), folder).run()
    loaded = checkpoint.load(folder / "model.safetensors")
    assert loaded.vae
    assert loaded.text
    assert loaded.schedule.rescaled
    assert loaded.metadata["sampling"] == '{"width": 64}'


@torch.no_grad()
def test_normalised_latents_decode_as_before():
    torch.manual_seed(0)
    model = AutoencoderKL(standin.AUTOENCODER)
    frames = random_frames(16, torch.Generator().manual_seed(0))
    before = model.decode(model.encode(frames).chunk(2, 1)[0])
    spread = model.encode(frames).chunk(2, 1)[1] - 2 * model.encode(frames).chunk(2, 1)[0].std((0, 2, 3))[:, None, None].log()
    normalise_latents(model, frames)
    mean, log_variance = model.encode(frames).chunk(2, 1)
    assert torch.allclose((SCALE_FACTOR * mean).std((0, 2, 3)), torch.ones(4), atol=1e-3)
    assert torch.allclose((SCALE_FACTOR * mean).mean((0, 2, 3)), torch.zeros(4), atol=1e-3)
    assert torch.allclose(model.decode(mean), before, atol=1e-3)
    # The posterior's width relative to the mean's spread is what it was.
    assert torch.allclose(log_variance - 2 * mean.std((0, 2, 3))[:, None, None].log(), spread, atol=1e-3)


def test_every_scene_stays_in_the_picture_and_moves_as_it_says():
    for direction, (dx, dy) in enumerate(world.DIRECTIONS.values()):
        positions = world.Scene(0, 0, direction, world.REACH).positions()
        assert positions.abs().max() <= world.REACH
        step = (positions[-1] - positions[0]).sign().tolist()
        assert step == [dx, dy]


@torch.no_grad()
def test_cached_moments_are_the_frames_own(parts):
    """What the table says of a colour, shape and place is what the autoencoder says of that frame."""
    model, reach = load_autoencoder(parts["autoencoder"]), 1
    table = encode_world(model, reach, batch=7)
    assert table.shape[:4] == (len(world.COLOURS), len(world.SHAPES), 3, 3)
    for colour, shape, x, y in ((0, 0, -1, 0), (5, 3, 1, -1), (2, 2, 0, 1)):
        frame = world.render(torch.tensor([colour]), torch.tensor([shape]), torch.tensor([[x, y]]))
        assert torch.allclose(table[colour, shape, y + reach, x + reach].float(), model.encode(frame)[0], atol=2e-2)


def test_a_clip_is_read_along_its_path(cache, parts):
    frames = FrameMoments(load_autoencoder(parts["autoencoder"]), cache)
    scene = world.Scene(colour=1, shape=2, direction=0, offset=5)  # leftwards, 5 pixels below the middle
    clip = frames.clip(scene, first=3, frames=4, stride=2)
    for i, (x, y) in enumerate(scene.positions()[3::2][:4].tolist()):
        assert y == 5
        assert torch.equal(clip[i], frames.table[1, 2, y + world.REACH, x + world.REACH].float())
