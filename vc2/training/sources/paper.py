"""The world of the paper in miniature, drawn and not read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from .source import Source

if TYPE_CHECKING:
    from .paper_world import PaperWorld


class Paper(Source):
    """See `vc2.training.sources.paper_world` for what each domain shows. `count`: how many samples (None: every scene
    once).
    """

    stored_whole = True
    kind: Literal["paper"]
    domain: Literal["low-quality", "stills", "journeydb", "laion", "clean", "everything"]
    count: int | None = Field(None, ge=1)

    @property
    def label(self) -> str:
        return f"{self.kind} ({self.domain})"

    def open(self, medium: str, index_folder: Path, sized: bool = False) -> PaperWorld:
        from .paper_world import PaperWorld  # and with it torch, which takes a second to import

        return PaperWorld(self.domain, medium, self.count)
