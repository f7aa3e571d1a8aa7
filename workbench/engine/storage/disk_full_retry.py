"""A disk that fills in mid-run makes the run wait, not end: what could not be written is written again later."""

import contextlib
import errno
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeVar

from workbench.engine.steering.controls import Command, Controls
from workbench.engine.steering.ranks import Ranks
from workbench.runs.events import AnyEvent, Paused, Resumed
from workbench.runs.journal import JournalWriter
from workbench.units import size_in

T = TypeVar("T")

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# safetensors and PyTorch write files themselves and tell a full disk in words only.
_FULL_IN_WORDS = re.compile(
    r"os error (27|28|122)\b|No space left|File too large|quota exceeded|file write failed", re.I
)
_RETRY_SECONDS = 2.0


def is_disk_full(error: BaseException) -> bool:
    """Whether an error means that a file could not grow."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return bool(_FULL_IN_WORDS.search(str(error)))


class RetryingJournal(JournalWriter):
    """A journal that waits for room instead of failing, and makes other writing wait in the same way."""

    def __init__(self, path: Path, controls: Controls) -> None:
        super().__init__(path)
        self._controls = controls
        self._is_waiting = False
        self._later: list[Command] = []
        # Why the run stood still already, if it did.
        self._before = ""

    def write(self, event: AnyEvent) -> None:
        self.patiently(lambda: super(RetryingJournal, self).write(event))

    def patiently(self, work: Callable[[], T]) -> T:
        """Do ``work``; as long as the disk is full, pause and try again every two seconds, or on the user's resume.

        Raises:
            Exception: whatever ``work`` raises that is no full disk; or the full disk, once the run is to end.
        """
        while True:
            try:
                done = work()
            except Exception as error:
                if not is_disk_full(error) or not self.wait_for_room():
                    raise
            else:
                self.go_on()
                return done

    def retry_while_full_on_all(self, ranks: Ranks, work: Callable[[], T]) -> T:
        """As :meth:`patiently`, for work that all processes of a run do, and that fails in all where it does in one."""
        while True:
            try:
                done = work()
            except Exception as error:
                if not is_disk_full(error) or not ranks.broadcast(ranks.is_first and self.wait_for_room()):
                    raise
            else:
                self.go_on()
                return done

    def wait_for_room(self) -> bool:
        """Wait a moment, and tell so; False once the run is to end."""
        if self._controls.is_stopped():
            return False
        self._pause()
        return True

    def _pause(self) -> None:
        if not self._is_waiting:
            self._is_waiting, self._before = True, self._controls.paused
            free = shutil.disk_usage(self.path.parent).free
            self._controls.paused = (
                f"The disk of {self.path.parent} is full ({size_in('MB', free, 0)} free). Nothing is lost: "
                "free some space and the run continues automatically."
            )
            with contextlib.suppress(OSError):
                super().write(Paused(reason=self._controls.paused))
        command = self._controls.wait(_RETRY_SECONDS)
        if command is None or command.action == "resume":
            return
        if command.errand:
            command.errand.refuse()
        else:
            # Done between two steps, like any other, once there is room.
            self._later.append(command)

    def go_on(self) -> None:
        """What was to be written is written; where that was waited for, it is told."""
        if self._is_waiting:
            self._is_waiting, self._controls.paused = False, self._before
            while self._later:
                self._controls.give(self._later.pop(0))
            with contextlib.suppress(OSError):
                super().write(Resumed())


class SilentJournal(RetryingJournal):
    """For the processes of a run that do not tell its story: the first one does."""

    def __init__(self) -> None:
        self._is_waiting = False

    def write(self, event: AnyEvent) -> None:
        return None

    def patiently(self, work: Callable[[], T]) -> T:
        return work()

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """There is nothing to close."""
