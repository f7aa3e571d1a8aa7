"""How long an engine without work keeps what it holds: from the user's settings, read anew each time."""

from dataclasses import dataclass
from typing import Self

from workbench.storage import settings
from workbench.storage.paths import Home

_MINUTE = 60.0


@dataclass(frozen=True)
class IdleLimits:
    """Seconds after the last request or work: after ``unload`` the model is unloaded, after ``stop`` the engine exits.

    In ``settings.json``: ``{"engine": {"unload_after_minutes": 10, "stop_after_minutes": 30}}``; 0 means never.
    """

    unload: float = 10 * _MINUTE
    stop: float = 30 * _MINUTE

    @classmethod
    def of(cls, home: Home) -> Self:
        """The user's limits."""
        engine = settings.read(home).engine
        return cls(_seconds(engine.unload_after_minutes), _seconds(engine.stop_after_minutes))


def _seconds(minutes: float) -> float:
    return minutes * _MINUTE or float("inf")
