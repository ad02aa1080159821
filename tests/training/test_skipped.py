"""What is broken or not finite is skipped, counted and named, and ends the run when it is too much."""

from __future__ import annotations

import pytest
import torch

from tests.training.runs import photos, train
from vc2.training.loop import Trainer
from vc2.training.sources import source
from vc2.training.tally import BrokenDataError, NonFiniteError


def test_the_share_of_broken_samples_counts_every_image_of_a_step(recipe, folder):
    trainer = Trainer(recipe(diffusion={"image_share": 1.0}, data={"lengths": [[8, 1, 1]]}), folder)
    train(trainer, 3)
    assert trainer.tally.counts["read"] == 3 * 2 * 8


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
