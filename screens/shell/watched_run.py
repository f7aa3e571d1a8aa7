"""Notices when the run that is watched in this terminal ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.runs.summary import RunSummary


class WatchedRun:
    """The run that was seen running here.

    Attributes:
        id: its id; None while none runs.
    """

    def __init__(self) -> None:
        self.id: str | None = None

    def has_just_ended(self, summary: RunSummary | None) -> bool:
        """Return whether the run is over, once; asked whenever the live run, or the last one, has changed."""
        if summary is None:
            return False
        if summary.state == "running":
            self.id = summary.id
        elif self.id == summary.id:
            self.id = None
            return True
        return False
