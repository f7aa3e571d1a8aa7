"""One thing at a time: who claims the engine has it until the work is over; a second claim is refused."""

import threading
import time
from collections.abc import Callable

from workbench.engine.client.protocol import EngineState
from workbench.engine.daemon import refusals
from workbench.engine.daemon.work import LiveTraining, Work


class Occupancy:
    """The engine's present work. Any thread may ask.

    Args:
        freed: called each time the engine is free again.
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
        """Begin work.

        Raises:
            WorkbenchError: the engine is busy, or about to end.
        """
        with self._lock:
            if self.is_ending:
                raise refusals.shutting_down()
            if self.work is not None:
                raise refusals.busy(self.work.state)
            self.work = Work(state)
            return self.work

    def trains(self, work: Work, training: LiveTraining) -> None:
        """The claimed work has become a run that can be controlled."""
        with self._lock:
            work.training = training
            if self.is_ending:  # asked for before there was a run that could be stopped
                training.controls.stop(save=True)

    def release(self) -> None:
        """The work is over."""
        self.work = None
        self.last_used = time.monotonic()
        self._freed()

    def end(self) -> None:
        """Take no more work, and stop and save the live run."""
        with self._lock:
            self.is_ending = True
            training = self.training
        if training is not None:
            training.controls.stop(save=True)
