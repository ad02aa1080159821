"""Small runs as tests make them: some steps, photographs to train on, commands as a person types them."""

from __future__ import annotations

import logging

import pytest

from vc2.training import __main__ as command
from vc2.training.loop import Trainer


def train(trainer: Trainer, steps: int) -> list[dict[str, float]]:
    batches = trainer.objective.batches(trainer.step, 0, 1)
    return [trainer.train_step(next(batches)) for _ in range(steps)]


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


def say(capsys, *arguments: object) -> tuple[int, str, str]:
    code = command.run_command([str(a) for a in arguments])
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.fixture(autouse=True)
def quiet_logs():
    yield
    logging.getLogger().handlers.clear()
