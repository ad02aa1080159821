"""What a step does, by what comes out of it: what the network is told, how weights move, at which noise the held-out
loss is taken, and how sample clips are made.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from vc2.pipeline import TextToVideo
from vc2.training import validate
from vc2.training.export import write_full
from vc2.training.loop import Trainer
from vc2.training.prepare import prepare
from vc2.training.rng import VALIDATION, torch_generator


def test_the_network_is_told_the_frame_rate_of_each_sample(recipe, folder, start):
    settings = recipe(init={"unet": start}, batch=4, diffusion={"image_fps": [4, 30], "dropout": 0.0})
    trainer = Trainer(settings, folder)
    objective, told = trainer.objective, []

    def spy(x_t, t, context, fps, temporal):
        told.append(fps.tolist())
        return torch.zeros_like(x_t)

    batches = [batch for batch, _ in zip(objective.batches(0, 0, 1), range(6), strict=False)]
    for batch in batches:
        objective.loss(spy, batch)
    assert told == [batch.fps.tolist() for batch in batches]
    assert len({fps for fpses in told for fps in fpses}) > 3
    clip = next(batch for batch in batches if batch.step.medium == "clips")
    faster = replace(clip, fps=clip.fps * 2)
    losses = [float(objective.loss(trainer.model, batch)[0].detach()) for batch in (clip, clip, faster)]
    assert losses[0] == losses[1]
    assert abs(losses[2] - losses[0]) > 1e-6


def test_a_step_is_adamw_with_the_recipe_s_settings_on_clipped_gradients(recipe, folder):
    """Three steps by hand: clipping shows from the second on, since AdamW forgets the size of the first gradient."""
    lr, (b1, b2), decay, clip = 1e-2, (0.7, 0.9), 0.4, 0.05
    optimizer = {"lr": lr, "warmup": 0, "betas": [b1, b2], "weight_decay": decay, "clip": clip}
    settings = recipe(data={"images": None, "lengths": [[2, 1, 1]]}, diffusion={"dropout": 0.0}, optimizer=optimizer)
    trained, by_hand = Trainer(settings, folder), Trainer(settings, folder.parent / "by-hand")
    weights = dict(by_hand.network.named_parameters())
    first = {name: torch.zeros_like(p) for name, p in weights.items()}
    second, norms = {name: torch.zeros_like(p) for name, p in weights.items()}, []
    for k, batch in zip(range(1, 4), trained.objective.batches(0, 0, 1), strict=False):
        figures = trained.train_step(batch)
        by_hand._backward(batch)
        norms.append(math.sqrt(sum(float(p.grad.square().sum()) for p in weights.values())))
        assert figures["grad_norm"] == pytest.approx(norms[-1], rel=1e-4)
        with torch.no_grad():
            for name, p in weights.items():
                gradient = p.grad * min(1.0, clip / norms[-1])
                first[name] = b1 * first[name] + (1 - b1) * gradient
                second[name] = b2 * second[name] + (1 - b2) * gradient.square()
                size = (second[name] / (1 - b2**k)).sqrt() + 1e-8
                p.copy_(p * (1 - lr * decay) - lr * first[name] / (1 - b1**k) / size)
        by_hand.optimizer.zero_grad()
    assert min(norms) > 2 * clip
    assert max(norms) > 1.05 * min(norms)
    # Where a gradient is next to nothing its direction is rounding: most of the weights are compared, and not all.
    apart = torch.cat([(p - weights[name]).flatten().abs() for name, p in trained.network.named_parameters()])
    assert apart.sort().values[int(0.9 * len(apart))] < 1e-6


def test_the_held_out_loss_is_taken_at_its_quantiles_and_with_its_own_noise(recipe, folder):
    trainer = Trainer(recipe(validation={"every": 1, "quantiles": [0.1, 0.5, 0.9]}), folder)
    model, accelerator, held_out = trainer.model, trainer.accelerator, trainer.objective.held_out

    def loss(errors) -> dict[str, float]:
        return validate.held_out_loss(errors, model, trainer.recipe, accelerator, held_out)

    at = loss(lambda model, batch, t, generators: t.float())
    assert [at[f"clips t={t}"] for t in (100, 500, 900)] == [100, 500, 900]
    assert at["clips"] == at["images"] == pytest.approx(500)
    draws = loss(lambda model, batch, t, generators: torch.stack([torch.rand((), generator=g) for g in generators]))
    for kind, medium in enumerate(("clips", "images")):
        for q, t in enumerate((100, 500, 900)):
            own = [
                torch.rand((), generator=torch_generator(trainer.recipe.seed, VALIDATION, kind, k, q)) for k in range(4)
            ]
            assert draws[f"{medium} t={t}"] == pytest.approx(float(sum(own)) / 4)
    own = trainer.objective.validate(model, accelerator)
    assert len({round(own[f"clips t={t}"], 5) for t in (100, 500, 900)}) == 3


def test_a_sample_clip_is_what_the_exported_model_makes(recipe, folder, start):
    """With the recipe's steps, guidance, negative prompt and frame rate, at which it also plays."""
    sampling = {"width": 64, "height": 64, "frames": 3, "steps": 4, "guidance": 5.0, "eta": 0.5, "fps": 12}
    prompts = ["a red circle", "a blue square"]
    settings = recipe(
        init={"unet": start}, samples={"every": 1, "prompts": prompts}, sampling={**sampling, "negative": "a circle"}
    )
    trainer = Trainer(settings, folder)
    made = trainer.objective.sample(trainer.model, trainer.accelerator)
    written = [(np.stack(clip.frames), clip.fps) for clip in made]
    assert trainer.network.training
    whole = write_full(
        folder / "now.safetensors", settings, trainer.ema.weights(), 0, torch.float32, trainer.objective.fingerprints
    )
    pipeline = TextToVideo(whole, dtype=torch.float32)
    expected = pipeline(prompts, [0, 1])
    assert [fps for _, fps in written] == [12, 12]
    for (clip, _), same in zip(written, expected, strict=True):
        assert np.abs(clip.astype(int) - same.astype(int)).max() <= 2
    for other in ({"guidance": 1.0}, {"fps": 24.0}, {"negative": ""}):
        unlike = pipeline(prompts, [0, 1], replace(pipeline.settings, **other))
        assert np.abs(unlike.astype(int) - expected.astype(int)).max() > 4, other


