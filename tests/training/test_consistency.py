"""Making a model of few steps: what is compared with what, where the teacher is asked, and the files that come out."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from vc2.files import checkpoint
from vc2.pipeline import TextToVideo, override
from vc2.sampling.schedule import NoiseSchedule
from vc2.training import cost
from vc2.training.errors import RecipeError
from vc2.training.estimate import estimate
from vc2.training.initialise import sampling_of, start_unet
from vc2.training.loop import Trainer
from vc2.training.rng import torch_generator

CLIPS = {"images": None, "lengths": [[2, 1, 1]], "caption_dropout": 0}


@pytest.fixture
def distilled(recipe, start):
    """A recipe of the objective, with changes."""

    def make(**changes):
        whole = {
            "objective": "consistency",
            "init": {"unet": start},
            "data": CLIPS,
            "diffusion": {"dropout": 0.0},
            "consistency": {"timesteps": 50, "guidance": [2, 5]},
            "learn": {"part": "all"},
        }
        return recipe(**whole | changes)

    return make


@pytest.fixture
def objective(distilled, folder):
    def make(**changes):
        return Trainer(distilled(**changes), folder).objective

    return make


def batch_of(objective):
    return next(objective.batches(0, 0, 1))


def test_both_ends_of_a_teacher_s_step_are_compared(objective):
    """Sample by sample, in plain numbers; the teacher has no rescale here, so that it is asked at the same timestep."""
    made = objective()
    with torch.no_grad():  # else guidance changes nothing yet
        made.model.time_cond_proj.weight.normal_(generator=torch.Generator().manual_seed(1))
    made.schedule = NoiseSchedule(None)
    batch, t = batch_of(made), torch.tensor([999, 10])
    found = made.errors(made.model, batch, t, [torch_generator(0, k) for k in range(2)])

    abar = NoiseSchedule(None).alphas_cumprod.double()
    uncond = made.encoders.context([""])
    cond = made.encoders.context(batch.captions, batch.text)
    for k, (start, end) in enumerate([(999, 979), (19, 0)]):
        generator = torch_generator(0, k)
        x0 = made.encoders.latents(batch.frames, [generator, generator])[k : k + 1]
        generator = torch_generator(0, k)
        made.encoders.latents(batch.frames[k : k + 1], [generator])
        noise = torch.randn(x0.shape[1:], generator=generator)[None]
        w = 2 + 3 * torch.rand((), generator=generator)
        x0 = made.encoders.latents(batch.frames[k : k + 1], [torch_generator(0, k)])
        fps = batch.fps[k : k + 1]

        def f(x, t, k=k, w=w, fps=fps):
            eps = made.model(x, torch.tensor([t]), cond[k : k + 1], fps, guidance=float(w))
            clean = (x - float((1 - abar[t]).sqrt()) * eps) / float(abar[t].sqrt())
            skip = 0.25 / ((10 * t) ** 2 + 0.25)
            return skip * x + 10 * t / ((10 * t) ** 2 + 0.25) ** 0.5 * clean

        x = float(abar[start].sqrt()) * x0 + float((1 - abar[start]).sqrt()) * noise
        with torch.no_grad():
            given, empty = (made.teacher(x, torch.tensor([start]), c, fps) for c in (cond[k : k + 1], uncond))
            eps = given + w * (given - empty)
            clean = (x - float((1 - abar[start]).sqrt()) * eps) / float(abar[start].sqrt())
            earlier = float(abar[end].sqrt()) * clean + float((1 - abar[end]).sqrt()) * eps
            apart = f(x, start) - f(earlier, end)
        expected = ((apart**2 + 1e-6).sqrt() - 1e-3).mean()
        assert float(found[k].detach()) == pytest.approx(float(expected), rel=1e-3)
    assert found.requires_grad


def test_a_model_that_is_consistent_has_no_loss(objective):
    """Where all clips are one, its noise is known exactly, and every step leads to it."""
    made = objective()
    batch = batch_of(made)
    only = made.encoders.latents(batch.frames[:1], [torch_generator(0)])

    def knows(schedule, clip):
        def eps(x, t, *_, **__):
            abar = schedule.alphas_cumprod.double()
            # At a fraction of a timestep both coefficients are found between its neighbours.
            low = t.double().floor().long().clamp(max=998)
            part = (t.double() - low).reshape(-1, 1, 1, 1, 1)
            ratio = schedule.sigmas().double().log()
            sigma = ((1 - part.flatten()) * ratio[low] + part.flatten() * ratio[low + 1]).exp().reshape(part.shape)
            noise = (1 - abar).sqrt()
            s = (1 - part) * noise[low].reshape(part.shape) + part * noise[low + 1].reshape(part.shape)
            return ((x - s / sigma * clip) / s).float()

        return eps

    made.encoders.latents = lambda frames, generators: only.expand(len(generators), -1, -1, -1, -1)
    said = []

    def teacher(*given, **how):
        said.append(knows(made.schedule, only)(*given, **how))
        return said[-1]

    made.teacher = teacher
    noise = torch.stack([torch.randn(only.shape[1:], generator=torch_generator(0, k)) for k in range(2)])
    for t in (40, 400, 999):
        times, generators = torch.full((2,), t), [torch_generator(0, k) for k in range(2)]
        assert float(made.errors(knows(NoiseSchedule(None), only), batch, times, generators).max()) < 2e-3
        torch.testing.assert_close(said[-1], torch.cat([noise, noise]), rtol=0.01, atol=0.01)
    generators = [torch_generator(0, k) for k in range(2)]

    def less(x, t, *_, **__):
        return 0.9 * knows(NoiseSchedule(None), only)(x, t)

    assert float(made.errors(less, batch, torch.full((2,), 400), generators).min()) > 3e-3


def test_the_teacher_is_asked_where_it_has_as_much_noise(objective):
    made = objective()
    t = torch.tensor([0, 19, 399, 700, 999])
    factor, own = made.asked(t)
    abar, scale = made.schedule.alphas_cumprod.double(), made.schedule.scale.double()
    signal, noise = abar.sqrt() * scale, (1 - abar).sqrt()
    low = own.long().clamp(max=998)
    part = own - low
    for k, at in enumerate(t.tolist()):
        its = ((1 - part[k]) * signal[low[k]] + part[k] * signal[low[k] + 1]).item()
        its_noise = ((1 - part[k]) * noise[low[k]] + part[k] * noise[low[k] + 1]).item()
        assert float(factor[k] * abar[at].sqrt()) == pytest.approx(its, rel=2e-3)
        assert float(factor[k] * noise[at]) == pytest.approx(its_noise, rel=1e-6)
    assert own[0] == 0
    assert (own[1:] < t[1:]).all()  # its signal is weaker, so that it is as noisy earlier
    made.schedule = NoiseSchedule(None)
    factor, own = made.asked(t)
    torch.testing.assert_close(own, t.double())
    torch.testing.assert_close(factor, torch.ones(5, dtype=torch.float64))


def test_a_run_leaves_a_model_of_few_steps(distilled, folder):
    recipe = distilled(
        steps=2,
        validation={"every": 2, "quantiles": [0.5]},
        samples={"every": 2, "prompts": ["a red circle moving right"]},
        sampling={"width": 64, "height": 64, "frames": 2, "fps": 16, "guidance": 3.0},
    )
    trainer = Trainer(recipe, folder)
    before = {name: p.clone() for name, p in trainer.objective.teacher.named_parameters()}
    assert trainer.run()
    assert all(torch.equal(p, before[name]) for name, p in trainer.objective.teacher.named_parameters())
    assert len(list(folder.rglob("samples/*/*.mp4"))) == 1
    assert any("held_out" in line for line in (folder / "history.jsonl").read_text().splitlines())

    model = TextToVideo(folder / "model.safetensors")
    assert model.distilled
    assert (model.settings.steps, model.settings.guidance, model.settings.original_steps) == (4, 3.0, 50)
    assert not model.schedule.rescaled
    assert model.unet.time_cond_proj.weight.any()
    clip = model(["a red circle moving right"], [0], override(model.settings, steps=2))
    assert clip.shape == (1, 2, 64, 64, 3)
    with pytest.raises(RecipeError, match="is a T2V-Turbo model"):
        start_unet(recipe.model_copy(update={"init": replace_unet(recipe.init, folder / "model.safetensors")}))


def replace_unet(init, path):
    return init.model_copy(update={"unet": path})


@pytest.mark.parametrize(
    "learn",
    [
        {"part": "spatial"},
        {"part": "temporal"},
        {"part": "all", "how": "lora", "rank": 2},
        {"part": "temporal", "how": "lora", "rank": 2},
    ],
    ids=lambda learn: " ".join(map(str, learn.values())),
)
def test_one_clip_at_a_time_is_the_same_step_and_guidance_always_learns(distilled, folder, learn):
    found = []
    for micro in (None, 1):
        trainer = Trainer(distilled(learn=learn, compute={"micro_batch": micro}), folder.parent / str(micro))
        batch = batch_of(trainer.objective)
        trainer._backward(batch)
        gradients = {name: p.grad.clone() for name, p in trainer.network.named_parameters() if p.grad is not None}
        assert any(name.startswith("time_cond_proj") and g.any() for name, g in gradients.items())
        found.append(torch.cat([g.flatten() for g in gradients.values()]))
        for name, p in trainer.objective.teacher.named_parameters():
            assert not p.requires_grad, name
            assert p.grad is None, name
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-5)


def test_beside_a_lora_the_teacher_takes_no_memory(objective):
    made = objective(learn={"part": "all", "how": "lora", "rank": 2})
    own = {p.data_ptr() for p in made.model.parameters()}
    assert all(p.data_ptr() in own for p in made.teacher.parameters())
    assert not any("adapter" in name for name, _ in made.teacher.named_parameters())
    alone = objective()
    assert not {p.data_ptr() for p in alone.model.parameters()} & {p.data_ptr() for p in alone.teacher.parameters()}


def test_a_lora_of_few_steps_reads_the_guidance_too(distilled, folder):
    recipe = distilled(steps=2, learn={"part": "all", "how": "lora", "rank": 2})
    trainer = Trainer(recipe, folder)
    assert trainer.run()
    tensors = load_file(folder / "lora.safetensors")
    assert tensors["diffusion_model.time_cond_proj.lora_B.weight"].any()
    whole = checkpoint.load(folder / "model.safetensors")
    change = tensors["diffusion_model.time_cond_proj.lora_B.weight"].float() @ (
        tensors["diffusion_model.time_cond_proj.lora_A.weight"].float()
    )
    torch.testing.assert_close(whole.unet["time_cond_proj.weight"].float(), change, rtol=1e-2, atol=1e-6)


def test_it_begins_as_the_model_that_it_is_made_of(objective, recipe, start):
    made = objective()
    x, context = torch.randn(1, 4, 2, 8, 8), torch.randn(1, 77, made.model.config.context_dim)
    plain = start_unet(recipe(init={"unet": start}, learn={"part": "all"})).eval()
    with torch.no_grad():
        t = torch.tensor([500])
        torch.testing.assert_close(made.model(x, t, context, guidance=[3.0]), plain(x, t, context))


def test_it_recommends_what_it_was_distilled_for(distilled):
    assert sampling_of(distilled()) | {"steps": 4, "guidance": 5.0, "original_steps": 50} == sampling_of(distilled())
    assert sampling_of(distilled(consistency={}))["guidance"] == 7.5


def test_losses_of_other_timesteps_do_not_compare(objective):
    assert objective().validation() != objective(consistency={"timesteps": 20, "guidance": [2, 5]}).validation()


@pytest.mark.slow
def test_the_teacher_s_memory_is_counted(distilled):
    beside, alone = distilled(), distilled(objective="diffusion", consistency={})
    assert estimate(beside).static - estimate(alone).static == 4 * (estimate(alone).learning + estimate(alone).frozen)
    lora = {"learn": {"part": "all", "how": "lora", "rank": 2}}
    assert estimate(distilled(**lora)).teacher == 0
    assert estimate(distilled(**lora, compute={"sharding": "full"})).teacher > 0


def test_what_teaching_costs_is_counted(distilled):
    recipe = distilled()
    config = cost.unet_config(recipe)
    alone = recipe.model_copy(update={"objective": "diffusion"})
    assert cost.sample_flops(recipe, config, 2) == 2 * cost.sample_flops(alone, config, 2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"init": {"unet": None}}, "init.unet is missing"),
        ({"diffusion": {"noisy_share": 0.5}}, "are of objective diffusion"),
        ({"diffusion": {"max_weight": 5.0}}, "are of objective diffusion"),
        ({"sampling": {"steps": 51}}, "consistency.timesteps 50; found 51"),
        ({"objective": "diffusion"}, "consistency is of objective consistency"),
        ({"consistency": {"timesteps": 300}}, "must divide 1000, such as 50 or 200, found 300"),
        ({"consistency": {"guidance": [5, 2]}}, r"must be \[lowest, highest\], such as \[5, 15\]"),
    ],
)
def test_what_does_not_go_together_is_refused(distilled, changes, says):
    with pytest.raises(RecipeError, match=says):
        distilled(**changes)
