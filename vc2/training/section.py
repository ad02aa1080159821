"""What every part of a recipe has in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Typed and checked on construction, never changed afterwards; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
