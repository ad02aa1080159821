"""The loop: what learns, learns; what is frozen stays, to the bit; what is not finite or broken is skipped, counted,
and ends the run when it is too much.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests import standin
from tests.training.processes import ended, fork
from tests.training.test_resume import last_step
from vc2.files import checkpoint
from vc2.files.checkpoint import UNET
from vc2.files.video import read_video
from vc2.pipeline import Settings
from vc2.sampling.schedule import NoiseSchedule
from vc2.training import checkpoint as runs
from vc2.training import parallel
from vc2.training.data import order
from vc2.training.errors import RecipeError
from vc2.training.history import History
from vc2.training.initialise import load_autoencoder
from vc2.training.loop import Trainer
from vc2.training.partition import temporal_names
from vc2.training.recipe_sections import Sampling
from vc2.training.sources import source
from vc2.training.sources.source import SourceError
from vc2.training.tally import BrokenDataError, NonFiniteError


def train(trainer: Trainer, steps: int) -> list[dict[str, float]]:
    batches = trainer.objective.batches(trainer.step, 0, 1)
    return [trainer.train_step(next(batches)) for _ in range(steps)]


def weights(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("part", ["spatial", "temporal"])
@pytest.mark.parametrize("how", ["direct", "lora"])
def test_a_frozen_part_stays_bitwise_as_it_was(recipe, folder, part, how):
    trainer = Trainer(recipe(learn={"part": part, "how": how, "rank": 2}), folder)
    before = {name: p.detach().clone() for name, p in trainer.network.named_parameters()}
    assert all(figures["grad_norm"] > 0 for figures in train(trainer, 4))
    changed = {name for name, p in trainer.network.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    if how == "lora":
        assert all(".adapter." in name for name in changed)
        assert any(name.endswith("lora_B.weight") for name in changed)  # which decay alone would leave at zero
        changed = {name.split(".adapter.")[0] + ".weight" for name in changed}
    temporal = temporal_names(trainer.network)
    assert {name in temporal for name in changed} == {part == "temporal"}
    learning = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert learning == {id(p) for p in trainer.network.parameters() if p.requires_grad}
    assert {id(p) for p in trainer.optimizer.state} <= learning


def test_what_images_cannot_teach_does_not_drift(recipe, folder):
    """Neither weight decay nor rounding that Adam blows up may move temporal q and k in a finetuning on images."""
    trainer = Trainer(recipe(data={"clips": None}, optimizer={"lr": 1e-2, "weight_decay": 0.5}), folder)
    names = [name for name in temporal_names(trainer.network) if name.endswith(("to_q.weight", "to_k.weight"))]
    before = {name: p.detach().clone() for name, p in trainer.network.named_parameters()}
    train(trainer, 3)
    now = dict(trainer.network.named_parameters())
    assert names
    assert all(torch.equal(now[name], before[name]) for name in names)
    assert any(
        name.endswith("to_v.weight") and not torch.equal(now[name], before[name])
        for name in temporal_names(trainer.network)
    )


def test_what_does_not_learn_has_no_dropout(recipe, folder):
    trainer = Trainer(recipe(learn={"part": "spatial"}), folder)
    dropouts = [m for m in trainer.network.modules() if isinstance(m, torch.nn.Dropout)]
    assert dropouts
    assert not any(m.training for m in dropouts)
    assert trainer.network.input_blocks[1][0].in_layers.training
    all_learn = Trainer(recipe(diffusion={"dropout": 0.25}), folder.parent / "all")
    assert {m.p for m in all_learn.network.modules() if isinstance(m, torch.nn.Dropout) and m.training} == {0.25}


def test_another_recipe_does_not_go_on_in_the_same_folder(recipe, folder):
    Trainer(recipe(), folder).save()
    Trainer(recipe(steps=99, data={"workers": 1}), folder)  # longer, and read by others, is fine
    with pytest.raises(RecipeError, match="another seed, optimizer"):
        Trainer(recipe(seed=5, optimizer={"lr": 1.0}), folder)


def test_any_size_of_whole_latents_trains(recipe, folder):
    """Also an odd number of them, which no level of the UNet halves."""
    clips = {"kind": "procedural", "count": 4, "prepared": "no"}
    size = {"width": 72, "height": 40}
    settings = recipe(
        steps=1,
        data={"clips": clips, "images": None, "lengths": [[2, 1, 1]], "held_out": 1, **size},
        validation={"every": 1},
        samples={"every": 1, "prompts": ["a red circle"]},
        sampling={"frames": 2, "steps": 1, **size},
    )
    assert Trainer(settings, folder).run()
    [clip] = folder.glob("samples/*/*.mp4")
    assert read_video(clip).shape == (2, 40, 72, 3)


def test_other_weights_beside_what_learns_are_noticed(recipe, folder, start, tmp_path):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(Path(start).read_bytes())
    settings = {"init": {"unet": str(copy)}, "learn": {"part": "spatial", "how": "lora", "rank": 2}}
    Trainer(recipe(**settings), folder).save()
    state = load_file(copy)
    save_file({**state, f"{UNET}out.2.bias": state[f"{UNET}out.2.bias"] + 1}, copy)
    with pytest.raises(RecipeError, match=r"the weights that .* started from \(init\.unet\) are not those there now"):
        Trainer(recipe(**settings), folder)


def test_other_data_is_noticed(recipe, folder, tmp_path, caplog):
    settings = recipe(data={"clips": None, "images": photos(tmp_path / "photos", good=12, bad=0)})
    Trainer(settings, folder).save()
    Trainer(settings, folder)
    (tmp_path / "photos" / "000.txt").write_text("another caption")
    with pytest.raises(RecipeError, match=r"the files of data\.images are not those that .* began with; put them back"):
        Trainer(settings, folder)


def test_pictures_that_were_added_are_used_where_that_is_allowed_and_it_is_noted(recipe, folder, tmp_path, caplog):
    source = photos(tmp_path / "photos", good=6, bad=0)
    settings = recipe(steps=1, data={"clips": None, "images": source, "held_out": 0})
    Trainer(settings, folder).save()
    before = runs.latest(folder / "checkpoints")["data"]["images"]
    photos(tmp_path / "photos", good=12, bad=0)
    for allow in ((), ("data.clips", "data.images.path")):
        with pytest.raises(RecipeError, match=r"from here on, .* held-out samples: --allow data\.images$"):
            Trainer(settings, folder, allow=allow)
    trainer = Trainer(settings, folder, allow=["data.images"])
    assert "the files of data.images are not those that the run began with" in caplog.text
    assert len(trainer.objective.streams["images"].source) == 12
    assert trainer.run()
    after = runs.latest(folder / "checkpoints")["data"]["images"]
    [line] = [line for line in History(folder).lines if "changed" in line]
    assert line == {"step": 0, "changed": {"files of data.images": [before, after]}}
    assert before != after
    Trainer(settings, folder)  # they are the run's files now


def test_data_that_moved_is_the_same_data(recipe, folder, tmp_path):
    """Copied too, which changes its times."""
    source = photos(tmp_path / "photos", good=12, bad=0)
    Trainer(recipe(data={"clips": None, "images": source}), folder).save()
    shutil.copytree(source["path"], tmp_path / "elsewhere", copy_function=shutil.copyfile)
    shutil.rmtree(source["path"])
    moved = recipe(data={"clips": None, "images": {**source, "path": str(tmp_path / "elsewhere")}})
    Trainer(moved, folder)
    (tmp_path / "elsewhere" / "000.txt").rename(tmp_path / "elsewhere" / "spare.txt")
    with pytest.raises(RecipeError, match=r"the files of data\.images"):
        Trainer(moved, folder)


def test_data_of_a_run_of_0_2_0_is_known_by_its_place(recipe, folder, tmp_path, caplog):
    """It recorded where files lie and their times, by which they cannot be known elsewhere."""
    source = photos(tmp_path / "photos", good=12, bad=0)
    settings = recipe(data={"clips": None, "images": source})
    trainer = Trainer(settings, folder)
    trainer.objective.identities = {"images": trainer.objective.files("images")}
    trainer.save()
    Trainer(settings, folder)
    assert "not those that the run began with" not in caplog.text
    (tmp_path / "photos" / "000.txt").write_text("another caption")
    Trainer(settings, folder)
    assert "the files of data.images are not those that the run began with" in caplog.text
    (tmp_path / "elsewhere").symlink_to(tmp_path / "photos")
    with pytest.raises(RecipeError, match="another data"):
        Trainer(recipe(data={"clips": None, "images": {**source, "path": str(tmp_path / "elsewhere")}}), folder)


def test_a_run_keeps_the_order_that_it_began_with(recipe, folder, monkeypatch):
    """Recipes do not say which; 0.2.0's orders of large sources were others."""
    monkeypatch.setattr(order, "LARGE", 10)
    trainer = Trainer(recipe(), folder)
    assert isinstance(trainer.objective.streams["images"].order, order.ComputedOrder)
    trainer.save()
    again = Trainer(recipe(), folder)
    assert isinstance(again.objective.streams["images"].order, order.ComputedOrder)
    with pytest.raises(RecipeError, match="another data"):
        Trainer(recipe(data={"order": 1}), folder)
    old = Trainer(recipe(data={"order": 1}), folder.parent / "old")
    old.recipe = recipe()  # as 0.2.0 wrote it: without the key
    old.save()
    assert "ComputedOrder" not in {type(s.order).__name__ for s in old.objective.streams.values()}
    gone_on = Trainer(recipe(), folder.parent / "old")
    assert not isinstance(gone_on.objective.streams["images"].order, order.ComputedOrder)
    assert gone_on.recipe.data.order is None


