"""What the user wants of a live run, told from the API's thread to the one that trains."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from workbench.engine.client.protocol import ControlAction


@dataclass(frozen=True)
class Errand:
    """Something that only the training thread may do, and only while the run stands still with its model in memory.

    Attributes:
        run: given the base with the adapter that is trained on it, and the run's template; raises nothing.
        refuse: called instead of ``run`` where the run went on or ended first.
    """

    run: Callable[[Any, Any], None]
    refuse: Callable[[], None]


@dataclass(frozen=True)
class Command:
    """One wish. ``value`` is the new learning rate or number of steps; ``release`` is for a pause that frees memory."""

    action: ControlAction | Literal["errand"]
    value: float | None = None
    release: bool = False
    errand: Errand | None = None


class Controls:
    """Commands in the order they were given, and the wish to stop, which overtakes them.

    Any thread may give; the training thread takes, between two steps. ``paused`` says why the run stands still, empty
    while it goes on.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._commands: list[Command] = []
        self._stopped = False
        self._takes_errands = False
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

    @property
    def heard(self) -> "Controls":
        """Where wishes come in: these very controls, unless several processes have to agree on them first."""
        return self

    def agree(self) -> bool:
        """Let what was heard hold from here on; returns :meth:`is_stopped`. All processes of a run meet here."""
        return self.is_stopped()

    def give(self, command: Command) -> None:
        with self._changed:
            self._commands.append(command)
            self._changed.notify_all()

    def take(self) -> Command | None:
        """The next command; None when there is none."""
        with self._changed:
            return self._commands.pop(0) if self._commands else None

    def wait_for_word(self, seconds: float) -> None:
        """Wait until there is something to take or to obey, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._commands or self._stopped, timeout=seconds)

    def wait(self, seconds: float | None = None) -> Command | None:
        """The next command, waited for; None when the run is to end or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._commands or self._stopped, timeout=seconds)
            return self._commands.pop(0) if self._commands and not self._stopped else None

    # -- while the run stands still -------------------------------------------------------------------------------

    def stand(self, why: str) -> None:
        """The run stands still, its model in memory; errands are taken from now on."""
        with self._changed:
            self.paused = why
            self._takes_errands = True

    def go_on(self) -> None:
        """The run stands still no longer. Errands that were given and not taken are refused."""
        with self._changed:
            self.paused = ""
            self._takes_errands = False
            left = [command.errand for command in self._commands if command.errand]
            self._commands = [command for command in self._commands if not command.errand]
        for errand in left:
            errand.refuse()

    def ask(self, errand: Errand) -> bool:
        """Give an errand; False where the run does not stand still. One that is taken is run or refused, once."""
        with self._changed:
            if self._takes_errands and not self._stopped:
                self._commands.append(Command("errand", errand=errand))
                self._changed.notify_all()
                return True
            return False
