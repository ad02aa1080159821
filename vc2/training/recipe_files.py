"""Recipes as files: YAML, with a `base` below and overrides above.

A recipe may name another as its `base` and then shows only what differs. An unknown key is an error that names the
nearest right one.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import ValidationError

from .errors import RecipeError
from .nearest import did_you_mean
from .recipe import Recipe
from .section import Section
from .sources.kinds import KINDS
from .sources.source import Source

# In a wheel, beside this file; in a checkout, where people edit them.
BUNDLED = Path(__file__).parent / "recipes"
if not BUNDLED.is_dir():
    BUNDLED = Path(__file__).parents[2] / "training" / "recipes"


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe: a file, or one that comes with this package by its name ("F-base", "tiny/F-base"). `overrides` are
    `key=value` with dotted keys and YAML values (`optimizer.lr=1e-4`). Raises RecipeError.
    """
    path = Path(path)
    if not path.is_file() and (bundled := BUNDLED / f"{path}.yaml").is_file():
        path = bundled
    if not path.exists():
        names = [called(file) for file in BUNDLED.rglob("*.yaml") if not file.stem.startswith("_")]
        near = difflib.get_close_matches(str(path).removesuffix(".yaml"), names, 1)
        raise RecipeError(f"{path}: no such recipe" + (f"; did you mean {near[0]}?" if near else ""))
    tree = _read(path)
    for item in overrides or []:
        _override(tree, item)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"{path}: " + "; ".join(_explain(e) for e in error.errors())) from error


def called(path: Path) -> str:
    """What a recipe's file is called on the command line: one that comes with this package, by its name."""
    return path.relative_to(BUNDLED).with_suffix("").as_posix() if path.is_relative_to(BUNDLED) else str(path)


class Loader(yaml.SafeLoader):
    """YAML 1.2's idea of numbers and of truth: 5e-5 is a number and `no` a word. To YAML 1.1, which PyYAML follows,
    5e-5 is a word and `no` is false.
    """

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":bool")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)$"), list("-+0123456789.")
)


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The keys and values of a file over those of its bases."""
    if not path.is_file():
        raise RecipeError(f"{path}: no such recipe" + (f" (the base of {above[-1]})" if above else ""))
    if path.resolve() in above:
        raise RecipeError(f"{path} is its own base, through {', '.join(str(p) for p in above)}")
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"{path} holds a {type(tree).__name__}; expected keys and values, such as steps: 1000")
    base = tree.pop("base", None)
    if not isinstance(base, str | None):
        raise RecipeError(f"{path}: base: expected the name of a file, such as _stage2.yaml, found {base!r}")
    return _merge(_read(path.parent / base, (*above, path.resolve())), tree) if base else tree


def _merge(below: dict, above: dict) -> dict:
    """`above` over `below`. A source of another `kind` inherits nothing: the keys below are those of the other kind."""
    if "kind" in above and above["kind"] != below.get("kind", above["kind"]):
        return above
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _override(tree: dict, item: str) -> None:
    """Put `key=value` into the tree."""
    key, separator, value = item.partition("=")
    if not separator:
        raise RecipeError(f"override {item!r} is not of the form key=value")
    *parents, leaf = key.split(".")
    node: Any = tree
    for parent in parents:
        node = _below(node, parent, item)
    try:
        new = yaml.load(value, Loader)
    except yaml.YAMLError as error:
        raise RecipeError(f"override {item!r}: the value is not YAML: {error}") from error
    node[_number(node, leaf, item) if isinstance(node, list) else leaf] = new


def _below(node: Any, name: str, item: str) -> Any:
    """The section of that name, or in a list of that number; a new one where there is none."""
    number: Any = _number(node, name, item) if isinstance(node, list) else name
    below = node[number] if isinstance(node, list) else node.get(name)
    if not isinstance(below, dict | list | None):
        raise RecipeError(f"override {item!r}: {name} holds a single value, not a section")
    node[number] = {} if below is None else below.copy()
    return node[number]


def _number(of: list, name: str, item: str) -> int:
    if not name.isdecimal() or int(name) >= len(of):
        raise RecipeError(f"override {item!r}: {name} is no number from 0 to {len(of) - 1}, of which there is a list")
    return int(name)


def _explain(error) -> str:
    """One of pydantic's errors in words: the key, what was expected, what was found."""
    key = ".".join(str(name) for name in error["loc"] if name not in KINDS).replace(".sources.", ".")  # of a list
    value = error["input"]
    if error["type"] in ("union_tag_not_found", "union_tag_invalid"):
        kind = value.get("kind") if isinstance(value, dict) else value
        return f"{key}.kind: expected one of {', '.join(KINDS)}, found {kind!r}"
    if error["type"] == "extra_forbidden":
        section: Any = Recipe
        for name in error["loc"][:-1]:
            if isinstance(name, int):  # of a list; its kind comes next
                continue
            section = KINDS[name] if name in KINDS else _section(section.model_fields[name].annotation)
        above = key.rpartition(".")[0]
        beside = [f"{above}.{name}" if above else name for name in section.model_fields]
        return f"unknown key {key}; {did_you_mean(key, [*beside, *_keys_but_of_sources(Recipe)])}"
    message = error["msg"].removeprefix("Value error, ")
    if not key:
        return message
    return f"{key}: {message}" + (f", found {value!r}" if error["type"] != "value_error" else "")


def _keys_but_of_sources(section: type[Section], above: str = "") -> Iterator[str]:
    """All dotted keys that every recipe has; those of a source depend on its kind."""
    for name, field in section.model_fields.items():
        yield above + name
        below = _section(field.annotation)
        if below is not None and not issubclass(below, Source):
            yield from _keys_but_of_sources(below, f"{above}{name}.")


def _section(annotation: Any) -> Any:
    """The section in `Section | None`."""
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        return next((section for choice in get_args(annotation) if (section := _section(choice)) is not None), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None