def test_the_share_of_broken_samples_counts_every_image_of_a_step(recipe, folder):
    trainer = Trainer(recipe(diffusion={"image_share": 1.0}, data={"lengths": [[8, 1, 1]]}), folder)
    train(trainer, 3)
    assert trainer.tally.counts["read"] == 3 * 2 * 8


def test_it_learns(recipe, folder):
    """Even with an untrained autoencoder there is something to learn: how much noise there is at which timestep."""
    trainer = Trainer(
        recipe(
            steps=60,
            batch=4,
            data={"images": None, "lengths": [[2, 1, 1]]},
            optimizer={"lr": 2e-3, "warmup": 5, "clip": 1.0},
        ),
        folder,
    )
    losses = [figures["loss"] for figures in train(trainer, 60)]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_the_rescale_is_applied_once_and_to_images_too(recipe, folder):
    trainer = Trainer(recipe(), folder)
    objective, seen = trainer.objective, []

    def spy(x_t, t, context, fps, temporal):
        seen.append((x_t, t))
        return torch.zeros_like(x_t)

    for batch in [b for b, _ in zip(objective.batches(0, 0, 1), range(6), strict=False)]:
        generators = [torch.Generator().manual_seed(i) for i in range(len(batch))]
        t = torch.full((len(batch),), 700)
        objective.errors(spy, batch, t, generators)
        x_t, _ = seen[-1]
        generators = [torch.Generator().manual_seed(i) for i in range(len(batch))]
        x0 = objective.encoders.latents(batch.frames, generators)
        noise = torch.stack([torch.randn(x0.shape[1:], generator=g) for g in generators])
        schedule = objective.schedule
        signal = schedule.alphas_cumprod[700].sqrt() * schedule.scale[700]
        assert torch.allclose(x_t, signal * x0 + (1 - schedule.alphas_cumprod[700]).sqrt() * noise, atol=1e-5)
    assert {x.shape[2] for x, _ in seen} >= {1}


