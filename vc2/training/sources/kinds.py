"""Every kind of data source. To add one, write a file like `folder` and name it here."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from .folder import Folder
from .journeydb import JourneyDB
from .manifest import Manifest
from .paper import Paper
from .procedural import Procedural
from .shards import Shards
from .source import Source
from .webvid import WebVid

OneSource = Annotated[
    Folder | WebVid | JourneyDB | Shards | Manifest | Procedural | Paper,
    Field(discriminator="kind"),
]


class Mixture(Source):
    """A list of sources, of which each gives its share of the samples, by its `weight`."""

    kind: Literal["mixture"]
    sources: tuple[OneSource, ...]

    @property
    def members(self) -> tuple[Source, ...]:
        return self.sources

    @property
    def label(self) -> str:
        return " and ".join(source.label for source in self.sources)

    @model_validator(mode="before")
    @classmethod
    def _prepared_as_its_members(cls, tree: Any) -> Any:
        sources = tree.get("sources") if isinstance(tree, dict) else None
        if isinstance(sources, list | tuple) and sources and isinstance(sources[0], dict):
            tree = {**tree, "prepared": sources[0].get("prepared", "no")}
        return tree

    @model_validator(mode="after")
    def _alike(self) -> Mixture:
        if not self.sources:
            raise ValueError("a list of sources must name at least one")
        if len(found := sorted({source.prepared for source in self.sources})) > 1:
            raise ValueError(f"the sources of a list must be prepared alike, found {' and '.join(found)}")
        return self


def _listed(value: Any) -> Any:
    """A list in a recipe is a mixture."""
    return {"kind": "mixture", "sources": value} if isinstance(value, list | tuple) else value


AnySource = Annotated[
    Folder | WebVid | JourneyDB | Shards | Manifest | Procedural | Paper | Mixture,
    Field(discriminator="kind"),
    BeforeValidator(_listed),
]

KINDS: dict[str, type[Source]] = {
    get_args(cls.model_fields["kind"].annotation)[0]: cls for cls in get_args(get_args(AnySource)[0])
}
