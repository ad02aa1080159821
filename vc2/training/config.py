"""Recipes: typed, nested, read from YAML and checked on construction.

A recipe may name another as its `base` and then shows only what differs. An unknown key is an error that names the nearest right one.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the file, the key, what was expected and what was found."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Weights(Section):
    """Checkpoints to start from, in the official layout; each part is read from its own file. None: fresh weights."""

    unet: Path | None = None
    autoencoder: Path | None = None
    text: Path | None = None


class Networks(Section):
    """Shapes of networks that are built fresh: fields of UNetConfig, AutoencoderConfig and TextConfig."""

    unet: dict[str, Any] = Field(default_factory=dict)
    autoencoder: dict[str, Any] = Field(default_factory=dict)
    text: dict[str, Any] = Field(default_factory=dict)


class Data(Section):
    """Clip lengths and source strides are drawn in pairs, `[[frames, stride], ...]`, one pair a step; fps = source fps / stride."""

    source: Literal["procedural"] = "procedural"
    lengths: tuple[tuple[int, int], ...] = ((8, 2),)
    caption_dropout: float = Field(0.1, ge=0, le=1)


class Diffusion(Section):
    """The noise-prediction objective. `image_share` is the share of steps on single images (None: 1 / frames, one image a clip in count).

    The paper's objective is plain MSE on epsilon with t uniform: `noisy_share` 0 and `max_weight` 1. But at the noisiest steps, which decide where things are
    and which way they go, a wrong x0 hardly shows in epsilon, and a small model trained for a short time never attends to it. `noisy_share` of the samples
    then draw t from `noisy_from`..999, and a sample of signal-to-noise ratio r weighs 1 / r, within 1..max_weight.
    """

    scale_end: float | None = 0.7
    image_share: float | None = Field(None, ge=0, le=1)
    image_temporal: Literal["identity", "full", "bypass"] = "identity"
    image_fps: int = 100
    noisy_share: float = Field(0.0, ge=0, le=1)
    noisy_from: int = Field(850, ge=0, lt=1000)
    max_weight: float = Field(1.0, ge=1)
    trainable: Literal["spatial", "temporal", "all"] = "all"


class Optimizer(Section):
    """AdamW; the learning rate warms up, then stays or falls along a cosine to `final_lr`."""

    lr: float = Field(5e-5, gt=0)
    final_lr: float | None = None
    warmup: int = Field(1000, ge=0)
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = Field(0.5, gt=0)
    ema: float = Field(0.9999, ge=0, lt=1)


class Recipe(Section):
    """One training run."""

    name: str
    objective: Literal["diffusion", "autoencoder", "text"] = "diffusion"
    steps: int = Field(gt=0)
    batch: int = Field(gt=0)
    seed: int = 0
    save_every: int = Field(1000, gt=0)
    log_every: int = Field(50, gt=0)
    init: Weights = Weights()
    networks: Networks = Networks()
    data: Data = Data()
    diffusion: Diffusion = Diffusion()
    optimizer: Optimizer = Optimizer()
    sampling: dict[str, Any] = Field(default_factory=dict)  # settings (vc2.pipeline.Settings) that the exported file recommends for itself

    def differences(self, other: str) -> list[str]:
        """Top-level keys in which this recipe differs from another's JSON, those aside that do not change what is learned up to a step."""
        theirs = Recipe.model_validate_json(other)
        harmless = {"steps", "save_every", "log_every", "sampling"}
        return [name for name in Recipe.model_fields if name not in harmless and getattr(self, name) != getattr(theirs, name)]


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe; `overrides` are `key=value` with dotted keys and YAML values (`optimizer.lr=1e-4`). Raises RecipeError."""
    path = Path(path)
    tree = _read(path)
    for item in overrides or []:
        key, separator, value = item.partition("=")
        if not separator:
            raise RecipeError(f"override {item!r} is not of the form key=value")
        node: Any = tree
        *parents, leaf = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise RecipeError(f"override {item!r}: {parent} holds a single value, not a section")
        node[leaf] = yaml.safe_load(value)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"{path}: " + "; ".join(_explain(e) for e in error.errors())) from error


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise RecipeError(f"{path}: no such recipe")
    try:
        tree = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"{path} holds a {type(tree).__name__}; expected keys and values, such as steps: 1000")
    base = tree.pop("base", None)
    return _merge(_read(path.parent / base), tree) if base else tree


def _merge(below: dict, above: dict) -> dict:
    out = dict(below)
    for key, value in above.items():
        out[key] = _merge(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


def _explain(error) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{key}: {error['msg']}, found {error['input']!r}"
    section: Any = Recipe
    for part in error["loc"][:-1]:
        section = section.model_fields[part].annotation
    near = difflib.get_close_matches(str(error["loc"][-1]), section.model_fields, 1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else f"; the keys there are {', '.join(section.model_fields)}"
    return f"unknown key {key}{hint}"