def test_micro_batches_of_a_step_add_up_to_it(recipe, folder):
    """Accumulation changes rounding alone."""
    settings = {"batch": 4, "diffusion": {"dropout": 0.0}}
    whole = Trainer(recipe(**settings), folder)
    divided = Trainer(recipe(**settings, compute={"micro_batch": 1}), folder.parent / "divided")
    a, b = train(whole, 4), train(divided, 4)
    batches = divided.objective.batches(0, 0, 1)
    assert [len(divided.objective.split(next(batches))) for _ in range(2)] == [4, 4]
    assert [x["loss"] for x in a] == pytest.approx([x["loss"] for x in b], rel=1e-4)
    assert [x["grad_norm"] for x in a] == pytest.approx([x["grad_norm"] for x in b], rel=1e-3)
    for x in (*a, *b):  # the figure of a step is of the whole step
        assert x.get("image_loss", x.get("video_loss")) == pytest.approx(x["loss"])


def test_gradient_checkpointing_changes_nothing(recipe, folder, monkeypatch):
    from vc2.networks import unet

    calls, real = [], unet.checkpoint
    monkeypatch.setattr(unet, "checkpoint", lambda *a, **k: calls.append(1) or real(*a, **k))
    plain, again = (
        Trainer(recipe(), folder),
        Trainer(recipe(compute={"gradient_checkpointing": True}), folder.parent / "again"),
    )
    losses = train(plain, 3)
    assert not calls
    assert [x["loss"] for x in train(again, 3)] == pytest.approx([x["loss"] for x in losses], rel=1e-5)
    assert len(calls) >= 3 * sum(isinstance(m, unet.Block) for m in again.network.modules())


