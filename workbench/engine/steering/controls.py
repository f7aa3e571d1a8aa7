"""Passes the user's requests to a live run, from the thread of the engine's API to the thread that trains."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from workbench.engine.client.protocol import ControlAction

if TYPE_CHECKING:
    from workbench.data.templates.template import Template
    from workbench.engine.model.base import LoadedBase


@dataclass(frozen=True)
class PausedTask:
    """Work that the training thread does while its run is paused with the model in memory, such as a chat reply.

    Attributes:
        run: called with the base, which has the trained adapter on it, and the run's template; must not raise.
        refuse: called instead of ``run`` if the run resumes or ends first.
    """

    run: "Callable[[LoadedBase, Template], None]"
    refuse: Callable[[], None]


@dataclass(frozen=True)
class Command:
    """One request.

    Attributes:
        value: the new learning rate or number of steps.
        release: for a pause: release the GPU memory too.
        task: for the action ``task``.
    """

    action: ControlAction | Literal["task"]
    value: float | None = None
    release: bool = False
    task: PausedTask | None = None


@dataclass(frozen=True)
class SamplingStop:
    """Stands in for the event that cancels a reply: set once sampling in a run should end."""

    controls: "Controls"

    def is_set(self) -> bool:
        return self.controls.ends_sampling()


class Controls:
    """A queue of commands for one run, and a stop request, which takes precedence.

    Any thread may send; the training thread takes commands between two steps.

    Attributes:
        stopped: set once a stop is requested.
        save: whether a stop saves the adapter.
        paused: why the run is paused; empty while it is running.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._commands: list[Command] = []
        self.stopped = threading.Event()
        self._accepts_tasks = False
        self.save = True
        self.paused = ""

    def stop(self, *, save: bool) -> None:
        """Request that the run ends within one micro-step, with or without saving its adapter."""
        with self._changed:
            self.save = save
            self.stopped.set()
            self._changed.notify_all()

    def is_stopped(self) -> bool:
        """Whether a stop was requested."""
        return self.stopped.is_set()

    def ends_sampling(self) -> bool:
        """Whether replies that are being sampled should end: the run is to stop, or ``stop_sampling`` was sent."""
        with self._changed:
            return self.stopped.is_set() or any(command.action == "stop_sampling" for command in self._commands)

    @property
    def local(self) -> "Controls":
        """The controls that receive requests in this process: these, unless several processes synchronize theirs."""
        return self

    def sync(self) -> bool:
        """Make the requests received so far take effect; returns :meth:`is_stopped`. All processes call this together.

        A run in one process has nothing to do here.
        """
        return self.is_stopped()

    def send(self, command: Command) -> None:
        """Append a command to the queue."""
        with self._changed:
            self._commands.append(command)
            self._changed.notify_all()

    def take(self) -> Command | None:
        """Remove and return the next command; None if there is none."""
        with self._changed:
            return self._commands.pop(0) if self._commands else None

    def wait_for_request(self, seconds: float) -> None:
        """Wait until there is a command or a stop request, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._commands or self.stopped.is_set(), timeout=seconds)

    def wait(self, seconds: float | None = None) -> Command | None:
        """Wait for the next command and return it; None if the run should stop or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._commands or self.stopped.is_set(), timeout=seconds)
            return self._commands.pop(0) if self._commands and not self.stopped.is_set() else None

    # -- while the run is paused ----------------------------------------------------------------------------------

    def enter_pause(self, reason: str) -> None:
        """Mark the run as paused with its model in memory; tasks are accepted from now on."""
        with self._changed:
            self.paused = reason
            self._accepts_tasks = True

    def leave_pause(self) -> None:
        """Mark the run as running, and refuse the tasks that were sent but not taken."""
        with self._changed:
            self.paused = ""
            self._accepts_tasks = False
            refused = [command.task for command in self._commands if command.task]
            self._commands = [command for command in self._commands if not command.task]
        for task in refused:
            task.refuse()

    def send_task(self, task: PausedTask) -> bool:
        """Send a task; returns False if the run is not paused. An accepted task is run or refused exactly once."""
        with self._changed:
            if self._accepts_tasks and not self.stopped.is_set():
                self._commands.append(Command("task", task=task))
                self._changed.notify_all()
                return True
            return False
