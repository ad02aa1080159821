"""Every kind of data source. To add one, write a file like `folder` and name it here."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from .folder import Folder
from .journeydb import JourneyDB
from .paper import Paper
from .procedural import Procedural
from .shards import Shards
from .source import Source
from .webvid import WebVid

AnySource = Annotated[Folder | WebVid | JourneyDB | Shards | Procedural | Paper, Field(discriminator="kind")]

KINDS: dict[str, type[Source]] = {
    get_args(cls.model_fields["kind"].annotation)[0]: cls for cls in get_args(get_args(AnySource)[0])
}
