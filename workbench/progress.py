"""Progress reports and cancellation of work that takes longer than a second."""

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict


class Progress(BaseModel):
    """How far a long piece of work has come.

    ``fraction`` is None if its end is not known, ``eta_seconds`` if it is not known when that will be.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    phase: str
    fraction: float | None = None
    detail: str = ""
    eta_seconds: float | None = None


Report = Callable[[Progress], None]
"""Receives progress, several times a second while something moves."""

Cancelled = Callable[[], bool]
"""Called several times a second; returns True once the work is to stop."""


def never_cancelled() -> bool:
    """The ``cancelled`` of work that nobody can stop."""
    return False
