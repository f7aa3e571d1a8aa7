"""The engine's current work: a run, a reply, an evaluation or a download."""

import threading
from dataclasses import dataclass, field
from typing import Protocol

from workbench.engine.client.protocol import EngineState
from workbench.engine.model.base import LoadedBase
from workbench.engine.steering.controls import Controls
from workbench.progress import Progress, Report
from workbench.runs.folder import RunFolder


class LiveTraining(Protocol):
    """A run that trains in the background, in this process or in processes of its own."""

    @property
    def run_folder(self) -> RunFolder: ...

    @property
    def controls(self) -> Controls: ...

    @property
    def progress(self) -> Progress | None: ...

    @property
    def base(self) -> LoadedBase | None:
        """The base that it trains on, if it is in this process."""

    def start(self) -> None:
        """Start training. At the end, even after an error, the run calls the ``finished`` that it was made with."""


@dataclass
class Work:
    """What the engine is doing; ``training`` is the run, once its folder has been created."""

    state: EngineState
    progress: Progress | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    training: LiveTraining | None = None

    def reporter(self, emit: Report) -> Report:
        """A function that receives progress, and passes it to the engine's status and to ``emit``."""

        def report(progress: Progress) -> None:
            self.progress = progress
            emit(progress)

        return report


@dataclass(frozen=True)
class EndsWithRun:
    """Stands in for the event that cancels a reply of a paused run: set also once the run is to stop."""

    cancelled: threading.Event
    controls: Controls

    def is_set(self) -> bool:
        return self.cancelled.is_set() or self.controls.is_stopped()
