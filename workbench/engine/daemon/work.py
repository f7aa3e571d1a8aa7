"""What the engine's background thread does at the moment."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from workbench.engine.client.protocol import EngineState
from workbench.engine.model.base import LoadedBase
from workbench.engine.steering.controls import Controls
from workbench.progress import Progress
from workbench.runs.folder import RunFolder


class LiveTraining(Protocol):
    """A run that trains in the background, in this process or in several others."""

    @property
    def run_folder(self) -> RunFolder: ...

    @property
    def controls(self) -> Controls: ...

    @property
    def progress(self) -> Progress | None: ...

    @property
    def base(self) -> LoadedBase | None:
        """The base that it trains on, as far as this process holds it."""

    def start(self) -> None:
        """Begin; once it is over, whatever happened, the run calls the ``finished`` that it was made with."""


@dataclass
class Work:
    """The one thing that the engine does; ``training`` is there for a run, once its folder is made."""

    state: EngineState
    progress: Progress | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    training: LiveTraining | None = None

    def reporter(self, emit: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """What takes progress, for the engine's status and for the client."""

        def report(progress: Progress) -> None:
            self.progress = progress
            emit(progress)

        return report


@dataclass(frozen=True)
class EndsWithRun:
    """Whether a reply of a paused run is to end: it was cancelled, or the run is to stop."""

    cancelled: threading.Event
    controls: Controls

    def is_set(self) -> bool:
        return self.cancelled.is_set() or self.controls.is_stopped()
