"""Garbage is looked for between keys, not in the midst of one."""

from __future__ import annotations

import gc
from time import monotonic

# A frame makes some thousand objects; looking through 3,000 takes a millisecond. What survives is looked at when nobody
# types, and else after a thousand such looks: at a key it was four to eleven milliseconds.
_THRESHOLDS = (3_000, 1_000, 20)
_QUIET_SECONDS = 0.5


class Tidy:
    """Python's collector, led by the keyboard. :meth:`look` is to be called about once a second."""

    def __init__(self) -> None:
        self._last_key = 0.0

    def spare(self) -> None:
        """Leave all that is there alone from now on: modules and panes live as long as the app, and are a lot."""
        gc.freeze()
        gc.set_threshold(*_THRESHOLDS)

    def key_came(self) -> None:
        self._last_key = monotonic()

    def look(self) -> None:
        """Look through what is young, unless somebody types."""
        if monotonic() - self._last_key > _QUIET_SECONDS:
            gc.collect(1)
