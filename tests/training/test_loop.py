"""The loop: what learns, learns; what is frozen stays, to the bit; what a step draws is as the recipe says."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from tests.training.runs import train
from vc2.files.checkpoint import UNET
from vc2.files.video import read_video
from vc2.training.errors import RecipeError
from vc2.training.loop import Trainer
from vc2.training.partition import temporal_names


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
