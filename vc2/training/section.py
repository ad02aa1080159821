"""What every part of a recipe has in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Typed and checked on construction, never changed afterwards; an unknown key is an error, and so are numbers that
    are not finite.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
