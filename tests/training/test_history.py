"""What a run leaves of its way: milestones, the best by held-out loss, a LoRA beside every sample, and allowed changes
of its recipe; and how they are exported.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.runs import photos, say
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
    state = {"step": 0, "recipe": float_.model_dump_json(), "data": {}}
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


def test_the_best_is_among_losses_of_the_same_samples(recipe, tmp_path):
    history = History(tmp_path / "run")
    history.begin(0, recipe())

    def lose(step: int, loss: float) -> int | None:
        history.add(step, held_out={"live": {"clips": 1.0}, "average": {"clips": loss}})
        return history.best()

    assert lose(1, 0.3) == 1  # before anyone said of what
    history.measure(1, "old")
    assert lose(2, 0.2) == 2
    history.measure(2, "old")  # the run was stopped and goes on
    assert lose(3, 0.4) == 2
    history.measure(3, "new")
    assert history.best() == 2  # until there is another
    assert lose(4, float("nan")) == 2
    assert (lose(5, 0.9), lose(6, 0.8), lose(7, 0.85)) == (5, 6, 6)
    assert [line["step"] for line in lines(tmp_path / "run", "validation")] == [1, 3]


@pytest.mark.slow
def test_the_best_starts_anew_where_what_is_held_out_changes_and_only_there(recipe, folder, tmp_path, caplog):
    settings = {"clips": None, "images": photos(tmp_path / "photos", good=20, bad=0), "held_out": 2}

    def go_on(steps: int, loss: float, allow=(), **changes) -> int | None:
        """The best, after one more step with that held-out loss."""
        trainer = Trainer(recipe(steps=steps, save_every=1, data=settings, **changes), folder, allow=allow)
        trainer.objective.validate = lambda model, accelerator: {"images": loss}
        captions.update(sample.caption for sample in trainer.objective.held_out["images"])
        assert trainer.run()
        return History(folder).best()

    def mend(held_out: bool) -> None:
        """Another caption, of a sample that is held out or that is not."""
        file = next(p for p in sorted((tmp_path / "photos").glob("*.txt")) if (p.read_text() in captions) == held_out)
        file.write_text("another caption")

    captions: set[str] = set()
    validation = {"every": 1, "quantiles": [0.5]}
    assert go_on(1, 0.5, validation=validation) == 1
    assert go_on(2, 0.6, validation=validation) == 1
    mend(held_out=False)
    assert go_on(3, 0.6, ["data.images"], validation=validation) == 1
    assert "the best starts anew" not in caplog.text
    mend(held_out=True)
    assert go_on(4, 0.8, ["data.images"], validation=validation) == 4
    assert "held-out losses from step 3 on are of other samples" in caplog.text
    assert go_on(5, 0.9, validation=validation) == 4
    assert go_on(6, 0.9, validation={"every": 1, "quantiles": [0.9]}) == 6
    assert [line["step"] for line in lines(folder, "validation")] == [0, 3, 5]


def test_other_weights_of_a_list_go_on_where_they_are_allowed(recipe, folder, tmp_path, caplog):
    """Batches are then those of a run that began with them, and the same samples are held out."""
    a, b = (photos(tmp_path / name, good=10, bad=0, of=name) for name in "ab")

    def at(weight: float | None) -> object:
        images = [a, {**b, "weight": weight}] if weight else [a]
        data = {"clips": None, "images": images, "held_out": 1, "caption_dropout": 0.0}
        return recipe(steps=32, batch=4, data=data, validation={"every": 32})

    def read(trainer: Trainer) -> list[str]:
        return [name for batch in trainer.objective.batches(16, 0, 1) for name in batch.captions]

    begun = Trainer(at(1), folder)
    assert Counter(name[0] for name in read(begun)) == {"a": 32, "b": 32}
    begun.save()
    with pytest.raises(RecipeError, match=r"another data\.images\.1\.weight; .* --allow data\.images\.1\.weight$"):
        Trainer(at(7), folder)
    with pytest.raises(RecipeError, match=r"another data\.images\.1\.weight"):
        Trainer(at(7), folder, allow=["data.images.0.weight"])
    with pytest.raises(RecipeError, match=r"--allow data\.images\.2\.weight: unknown key; did you mean data\.images\."):
        Trainer(at(7), folder, allow=["data.images.2.weight"])
    gone_on = Trainer(at(7), folder, allow=["data.images.1.weight"])
    assert "from step 0 on data.images.1.weight is 7.0, no longer 1.0" in caplog.text
    assert gone_on.changed == {"data.images.1.weight": (1.0, 7.0)}
    assert Counter(name[0] for name in read(gone_on)) == {"a": 8, "b": 56}
    assert read(gone_on) == read(Trainer(at(7), folder.parent / "other"))
    assert gone_on.objective.validation() == begun.objective.validation() is not None
    Trainer(at(7), folder, allow=["data.images"])
    with pytest.raises(RecipeError, match=r"another data\.images; "):
        Trainer(at(None), folder)


@pytest.mark.parametrize(
    ("before", "now", "change", "message"),
    [
        ("images", "both", "data.clips", r"would now learn \d+ weights that its checkpoint has not learned \("),
        ("both", "images", "data.clips", r"would now learn none of \d+ that it has learned \("),
        ("full", "images", "diffusion.image_temporal", r"would now learn none of \d+ that it has learned \("),
    ],
)
def test_a_change_of_what_learns_is_one_message(recipe, folder, before, now, change, message):
    """Which temporal weights learn follows from whether there are clips, and from how images pass."""
    settings = {
        "both": {},
        "images": {"data": {"clips": None}},
        "full": {"data": {"clips": None}, "diffusion": {"image_temporal": "full"}},
    }
    Trainer(recipe(**settings[before]), folder).save()
    with pytest.raises(RecipeError, match=rf"{message}.*start from that under another name \(init\.unet=\.\.\., name"):
        Trainer(recipe(**settings[now]), folder, allow=[change])


def test_clips_may_come_and_go_where_what_learns_stays(recipe, folder):
    with_clips, without = (recipe(learn={"part": "spatial"}, data=data) for data in ({}, {"clips": None}))
    begun = Trainer(without, folder)
    begun.train_step(next(begun.objective.batches(0, 0, 1)))
    begun.save()
    saved = runs.latest(folder / "checkpoints")["model"]
    for now in (with_clips, without):
        trainer = Trainer(now, folder, allow=["data.clips"])
        learned = dict(trainer.network.named_parameters())
        assert all(torch.equal(learned[name], tensor) for name, tensor in saved.items())
        media = {batch.step.medium for batch in trainer.objective.batches(1, 0, 1)}
        assert media == ({"clips", "images"} if now is with_clips else {"images"})
        trainer.save()