@pytest.mark.parametrize(("fps", "plays"), [(24, 24), (0, 10)])
def test_sample_clips_play_at_the_frame_rate_they_are_sampled_for(recipe, folder, fps, plays):
    sampling = {"width": 64, "height": 64, "frames": 1, "steps": 1, "guidance": 1.0, "fps": fps}
    trainer = Trainer(recipe(samples={"every": 1, "prompts": ["a"]}, sampling=sampling), folder)
    assert [clip.fps for clip in trainer.objective.sample(trainer.model, trainer.accelerator)] == [plays]


def test_the_error_is_the_mean_square_of_epsilon(recipe, folder):
    objective = Trainer(recipe(), folder).objective
    batch = next(objective.batches(0, 0, 1))
    t = torch.full((len(batch),), 400)

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(k) for k in range(len(batch))]

    drawn = generators()
    x0 = objective.encoders.latents(batch.frames, drawn)
    noise = torch.stack([torch.randn(x0.shape[1:], generator=g) for g in drawn])
    for wrong in (0.0, 2.0, -3.0):
        errors = objective.errors(lambda *_, wrong=wrong, **__: noise + wrong, batch, t, generators())
        assert errors.tolist() == pytest.approx([wrong**2] * len(batch), abs=1e-4)


def test_noise_and_timesteps_are_others_in_each_slot_and_step_and_the_loss_weighs_them(recipe, folder, monkeypatch):
    objective = Trainer(recipe(batch=4, diffusion={"max_weight": 30.0}), folder).objective
    seen = []

    def errors(model, batch, t, generators):
        seen.append((t, torch.stack([torch.randn((), generator=g) for g in generators])))
        return torch.arange(1.0, 1 + len(t))

    monkeypatch.setattr(objective, "errors", errors)
    batches = [batch for batch, _ in zip(objective.batches(0, 0, 1), range(3), strict=False)]
    losses = [float(objective.loss(None, batch)[0]) for batch in (*batches, batches[0])]
    noise = torch.cat([drawn for _, drawn in seen[:3]])
    assert len(set(noise.tolist())) == len(noise)
    assert len({t for ts, _ in seen[:3] for t in ts.tolist()}) > 0.7 * len(noise)
    assert losses[3] == losses[0]
    for loss, (t, _) in zip(losses, seen, strict=True):
        abar = objective.schedule.alphas_cumprod[t] * objective.schedule.scale[t] ** 2
        weights = ((1 - objective.schedule.alphas_cumprod[t]) / abar).clamp(1, 30)
        assert loss == pytest.approx(float((torch.arange(1.0, 1 + len(t)) * weights).mean()), rel=1e-4)


def test_captions_reach_the_network(recipe, folder, start):
    """Those that are prepared, and those that are encoded on the way."""
    images = {"kind": "procedural", "count": 40, "prepared": "moments"}
    for data in ({"clips": None}, {"clips": None, "images": images}):
        settings = recipe(batch=4, init={"unet": start}, data={**data, "caption_dropout": 0.0})
        prepare(settings, folder.parent / "cache")
        objective, given = Trainer(settings, folder).objective, []
        batch = next(objective.batches(0, 0, 1))

        def spy(x_t, t, context, fps, temporal, given=given):
            given.append(context)
            return torch.zeros_like(x_t)

        objective.loss(spy, batch)
        assert len(set(batch.captions)) > 1
        assert torch.allclose(given[0], objective.encoders.text(batch.captions).float(), atol=1e-2)


def test_latents_are_scaled_samples_of_what_the_autoencoder_sees_in_pixels(recipe, folder):
    encoders = Trainer(recipe(), folder).objective.encoders
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seen = encoders.autoencoder.encode(pixels.float() / 127.5 - 1)
    assert torch.allclose(encoders.moments(pixels), seen, atol=1e-5)
    moments = torch.cat([torch.full((1, 4000, 4, 1, 1), 2.0), torch.full((1, 4000, 4, 1, 1), math.log(9))], 2)
    latents = encoders.latents(moments, [torch.Generator().manual_seed(0)])
    assert latents.shape == (1, 4, 4000, 1, 1)
    assert float(latents.mean()) == pytest.approx(2 * 0.18215, rel=0.05)
    assert float(latents.std()) == pytest.approx(3 * 0.18215, rel=0.05)


def test_dropout_is_another_in_every_step(recipe, folder):
    trainer, drawn = Trainer(recipe(), folder), []
    for trainer.step in (0, 1, 2, 1):
        trainer._seed_dropout()
        drawn.append(float(torch.rand(())))
    assert len(set(drawn)) == 3
    assert drawn[3] == drawn[1]
