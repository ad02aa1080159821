"""A recipe as a whole: one training run, which keys go together, and in what two recipes differ."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import PurePath
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from .recipe_sections import (
    Compute,
    Consistency,
    Data,
    Diffusion,
    Init,
    Learn,
    Networks,
    Optimizer,
    Samples,
    Sampling,
    Validation,
)
from .section import Section
from .sources.kinds import KINDS

# But for rounding. Of `compute`, `frozen` does: int8 are other weights to learn beside.
DOES_NOT_CHANGE_WHAT_IS_LEARNED = (
    "about",
    "save_every",
    "keep",
    "keep_every",
    "log_every",
    "trackers",
    "compute",
    "validation",
    "samples",
    "sampling",
)


class Recipe(Section):
    """One training run."""

    name: str
    about: str = ""
    objective: Literal["diffusion", "consistency", "autoencoder", "text"] = "diffusion"
    steps: int = Field(gt=0)
    batch: int = Field(gt=0)  # clips (or images, on image-only data) a step, over all processes
    seed: int = Field(0, ge=0, lt=2**31)
    save_every: int = Field(1000, gt=0)
    keep: int = Field(2, ge=1)  # checkpoints, the newest; that of the least held-out loss stays too
    keep_every: int = Field(0, ge=0)  # and one every so many steps, for good (0: none)
    log_every: int = Field(50, gt=0)
    trackers: tuple[str, ...] = ("tensorboard",)
    init: Init = Init()
    networks: Networks = Networks()
    data: Data = Data()
    learn: Learn = Learn()
    diffusion: Diffusion = Diffusion()
    consistency: Consistency = Consistency()
    optimizer: Optimizer = Optimizer()
    compute: Compute = Compute()
    validation: Validation = Validation()
    samples: Samples = Samples()
    sampling: Sampling = Sampling()

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        path = PurePath(value)
        if not path.parts or path.is_absolute() or ".." in path.parts or not value.isprintable():
            raise ValueError(
                f"the run's folder below --runs is called so; expected a name such as my-style, found {value!r}"
            )
        return value

    @model_validator(mode="after")
    def _whole(self) -> Recipe:
        if self.of_the_unet and not (self.data.clips or self.data.images):
            raise ValueError("data.clips and data.images are both missing; name at least one source")
        if self.compute.compile and not self.of_the_unet:
            raise ValueError(f"compute.compile is of the UNet, and objective {self.objective} has none; leave it out")
        self._check_consistency()
        fresh = self.of_the_unet and not (self.init.unet or self.init.sd)
        if fresh and (self.learn.how == "lora" or self.learn.part == "temporal"):
            raise ValueError(
                "init.unet and init.sd are both missing: a fresh UNet's output layer is zero and spatial, and while it"
                " is frozen nothing else can learn; name a checkpoint to start from, or learn.part spatial or all,"
                " directly"
            )
        if self.compute.frozen == "int8" and self.learn.how != "lora":
            raise ValueError("compute.frozen int8 is for LoRA, where nothing of the network itself learns; use float")
        if self.validation.metrics and not (self.samples.every and self.samples.prompts):
            raise ValueError(
                "validation.metrics are of the sample clips, and there are none; set samples.every and samples.prompts,"
                " or leave validation.metrics out"
            )
        if self.data.images and self.diffusion.image_temporal == "bypass" and self.learn.part == "temporal":
            raise ValueError(
                "diffusion.image_temporal bypass leaves images nothing temporal to teach; use identity or full, or"
                " leave data.images out"
            )
        return self

    def _check_consistency(self) -> None:
        if not self.distils:
            if self.consistency != Consistency():
                raise ValueError(
                    f"consistency is of objective consistency, and this one is {self.objective}; leave it out"
                )
            return
        if not self.init.unet:
            raise ValueError("objective consistency distils a model, and init.unet is missing; name its checkpoint")
        if (self.sampling.steps or 0) > self.consistency.timesteps:
            raise ValueError(
                f"sampling.steps must be among the timesteps that are distilled, consistency.timesteps"
                f" {self.consistency.timesteps}; found {self.sampling.steps}"
            )
        if self.diffusion.noisy_share or self.diffusion.max_weight > 1:
            raise ValueError(
                "diffusion.noisy_share and max_weight are of objective diffusion; consistency has every timestep alike:"
                " leave them out"
            )

    @property
    def of_the_unet(self) -> bool:
        """Whether it is a UNet that learns, and not one of the miniature's other networks."""
        return self.objective in ("diffusion", "consistency")

    @property
    def distils(self) -> bool:
        """Whether what learns is a model of few steps, from a model of many."""
        return self.objective == "consistency"

    @property
    def image_only(self) -> bool:
        return self.data.clips is None

    @property
    def longest(self) -> int:
        """Frames of the longest sample."""
        return 1 if self.image_only else max(frames for frames, _, _ in self.data.lengths)

    def image_share(self, frames: int) -> float:
        """The chance that a step is on images, given how many frames a clip would have."""
        if self.data.clips is None or self.data.images is None:
            return float(self.data.clips is None)
        return 1 / frames if self.diffusion.image_share is None else self.diffusion.image_share

    def differences(self, other: str, moved: Collection[str] = ()) -> dict[str, tuple[Any, Any]]:
        """Dotted keys in which this recipe differs from another's JSON, each with (theirs, mine); those that do not
        change what is learned up to a step are not looked at, nor where the data of the media `moved` lies.
        """
        try:
            theirs = Recipe.model_validate_json(other).model_dump(mode="json")
        except ValidationError as error:
            why = f"shape: it was written by another version of this program ({error.error_count()} keys do not fit)"
            return {why: (None, None)}
        mine = self.model_dump(mode="json")
        for tree in (mine, theirs):
            frozen = tree["compute"]["frozen"]
            for key in DOES_NOT_CHANGE_WHAT_IS_LEARNED:
                tree.pop(key)
            tree["compute"] = {"frozen": frozen}
            if self.optimizer.final_lr is None:  # else the learning rate of every step depends on how many there are
                tree.pop("steps")
            tree["data"].pop("workers")
            tree["data"].pop("broken_share")
            if self.data.order is None:
                tree["data"].pop("order")
            for source in filter(None, (tree["data"][medium] for medium in moved)):
                for member in source.get("sources", [source]):
                    for key in KINDS[member["kind"]].location:
                        member.pop(key)
        return _differing(as_written(theirs), as_written(mine))


def as_written(tree: Any) -> Any:
    """A recipe's tree with its mixtures as the lists of sources that people write."""
    if not isinstance(tree, dict):
        return tree
    if "sources" in tree:
        return tree["sources"]
    return {name: as_written(value) for name, value in tree.items()}


def sections_of(node: Any) -> dict[str, Any] | None:
    """What is below a node of a recipe's tree: a section by its keys, a list of sections by their numbers, and of
    anything else None, which is one value.
    """
    if isinstance(node, list) and node and all(isinstance(item, dict) for item in node):
        return {str(number): item for number, item in enumerate(node)}
    return node if isinstance(node, dict) else None


def _differing(before: Any, now: Any, key: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted keys at which two trees differ, each with both values. Sources of two kinds differ as a whole, and so do
    lists of fewer and of more.
    """
    theirs, mine = sections_of(before), sections_of(now)
    if type(before) is not type(now) or theirs is None or mine is None or theirs.keys() != mine.keys():
        return {} if before == now else {key: (before, now)}
    differing: dict[str, tuple[Any, Any]] = {}
    for name in mine:
        differing |= _differing(theirs[name], mine[name], f"{key}.{name}" if key else name)
    return differing