def test_the_learning_rate_warms_up_and_falls(recipe, folder):
    trainer = Trainer(recipe(steps=12, optimizer={"lr": 1e-3, "warmup": 4, "final_lr": 1e-4}), folder)
    assert [trainer.learning_rate(k) for k in (0, 3, 4)] == pytest.approx([2.5e-4, 1e-3, 1e-3])
    assert trainer.learning_rate(8) == pytest.approx(5.5e-4)  # half of the cosine
    assert trainer.learning_rate(12) == pytest.approx(1e-4)
    train(trainer, 2)
    assert trainer.optimizer.param_groups[0]["lr"] == trainer.learning_rate(1)
    trainer.save()
    with pytest.raises(RecipeError, match="another steps"):  # the rate at every step hangs on it
        Trainer(recipe(steps=24, optimizer={"lr": 1e-3, "warmup": 4, "final_lr": 1e-4}), folder)


def test_captions_are_dropped_and_images_get_their_fps(recipe, folder):
    settings = {"batch": 4, "diffusion": {"image_fps": [4, 30]}, "data": {"clips": None, "caption_dropout": 0.3}}
    objective = Trainer(recipe(steps=60, **settings), folder).objective
    batches = list(objective.batches(0, 0, 1))
    fps = {int(f) for batch in batches for f in batch.fps}
    assert 20 < len(fps) <= 27
    assert (min(fps), max(fps)) == (4, 30)
    empty = [not caption for batch in batches for caption in batch.captions]
    assert 0.2 < sum(empty) / len(empty) < 0.4
    for batch in batches[:10]:
        for caption, text in zip(batch.captions, batch.text, strict=True):
            assert torch.equal(text, objective.streams["images"].source.empty_text) == (not caption)


def test_the_noisiest_steps_are_drawn_and_weighed_as_the_recipe_says(recipe, folder):
    def drawn(name, **diffusion):
        objective = Trainer(recipe(diffusion=diffusion), folder.parent / name).objective
        generator = torch.Generator().manual_seed(0)
        return objective, torch.stack([objective._timestep(generator) for _ in range(400)])

    plain, t = drawn("plain")
    assert t.min() < 50
    assert t.max() > 950
    assert torch.equal(plain._weights(t), torch.ones(400))  # the paper's plain error
    noisy, t = drawn("noisy", noisy_share=0.5, noisy_from=900, max_weight=50.0)
    assert 0.45 < (t >= 900).float().mean() < 0.65
    signal, sigma = (
        noisy.schedule.alphas_cumprod.sqrt() * noisy.schedule.scale,
        (1 - noisy.schedule.alphas_cumprod).sqrt(),
    )
    at = torch.tensor([10, 600, 999])
    assert torch.allclose(noisy._weights(at), ((sigma / signal) ** 2)[at].clamp(1, 50), rtol=1e-4)
    assert noisy._weights(at)[0] == 1
    assert noisy._weights(at)[2] == 50


@pytest.mark.parametrize("way", ["identity", "full", "bypass"])
def test_images_pass_the_temporal_layers_as_the_recipe_says(recipe, folder, way, monkeypatch):
    trainer, seen = Trainer(recipe(diffusion={"image_temporal": way, "image_share": 0.5}), folder), set()
    real = trainer.network.forward

    def forward(x, *rest, temporal):
        seen.add((x.shape[2] == 1, temporal))
        return real(x, *rest, temporal=temporal)

    monkeypatch.setattr(trainer.network, "forward", forward)
    train(trainer, 6)
    assert seen == {(True, way), (False, "full")}


