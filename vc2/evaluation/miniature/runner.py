"""Every model of a seed: trained, sampled, scored and written down, by as many processes as there are.

A job is a model. Whoever finds one that is neither finished nor locked, and whose start is there, takes its lock, which
the system gives back however the process ends. All that a job leaves is checkpoints, files that are written whole, and
rows; so what was stopped anywhere goes on.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from ...files import checkpoint as files
from ...pipeline import TextToVideo
from ...training import checkpoint
from ...training.errors import RecipeError
from ...training.export import export
from ...training.initialise import load_autoencoder
from ...training.loop import Trainer
from ...training.partition import temporal_names
from ...training.prepare import prepare
from ...training.rng import torch_generator
from ...training.sources.paper_world import world_hash
from ...training.tally import NonFiniteError
from ..writing import replace_text
from . import encoders, rows
from .arms import ARMS, BY_NAME, Arm, Place
from .distance import Distance
from .machine import DEVICE, PRECISION
from .score import sample, save_clips, scenes, score, weight_change

log = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds between two looks for work that another process may have finished
PREPARED_BY = ("F-base", "F-Spa-DIR", "F-Spa-DIR-LAION", "F-Spa-DIR-sham")  # recipes that read all there is
FINISHED = "finished"  # in the folder of a model that is whole
STUCK = "cannot-finish.txt"  # in the folder of a model whose loss is not finite: why
RANDOM = "random"  # F-base with a random change of theta_S, as large in every tensor as F-Spa-DIR's
RANDOM_OF = ("F-base", "F-Spa-DIR")


@dataclass(frozen=True)
class Scoring:
    """One row: which weights of an arm, at which step, at which frame rate, on all prompts or some."""

    step: int
    weights: str = "ema"
    fps: int = 8
    some: bool = False


@dataclass
class Runner:
    """All seeds' jobs in `place`, rows in `folder`. `decides`: rows must all be of this commit, and of the
    encoders that the gates were measured with.
    """

    place: Place
    folder: Path
    seeds: tuple[int, ...]
    decides: bool
    commit: str = field(default_factory=rows.commit)
    names: Sequence[str] = (*(arm.name for arm in ARMS), RANDOM)  # of the models that are made

    def run(self) -> None:
        """Until everything is done. Raises RecipeError, NonFiniteError where seeds do not decide, OSError, and
        KeyboardInterrupt where a run was told to stop, and has saved.
        """
        with FileLock(self._lock("prepare")):
            if not encoders.make(self.place.encoders):
                raise KeyboardInterrupt
            self.seeds = self.able_to_start()
            self.check()
            self.prepare()
        while todo := [job for job in self.jobs() if not self.done(*job)]:
            if not any(self.attempt(*job) for job in todo if self.ready(*job)):
                time.sleep(PATIENCE)

    def jobs(self) -> list[tuple[str, int]]:
        return [(name, seed) for seed in self.running() for name in self.names]

    def running(self) -> tuple[int, ...]:
        """The seeds; where they decide, the next number takes the place of one that cannot finish."""
        if not self.decides:
            return self.seeds
        able = (seed for seed in count(self.seeds[0]) if not any(self._stuck(arm, seed).is_file() for arm in ARMS))
        return tuple(islice(able, len(self.seeds)))

    def able_to_start(self) -> tuple[int, ...]:
        """The seeds but those that lack what their models start from. Raises RecipeError where no other is left."""
        lacking = {seed: self._lacking(seed) for seed in self.seeds}
        able = tuple(seed for seed, folders in lacking.items() if not folders)
        if able != self.seeds:
            folders = ", ".join(folder for some in lacking.values() for folder in some)
            problem = f"{folders}: not finished here; later models are trained where the seeds were"
            if not able:
                raise RecipeError(problem)
            log.warning("%s; only seeds %s are run", problem, ", ".join(map(str, able)))
        return able

    def _lacking(self, seed: int) -> list[str]:
        """Folders of what its models start from, where that is neither here nor made by this run. None where all that
        would start from it is done.
        """
        todo = [name for name in self.names if name != RANDOM and not self.done(name, seed)]
        starts = {BY_NAME[name].start for name in todo} - {None, *self.names}
        arms = [BY_NAME[start] for start in sorted(filter(None, starts))]
        return [str(self.place.folder(arm, seed)) for arm in arms if not self._finished(arm.name, seed)]

    def _stuck(self, arm: Arm, seed: int) -> Path:
        return self.place.folder(arm, seed) / STUCK

    def check(self) -> None:
        """Raises RecipeError where a gate of the world failed or the gates are of another world or other encoders, or
        where rows that are there are not of this code.
        """
        if self.decides:
            gates = encoders.GATES
            tree = json.loads(gates.read_text(encoding="utf-8")) if gates.is_file() else {}
            for what, found in (("world", world_hash()), ("encoders", self.fingerprints)):
                if tree.get(what) != found:
                    raise RecipeError(
                        f"{gates} is of {what} {tree.get(what, 'none')}, and here it is {found}; run `python -m"
                        " vc2.evaluation.miniature gates`, and commit what it writes before the seeds that count"
                    )
            if failed := [gate["name"] for gate in tree["gates"] if not gate["passed"]]:
                raise RecipeError(f"{gates}: {', '.join(failed)} failed; in such a world nothing is run")
            log.info("all %d gates of the world passed (%s)", len(tree["gates"]), gates)
        for seed in self.running():
            for row in rows.read(rows.path_of(self.folder, seed)):
                wanted = {"world": world_hash(), "recipe": self.identity(row["arm"]), "encoders": self.fingerprints}
                wanted |= {"commit": self.commit} if self.decides else {}
                for name, value in wanted.items():
                    if row[name] != value:
                        raise RecipeError(
                            f"{rows.path_of(self.folder, seed)}: {row['arm']} has another {name}, {row[name]}, and here"
                            f" it is {value}; check out what the rows were made by, move the file away, or repeat"
                            " it all in a folder of its own (run --repeat)"
                        )

    def identity(self, name: str) -> str:
        return self.place.identity(BY_NAME["F-Spa-DIR" if name == RANDOM else name])

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of what all models share."""
        return encoders.fingerprints(self.place.encoders)

    @cached_property
    def distance(self) -> Distance:
        return Distance(load_autoencoder(self.place.encoders))

    def prepare(self) -> None:
        """Latents and captions, once for all seeds."""
        for name in PREPARED_BY:
            prepare(self.place.recipe(BY_NAME[name], 0), self.place.cache)

    def scorings(self, name: str, seed: int) -> list[Scoring]:
        """What is scored of a model, in the order in which training passes it."""
        if name == RANDOM:
            return [Scoring(0, some=self.place.quick)]
        if name == "SD":
            return []
        arm = BY_NAME[name]
        *before, end = self.place.stops(arm, seed)
        out = [Scoring(step, some=True) for step in before]
        out.append(Scoring(end, some=self.place.quick))
        if arm.raw and not self.place.quick:
            out.append(Scoring(end, weights="raw", some=True))
        if name in ("F-base", "P-base") and not self.place.quick:
            out.append(Scoring(end, fps=100, some=True))
        return out

    def missing(self, name: str, seed: int) -> list[Scoring]:
        there = {rows.key_of(row) for row in rows.read(rows.path_of(self.folder, seed))}
        return [s for s in self.scorings(name, seed) if (name, s.step, s.weights, s.fps) not in there]

    def done(self, name: str, seed: int) -> bool:
        """Whether its rows are there, and its weights as long as a model that starts from them has yet to be made."""
        if self.missing(name, seed):
            return False
        if name == RANDOM or self._finished(name, seed):
            return True
        from_it = [arm.name for arm in ARMS if arm.start == name] + [RANDOM] * (name in RANDOM_OF)
        return all(self.done(other, seed) for other in from_it)

    def _finished(self, name: str, seed: int) -> bool:
        return (self.place.folder(BY_NAME[name], seed) / FINISHED).is_file()

    def ready(self, name: str, seed: int) -> bool:
        """Whether what it starts from is there."""
        if name == RANDOM:
            return all(self._finished(start, seed) for start in RANDOM_OF)
        start = BY_NAME[name].start
        return start is None or self._finished(start, seed)

    def attempt(self, name: str, seed: int) -> bool:
        """Do a job, unless another process does. Returns whether there was anything to do here."""
        try:
            with FileLock(self._lock(f"{seed}-{name}"), timeout=0):
                if self.done(name, seed):
                    return False
                log.info("seed %d: %s", seed, name)
                if name == RANDOM:
                    self.score_random(seed)
                else:
                    self.train(BY_NAME[name], seed)
                return True
        except Timeout:
            return False
        except NonFiniteError as error:
            if not self.decides:
                raise
            log.error("seed %d cannot finish, and the next number takes its place: %s", seed, error)
            replace_text(self._stuck(BY_NAME[name], seed), f"{error}\n")
            return True

    def _lock(self, name: str) -> Path:
        folder = self.place.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.lock"

    def train(self, arm: Arm, seed: int) -> None:
        """From stop to stop, scoring at each."""
        folder = self.place.folder(arm, seed)
        scorings, stops = self.scorings(arm.name, seed), self.place.stops(arm, seed)
        todo = {s.step for s in self.missing(arm.name, seed)} | {stops[-1]}
        state = checkpoint.latest(folder / "checkpoints")
        if state and state["step"] > min(todo):  # rows were taken away: they can only be made again from the start
            log.warning("%s is past step %d, which has no row; it begins anew", folder, min(todo))
            shutil.rmtree(folder)
        for stop in stops:
            if stop not in todo:
                continue
            began = time.process_time()
            if not Trainer(self.place.recipe(arm, seed, stop), folder, self.place.cache).run():
                raise KeyboardInterrupt
            seconds = time.process_time() - began
            for scoring in (s for s in scorings if s.step == stop and s in self.missing(arm.name, seed)):
                self.score(arm.name, seed, scoring, self._weights(arm, seed, scoring), seconds)
        (folder / FINISHED).touch()
        shutil.rmtree(folder / "checkpoints")

    def _weights(self, arm: Arm, seed: int, scoring: Scoring) -> Path:
        folder = self.place.folder(arm, seed)
        if scoring.weights == "ema":
            return folder / "model.safetensors"
        recipe = self.place.recipe(arm, seed, scoring.step)
        return export(recipe, folder, folder / "raw.safetensors", "full", "fp16", raw=True)

    def score(self, name: str, seed: int, scoring: Scoring, weights: Path, trained: float) -> None:
        """One row; the clips stay beside the model."""
        began = time.process_time()
        model, wanted = TextToVideo(weights, DEVICE), scenes(scoring.some)
        clips = sample(model, wanted, seed, scoring.fps)
        kind = f"{scoring.step}-{scoring.weights}-fps{scoring.fps}"
        folder = self.place.root / f"seed-{seed}" / name
        save_clips(folder / f"clips-{kind}.npz", clips)
        start = BY_NAME["F-Spa-DIR" if name == RANDOM else name].start
        assert start is not None  # the image model is not scored
        before = TextToVideo(self.place.folder(BY_NAME[start], seed) / "model.safetensors").unet
        row: dict[str, Any] = {
            "seed": seed,
            "arm": name,
            "step": scoring.step,
            "weights": scoring.weights,
            "fps": scoring.fps,
            "prompts": len(wanted),
            "world": world_hash(),
            "recipe": self.identity(name),
            "encoders": self.fingerprints,
            "commit": self.commit,
            "torch": torch.__version__,
            "precision": PRECISION,
            "change": weight_change(model.unet.cpu(), before),
            # Clips of 8 frames a second, whatever rate the model was told.
            **score(clips, wanted, 8, self.distance).row(),
            "seconds": {"training": round(trained, 1), "scoring": round(time.process_time() - began, 1)},
        }
        rows.append(rows.path_of(self.folder, seed), row)

    def score_random(self, seed: int) -> None:
        base = files.load(self.place.folder(BY_NAME["F-base"], seed) / "model.safetensors", torch.float32)
        after = files.load(self.place.folder(BY_NAME["F-Spa-DIR"], seed) / "model.safetensors", torch.float32)
        temporal = temporal_names(TextToVideo(self.place.folder(BY_NAME["F-base"], seed) / "model.safetensors").unet)
        generator, changed = torch_generator(seed), {}
        for name, tensor in base.unet.items():
            noise = torch.randn(tensor.shape, generator=generator)
            size = 0 if name in temporal else float((after.unet[name] - tensor).norm())
            changed[name] = tensor + noise * (size / float(noise.norm()))
        target = self.place.root / f"seed-{seed}" / RANDOM / "model.safetensors"
        target.parent.mkdir(parents=True, exist_ok=True)
        assert base.vae is not None
        assert base.text is not None
        files.save(
            target,
            unet=changed,
            vae=base.vae,
            text=base.text,
            schedule=base.schedule,
            dtype=torch.float16,
            metadata=base.metadata,
        )
        [scoring] = self.scorings(RANDOM, seed)
        self.score(RANDOM, seed, scoring, target, 0.0)
