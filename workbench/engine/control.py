"""What the user wants of a live run, told from the API's thread to the one that trains."""

import threading
from dataclasses import dataclass

from workbench.engine.protocol import ControlAction


@dataclass(frozen=True)
class Command:
    """One wish. ``value`` is the new learning rate or number of steps; ``release`` is for a pause that frees memory."""

    action: ControlAction
    value: float | None = None
    release: bool = False


class Controls:
    """Commands in the order they were given, and the wish to stop, which overtakes them.

    Any thread may give; the training thread takes, between two steps. ``paused`` says why the run stands still, empty
    while it goes on.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._commands: list[Command] = []
        self._stopped = False
        self.save = True
        self.paused = ""

    def stop(self, *, save: bool) -> None:
        """End the run within one micro-step, with or without its adapter saved."""
        with self._changed:
            self.save = save
            self._stopped = True
            self._changed.notify_all()

    def is_stopped(self) -> bool:
        return self._stopped

    def give(self, command: Command) -> None:
        with self._changed:
            self._commands.append(command)
            self._changed.notify_all()

    def take(self) -> Command | None:
        """The next command; None when there is none."""
        with self._changed:
            return self._commands.pop(0) if self._commands else None

    def wait(self, seconds: float | None = None) -> Command | None:
        """The next command, waited for; None when the run is to end or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._commands or self._stopped, timeout=seconds)
            return self._commands.pop(0) if self._commands and not self._stopped else None