def test_bf16_trains_and_keeps_frozen_weights_as_they_were(recipe, folder, start):
    changes = {
        "init": {"unet": start},
        "learn": {"part": "spatial", "how": "lora", "rank": 2},
        "optimizer": {"lr": 0.01},
    }
    trainer = Trainer(recipe(name="half", compute={"precision": "bf16"}, **changes), folder.parent / "half")
    assert trainer.network.input_blocks[0][0].weight.dtype == torch.bfloat16
    assert next(p for p in trainer.network.parameters() if p.requires_grad).dtype == torch.float32
    losses = train(trainer, 3)
    reference = train(Trainer(recipe(name="full", **changes), folder.parent / "full"), 3)
    assert [x["loss"] for x in losses] == pytest.approx([x["loss"] for x in reference], rel=0.02)
    trainer.export()
    before, after = load_file(start), weights(folder.parent / "half")
    changed = {name for name in before if name.startswith(UNET) and not torch.equal(before[name], after[name])}
    assert changed
    assert all(".attn" in name for name in changed)  # not what was merely rounded


def test_ema_is_the_average_of_what_was_learned(recipe, folder):
    trainer = Trainer(recipe(), folder)
    name = "out.2.weight"
    average = dict(trainer.network.named_parameters())[name].detach().clone()
    for k in range(3):
        train(trainer, 1)
        decay = min(0.9, (1 + k) / (10 + k))
        average = decay * average + (1 - decay) * dict(trainer.network.named_parameters())[name].detach()
    assert torch.allclose(trainer.ema.weights()[name], average, atol=1e-6)
    live = dict(trainer.network.named_parameters())[name].detach().clone()
    with trainer.ema.applied(trainer.network):
        assert torch.allclose(dict(trainer.network.named_parameters())[name], average, atol=1e-6)
    assert torch.equal(dict(trainer.network.named_parameters())[name], live)


def test_what_is_not_finite_is_skipped_and_then_stops(recipe, folder, monkeypatch):
    trainer = Trainer(recipe(), folder)
    before = {name: p.detach().clone() for name, p in trainer.network.named_parameters()}
    loss = trainer.objective.loss
    monkeypatch.setattr(trainer.objective, "loss", lambda model, batch: (loss(model, batch)[0] * float("nan"), {}))
    with pytest.raises(NonFiniteError, match=r"5 steps in a row.*the last batch is in"):
        trainer.run()
    assert trainer.step == 4
    assert trainer.tally.counts["non_finite"] == 5
    assert all(torch.equal(p, before[name]) for name, p in trainer.network.named_parameters())
    saved = torch.load(next(folder.glob("non-finite-*.pt")), weights_only=True)
    assert len(saved["captions"]) == len(saved["frames"])


def test_an_infinite_gradient_is_found_too(recipe, folder, monkeypatch):
    trainer = Trainer(recipe(), folder)
    loss = trainer.objective.loss

    def blow_up(model, batch):
        value, figures = loss(model, batch)
        value.register_hook(lambda g: g * float("inf"))
        return value, figures

    monkeypatch.setattr(trainer.objective, "loss", blow_up)
    before = {name: p.detach().clone() for name, p in trainer.network.named_parameters()}
    train(trainer, 2)
    assert trainer.tally.counts["non_finite"] == 2
    monkeypatch.setattr(trainer.objective, "loss", loss)
    assert all(torch.equal(p, before[name]) for name, p in trainer.network.named_parameters())
    train(trainer, 1)
    assert trainer.tally.in_a_row == 0


def photos(folder, good: int, bad: int, of: str = "photo") -> dict:
    import numpy as np
    from PIL import Image

    folder.mkdir(exist_ok=True)
    for i in range(good + bad):
        if i < good:
            Image.fromarray(np.full((64, 64, 3), 40 + 3 * i, np.uint8)).save(folder / f"{i:03d}.png")
        else:
            (folder / f"{i:03d}.png").write_bytes(b"damaged")
        (folder / f"{i:03d}.txt").write_text(f"{of} {i}")
    return {"kind": "folder", "path": str(folder)}


def test_broken_samples_are_counted_and_named_and_too_many_end_the_run(recipe, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "ENOUGH", 20)
    settings = {"clips": None, "images": photos(tmp_path / "photos", good=12, bad=6), "held_out": 0}
    patient = Trainer(recipe(steps=20, data={**settings, "broken_share": 0.9}), folder)
    assert patient.run()
    assert patient.tally.counts["broken"] >= 6
    named = (folder / "skipped.txt").read_text().splitlines()
    assert len(named) == patient.tally.counts["broken"]
    assert all("damaged" not in line and ".png is not a picture that can be read" in line for line in named)
    strict = Trainer(recipe(name="strict", steps=20, data={**settings, "broken_share": 0.1}), folder.parent / "strict")
    with pytest.raises(BrokenDataError, match=r"of .* samples .* could not be used, more than data\.broken_share"):
        strict.run()


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


