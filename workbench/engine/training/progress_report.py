"""The progress of a run: the latest for the engine's status, and its phases in the journal."""

import time
from collections.abc import Callable

from workbench.progress import Progress
from workbench.runs.events import AnyEvent, Phase

# A rate measured over less time says little about the rest.
_SECONDS_BEFORE_ETA = 2.0


class ProgressReport:
    """Keeps the latest progress of a run, and writes its phases into the journal.

    Args:
        write: writes an event into the journal.

    Attributes:
        latest: the latest progress; None before the first.
    """

    def __init__(self, write: Callable[[AnyEvent], None]) -> None:
        self._write = write
        self.latest: Progress | None = None
        # Phase and time of the last progress in the journal.
        self._reported = ("", 0.0)
        # When the phase began that is reported.
        self._phase_began = 0.0

    def show(self, progress: Progress) -> None:
        """Show progress in the engine's status only."""
        self.latest = progress
        # What comes between two steps is another phase each time.
        self._reported = (progress.phase, 0.0)

    def report(self, progress: Progress) -> None:
        """Show progress in the engine's status; write each new phase to the journal, and progress twice a second."""
        phase, reported_at = self._reported
        now = time.monotonic()
        if progress.phase != phase or not progress.fraction:
            self._phase_began = now
        elapsed = now - self._phase_began
        if progress.fraction and elapsed >= _SECONDS_BEFORE_ETA:
            eta = elapsed * (1 / progress.fraction - 1)
            progress = progress.model_copy(update={"eta_seconds": round(eta, 1)})
        self.latest = progress
        if progress.phase != phase or now - reported_at >= 0.5:
            self._reported = (progress.phase, now)
            self._write(Phase(**progress.model_dump()))
