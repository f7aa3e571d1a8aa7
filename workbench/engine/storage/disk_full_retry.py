"""Pauses a run while the disk is full, and repeats the failed write once there is space."""

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
# safetensors and PyTorch report a full disk only in the message; on Linux EFBIG is 27, ENOSPC 28 and EDQUOT 122.
_FULL_MESSAGE = re.compile(
    r"os error (27|28|122)\b|No space left|File too large|quota exceeded|file write failed", re.I
)
_RETRY_SECONDS = 2.0


def is_disk_full(error: BaseException) -> bool:
    """Whether an error means that a file could not grow."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return bool(_FULL_MESSAGE.search(str(error)))


class RetryingJournal(JournalWriter):
    """A journal that waits for disk space instead of failing, and offers the same retry for other writes."""

    def __init__(self, path: Path, controls: Controls) -> None:
        super().__init__(path)
        self._controls = controls
        self._is_waiting = False
        self._postponed: list[Command] = []
        # Why the run was paused when the wait began; empty if it was not. It stays paused for that afterwards.
        self._reason_before = ""

    def write(self, event: AnyEvent) -> None:
        """Append an event; waits while the disk is full."""
        self.retry_while_full(lambda: super(RetryingJournal, self).write(event))

    def retry_while_full(self, work: Callable[[], T]) -> T:
        """Call ``work``; while the disk is full, pause the run and retry every two seconds or when the user resumes.

        Raises:
            Exception: any other error of ``work``; or the disk-full error, if the run has been told to stop.
        """
        while True:
            try:
                result = work()
            except Exception as error:
                if not is_disk_full(error) or not self.wait_before_retry():
                    raise
            else:
                self.end_wait()
                return result

    def retry_while_full_on_all(self, ranks: Ranks, work: Callable[[], T]) -> T:
        """As :meth:`retry_while_full`, for collective work that fails on every rank if it fails on one.

        All ranks must call it: they wait for the first one, which decides whether to retry.
        """
        while True:
            try:
                result = work()
            except Exception as error:
                if not is_disk_full(error) or not ranks.broadcast(ranks.is_first and self.wait_before_retry()):
                    raise
            else:
                self.end_wait()
                return result

    def wait_before_retry(self) -> bool:
        """Mark the run as paused and wait two seconds or for a command; returns False once the run should stop."""
        if self._controls.is_stopped():
            return False
        self._pause_and_wait()
        return True

    def _pause_and_wait(self) -> None:
        if not self._is_waiting:
            self._is_waiting, self._reason_before = True, self._controls.paused
            free = shutil.disk_usage(self.path.parent).free
            self._controls.paused = (
                f"The disk holding {self.path.parent} is full ({size_in('MB', free, 0)} free). Nothing is lost: "
                "free some space and the run continues automatically."
            )
            with contextlib.suppress(OSError):
                super().write(Paused(reason=self._controls.paused))
        command = self._controls.wait(_RETRY_SECONDS)
        if command is None:
            return
        if command.action == "resume":
            # Retries at once; and if the user had paused the run before, it no longer stays paused.
            self._reason_before = ""
            return
        if command.task:
            # A task of a paused run, such as a chat reply, needs the run at rest between two steps.
            command.task.refuse()
        else:
            # Applied between two steps, as usual, once there is space.
            self._postponed.append(command)

    def end_wait(self) -> None:
        """After a successful write: if the run was waiting for it, mark the run as resumed."""
        if self._is_waiting:
            self._is_waiting, self._controls.paused = False, self._reason_before
            while self._postponed:
                self._controls.send(self._postponed.pop(0))
            if not self._controls.paused:
                with contextlib.suppress(OSError):
                    super().write(Resumed())


class SilentJournal(RetryingJournal):
    """A journal that writes nothing, for all ranks but the first.

    It has no file and no controls: only the first rank waits for disk space, and the others wait for its answer.
    """

    def __init__(self) -> None:
        self._is_waiting = False

    def write(self, event: AnyEvent) -> None:
        return None

    def retry_while_full(self, work: Callable[[], T]) -> T:
        return work()

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """Does nothing."""
