"""The miniature's world, drawn and not read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from .source import Source

if TYPE_CHECKING:
    from .world import World


class Procedural(Source):
    """The miniature's world; see `vc2.training.sources.world` for what each domain shows. `count`: how many samples
    (None: every scene once).
    """

    stored_whole = True
    kind: Literal["procedural"]
    domain: Literal["clean", "low-quality", "stills", "journeydb", "laion", "everything"] = "clean"
    count: int | None = Field(None, ge=1)

    @property
    def label(self) -> str:
        return f"{self.kind} ({self.domain})"

    def open(self, medium: str, index_folder: Path, sized: bool = False) -> World:
        from .world import World  # and with it torch, which takes a second to import

        return World(self.domain, medium, self.count)
