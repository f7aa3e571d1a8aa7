"""Lets the engine do one thing at a time: work claims the engine until it is over, and a second claim is refused."""

import threading
import time
from collections.abc import Callable

from workbench.engine.client.protocol import EngineState
from workbench.engine.daemon import refusals
from workbench.engine.daemon.work import LiveTraining, Work


class Occupancy:
    """The engine's current work. Methods may be called from any thread.

    Args:
        freed: called each time the engine is free again.

    Attributes:
        work: the current work; None if the engine is idle.
        is_ending: no more work is accepted.
        last_used: when the last work ended, by the monotonic clock.
    """

    def __init__(self, freed: Callable[[], None]) -> None:
        self._freed = freed
        self._lock = threading.Lock()
        self.work: Work | None = None
        self.is_ending = False
        self.last_used = time.monotonic()

    @property
    def training(self) -> LiveTraining | None:
        """The live run."""
        return work.training if (work := self.work) else None

    def claim(self, state: EngineState) -> Work:
        """Start work.

        Raises:
            WorkbenchError: the engine is busy, or is shutting down.
        """
        with self._lock:
            if self.is_ending:
                raise refusals.shutting_down()
            if self.work is not None:
                raise refusals.busy(self.work.state)
            self.work = Work(state)
            return self.work

    def set_training(self, work: Work, training: LiveTraining) -> None:
        """Attach the run to the work that was claimed for it; from now on it can be controlled."""
        with self._lock:
            work.training = training
            if self.is_ending:  # requested before there was a run to stop
                training.controls.stop(save=True)

    def release(self) -> None:
        """End the current work."""
        self.work = None
        self.last_used = time.monotonic()
        self._freed()

    def end(self) -> None:
        """Accept no more work, and stop and save the live run."""
        with self._lock:
            self.is_ending = True
            training = self.training
        if training is not None:
            training.controls.stop(save=True)
