"""What a run leaves of its way: milestones, the best by held-out loss, a LoRA beside every sample, and allowed changes
of its recipe; and how they are exported.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.test_commands import say
from vc2.files.checkpoint import UNET
from vc2.training import checkpoint as runs
from vc2.training.errors import RecipeError
from vc2.training.history import History
from vc2.training.loop import Trainer
from vc2.training.recipe_files import load_recipe
from vc2.training.resume import allowed_changes, check_allowed


def steps(folder: Path) -> list[int]:
    return [runs.step_of(path) for path in runs.all_steps(folder / "checkpoints")]


def lines(folder: Path, key: str) -> list[dict]:
    text = (folder / "history.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, text) if key in line]


def losing(trainer: Trainer, live: list[float], clips: list[float], images: list[float]) -> Trainer:
    """The same, with held-out losses that are given, of each step: of the weights, and of their average."""
    averaged, real = [], trainer.ema.applied

    @contextlib.contextmanager
    def applied(network):
        with real(network):
            averaged.append(True)
            yield
        averaged.clear()

    def validate(model, accelerator):
        k = trainer.step - 1
        return {"clips": clips[k], "images": images[k]} if averaged else {"clips": live[k], "images": live[k]}

    trainer.ema.applied, trainer.objective.validate = applied, validate
    return trainer


def test_milestones_and_the_best_stay(recipe, folder):
    """The best of the averages, which are what is exported, over clips and images together."""
    settings = recipe(steps=7, save_every=1, keep=1, keep_every=3, validation={"every": 1})
    losing(
        Trainer(settings, folder),
        live=[0.9, 0.9, 0.9, 0.9, 0.1, 0.9, 0.9],
        clips=[0.1, 0.3, 0.5, 0.5, 0.5, 0.5, 0.5],
        images=[0.9, 0.3, 0.5, float("nan"), 0.5, 0.5, 0.5],
    ).run()
    assert steps(folder) == [2, 3, 6, 7]
    assert History(folder).best() == 2


def test_the_best_is_saved_where_nothing_else_is_due(recipe, folder):
    settings = recipe(steps=4, save_every=100, keep=1, validation={"every": 1})
    losses = [0.5, 0.3, 0.4, 0.4]
    losing(Trainer(settings, folder), losses, losses, losses).run()
    assert steps(folder) == [2, 4]


def test_the_average_is_held_out_too(recipe, folder, capsys):
    trainer = Trainer(recipe(steps=2, optimizer={"lr": 0.01, "warmup": 0}, validation={"every": 2}), folder)
    assert trainer.run()
    live = trainer.objective.validate(trainer.model, trainer.accelerator)
    with trainer.ema.applied(trainer.network):
        average = trainer.objective.validate(trainer.model, trainer.accelerator)
    [line] = lines(folder, "held_out")
    assert line["step"] == 2
    for name, losses in (("live", live), ("average", average)):
        assert line["held_out"][name] == pytest.approx({medium: losses[medium] for medium in ("clips", "images")})
    assert abs(live["clips"] - average["clips"]) > 1e-4
    assert f"clips {live['clips']:.4f} (average {average['clips']:.4f})" in capsys.readouterr().out


def test_any_step_that_is_there_is_exported_and_the_best_by_its_name(recipe, recipe_file, folder, start, capsys):
    path = recipe_file(
        steps=4,
        save_every=1,
        keep=4,
        init={"unet": start},
        learn={"part": "spatial"},
        optimizer={"lr": 0.01, "warmup": 0},
        validation={"every": 1},
    )
    losses = [0.5, 0.3, 0.4, 0.4]
    losing(Trainer(load_recipe(path), folder), losses, losses, losses).run()

    def exported(*arguments: object) -> dict[str, torch.Tensor]:
        target = folder / "some.safetensors"
        assert say(capsys, "export", *arguments, "--dtype", "fp32", "-o", target, "--overwrite")[0] == 0
        return load_file(target)

    for arguments, step in (((folder, "--step", 3), 3), ((path, "--runs", folder.parent, "--step", "best"), 2)):
        tensors = exported(*arguments)
        shadow = runs.load(folder / "checkpoints", step)["ema"]["shadow"]
        assert all(torch.equal(tensors[UNET + name], tensor) for name, tensor in shadow.items())
    newest = runs.latest(folder / "checkpoints")["ema"]["shadow"]
    assert any(not torch.equal(newest[name], tensor) for name, tensor in shadow.items())
    code, _, err = say(capsys, "export", folder, "--step", 9)
    assert (code, "holds no checkpoint of step 9, but of 1, 2, 3, 4" in err) == (2, True)
    code, _, err = say(capsys, "export", folder, "--step", "last")
    assert (code, "--step last: expected the number of a step, or best" in err) == (2, True)
    (folder / "history.jsonl").unlink()
    code, _, err = say(capsys, "export", folder, "--step", "best")
    assert (code, "has no held-out loss" in err) == (2, True)


def test_a_lora_lies_beside_every_sample(recipe, folder, start, capsys):
    settings = {"width": 64, "height": 64, "frames": 2, "steps": 1}
    changes = {"learn": {"part": "spatial", "how": "lora", "rank": 2}, "optimizer": {"lr": 0.01, "warmup": 0}}
    samples = {"every": 2, "prompts": ["a red circle"]}
    Trainer(recipe(steps=4, samples=samples, sampling=settings, **changes), folder).run()
    loras = {}
    for step in (2, 4):
        beside = folder / "samples" / f"step-{step:08d}"
        assert sorted(p.name for p in beside.iterdir()) == ["00-a-red-circle.mp4", f"lora-{step:08d}.safetensors"]
        target = folder / f"{step}.safetensors"
        assert say(capsys, "export", folder, "--form", "lora", "--step", step, "-o", target)[0] == 0
        loras[step] = load_file(beside / f"lora-{step:08d}.safetensors")
        expected = load_file(target)
        assert loras[step].keys() == expected.keys()
        assert all(torch.equal(loras[step][name], expected[name]) for name in expected)
    assert any(not torch.equal(loras[2][name], loras[4][name]) for name in loras[2])


def test_a_change_goes_on_where_it_is_allowed_and_is_noted(recipe, folder):
    def at(lr: float, **others) -> object:
        return recipe(steps=8, save_every=2, optimizer={"lr": lr, "warmup": 0}, **others)

    Trainer(at(1e-3), folder).save()
    with pytest.raises(RecipeError, match=r"another optimizer\.lr; .*from here on: --allow optimizer\.lr$"):
        Trainer(at(5e-4), folder)
    with pytest.raises(RecipeError, match=r"another seed, optimizer\.lr; .*--allow seed --allow optimizer\.lr$"):
        Trainer(at(5e-4, seed=1), folder)
    with pytest.raises(RecipeError, match=r"another seed; "):
        Trainer(at(5e-4, seed=1), folder, allow=["optimizer.lr"])
    stopped = Trainer(at(5e-4), folder, allow=["optimizer.lr"])
    stopped.train_step = lambda batch: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    again = Trainer(at(5e-4), folder, allow=["optimizer"])
    again.train_step(next(again.objective.batches(0, 0, 1)))
    assert again.optimizer.param_groups[0]["lr"] == 5e-4
    again = Trainer(at(5e-4), folder, allow=["optimizer"])
    assert again.run()
    assert lines(folder, "changed") == [{"step": 0, "changed": {"optimizer.lr": [1e-3, 5e-4]}}]
    Trainer(at(5e-4), folder)  # it is the run's recipe now
    with pytest.raises(RecipeError, match=r"another optimizer\.lr"):
        Trainer(at(1e-3), folder)


def test_what_a_checkpoint_cannot_go_on_with_is_not_allowed(recipe, folder):
    Trainer(recipe(), folder).save()
    with pytest.raises(RecipeError, match=r"--allow learn\.rank: a checkpoint fits no other learn\.rank"):
        Trainer(recipe(), folder, allow=["learn.rank"])
    with pytest.raises(RecipeError, match=r"--allow optimizer\.lrr: unknown key; did you mean optimizer\.lr\?"):
        Trainer(recipe(), folder, allow=["optimizer.lrr"])
    for key, meant in (("lr", "optimizer.lr"), ("optimiser.lr", "optimizer.lr"), ("bach", "batch")):
        with pytest.raises(RecipeError, match=rf"^--allow {key}: unknown key; did you mean {meant}\?"):
            check_allowed(recipe(), [key])
    with pytest.raises(RecipeError, match=r"--allow optimizer\.xyz: unknown key; the keys of optimizer are kind, lr, "):
        check_allowed(recipe(), ["optimizer.xyz"])
    for allow in ((), ("optimizer",)):
        with pytest.raises(RecipeError, match=r"another optimizer\.kind; put them back, or train under another name"):
            Trainer(recipe(optimizer={"kind": "adamw8bit"}), folder, allow=allow)


def test_rounding_frozen_weights_is_a_change_and_other_arithmetic_is_none(recipe, folder):
    """A run of before the key existed was float."""
    float_, int8 = (recipe(learn={"how": "lora"}, compute={"frozen": frozen}) for frozen in ("float", "int8"))
    state = {"recipe": float_.model_dump_json(), "data": {}}
    with pytest.raises(RecipeError, match=r"another compute\.frozen; .*--allow compute\.frozen$"):
        allowed_changes(int8, state, (), folder)
    assert allowed_changes(int8, state, ["compute.frozen"], folder) == {"compute.frozen": ("float", "int8")}
    tree = json.loads(state["recipe"])
    assert tree["compute"].pop("frozen") == "float"
    for theirs in (state, state | {"recipe": json.dumps(tree)}):
        other = recipe(learn={"how": "lora"}, compute={"precision": "bf16", "micro_batch": 1})
        assert allowed_changes(other, theirs, (), folder) == {}


def test_the_command_takes_what_is_allowed(recipe_file, folder, capsys):
    path = recipe_file(steps=1)
    assert say(capsys, "run", path, "--runs", folder.parent)[0] == 0
    change = ("run", path, "--runs", folder.parent, "batch=4", "data.caption_dropout=0.5")
    assert say(capsys, *change, "--allow", "batch")[0] == 2
    assert say(capsys, *change, "--allow", "batch", "--allow", "data.caption_dropout")[0] == 0
    [line] = lines(folder, "changed")
    assert line["changed"] == {"batch": [2, 4], "data.caption_dropout": [0.1, 0.5]}


def test_a_killed_run_s_history_is_that_of_its_checkpoint(recipe, tmp_path):
    settings = recipe()
    history = History(tmp_path / "run")
    history.begin(0, settings)
    name = history.name
    for step, loss in ((2, 0.5), (4, 0.2), (6, 0.1)):
        history.add(step, held_out={"live": {"clips": 1.0}, "average": {"clips": loss}})
    history.add(4, changed={"batch": [2, 4]})
    with open(history.path, "a") as file:
        file.write('{"step": 8, "held')  # killed while it wrote
    again = History(tmp_path / "run")
    assert again.best() == 6
    again.begin(4, settings)
    assert (again.best(), again.name) == (4, name)
    assert [line["step"] for line in History(tmp_path / "run").lines] == [0, 2, 4]
    assert json.loads(history.path.read_text().splitlines()[0])["recipe"]["optimizer"]["lr"] == 1e-3
    other = History(tmp_path / "other")
    other.begin(0, settings)
    assert other.name != name
