"""How long an engine without work keeps what it holds: from the user's settings, read anew each time."""

import json
from dataclasses import dataclass
from typing import Self

from workbench.storage.paths import Home

_MINUTE = 60.0


@dataclass(frozen=True)
class IdleLimits:
    """Seconds after the last request, or the last work. ``unload`` gives the model's memory back, ``stop`` ends it all.

    In ``settings.json``: ``{"engine": {"unload_after_minutes": 10, "stop_after_minutes": 30}}``; 0 means never.
    """

    unload: float = 10 * _MINUTE
    stop: float = 30 * _MINUTE

    @classmethod
    def of(cls, home: Home) -> Self:
        """The user's limits; the usual ones where there are none that can be read."""
        try:
            wanted = json.loads(home.settings.read_text(encoding="utf-8"))["engine"]
            return cls(
                _seconds(wanted.get("unload_after_minutes"), cls.unload),
                _seconds(wanted.get("stop_after_minutes"), cls.stop),
            )
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return cls()


def _seconds(minutes: object, usual: float) -> float:
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not minutes >= 0:
        return usual
    return minutes * _MINUTE or float("inf")
