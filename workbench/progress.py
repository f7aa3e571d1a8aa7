"""How far long work has come: what everything that takes over a second reports."""

from pydantic import BaseModel, ConfigDict


class Progress(BaseModel):
    """How far something over a second long has come. ``fraction`` is None where the end is not known."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    phase: str
    fraction: float | None = None
    detail: str = ""