def test_settings_that_cannot_be_sampled_are_told_before_anything_runs(recipe, folder):
    with pytest.raises(RecipeError, match=r"sampling\.steps: .*found 'ten'"):
        recipe(sampling={"steps": "ten"})
    with pytest.raises(RecipeError, match=r"unknown key sampling\.stepz; did you mean sampling\.steps\?"):
        recipe(sampling={"stepz": 3})
    assert set(Sampling.model_fields) == {field.name for field in dataclasses.fields(Settings)}


def test_clips_are_sampled_while_it_trains(recipe, folder, monkeypatch):
    settings = {"width": 64, "height": 64, "frames": 3, "steps": 2, "fps": 8, "guidance": 2.0}
    samples = {"every": 2, "prompts": ["a red circle", "a blue square"]}
    trainer, seen = Trainer(recipe(steps=2, samples=samples, sampling=settings), folder), []
    real = trainer.objective.sample

    def spy(*arguments):
        seen.append({name: p.detach().clone() for name, p in trainer.network.named_parameters()})
        assert last_step(folder) == 2  # kept before anything else can go wrong
        real(*arguments)

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

    Trainer(recipe(steps=4, log_every=2, trackers=["tensorboard"], validation={"every": 4}), folder).run()
    events = EventAccumulator(str(next(p.parent for p in folder.rglob("events.out*"))))
    events.Reload()
    assert {"loss", "grad_norm", "clips/s", "data_wait", "lr", "data/broken", "validation/clips"} <= set(
        events.Tags()["scalars"]
    )
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


def test_8_bit_adam_needs_its_library(recipe, folder, monkeypatch):
    monkeypatch.setattr(parallel.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="needs bitsandbytes"):
        Trainer(recipe(optimizer={"kind": "adamw8bit"}), folder)


def test_a_tracker_that_is_not_there_is_not_left_out_silently(recipe, folder):
    with pytest.raises(
        RecipeError, match=r"trackers: nonsense cannot be used here; .*those that are there: .*tensorboard"
    ):
        Trainer(recipe(trackers=["tensorboard", "nonsense"]), folder)


def test_a_start_that_does_not_fit_is_refused(recipe, folder, tmp_path):
    plain = standin.write(tmp_path / "plain.safetensors", schedule=NoiseSchedule(None))
    with pytest.raises(
        RecipeError,
        match=r"a dynamic rescale that ends at 1, and diffusion\.scale_end is 0\.7; set diffusion\.scale_end=null",
    ):
        Trainer(recipe(init={"unet": str(plain)}), folder)
    Trainer(recipe(init={"unet": str(plain)}, diffusion={"scale_end": None}), folder)
    turbo = standin.write(
        tmp_path / "turbo.safetensors",
        config=dataclasses.replace(standin.unet_config("vc2_tiny"), time_cond_proj_dim=256),
    )
    with pytest.raises(RecipeError, match="is a T2V-Turbo model"):
        Trainer(recipe(init={"unet": str(turbo)}), folder.parent / "other")


def test_a_source_that_is_not_prepared_says_what_to_run(recipe, tmp_path):
    with pytest.raises(SourceError, match=r"not finished; run `python -m vc2\.training prepare`"):
        Trainer(recipe(), tmp_path / "elsewhere" / "small")


def test_a_cache_belongs_to_its_autoencoder(recipe, recipe_file, folder, tmp_path, start):
    """Other weights, another cache: it is not found, so it cannot be mistaken."""
    state = load_file(start)
    name = next(name for name in state if name.startswith("first_stage_model."))
    state[name] = state[name] + 0.01
    save_file(state, tmp_path / "other.safetensors")
    assert load_autoencoder(tmp_path / "other.safetensors")
    tree = yaml.safe_load(recipe_file().read_text())
    with pytest.raises(SourceError, match="not finished"):
        Trainer(recipe(init={**tree["init"], "autoencoder": str(tmp_path / "other.safetensors")}), folder)
