"""A program in a pseudo-terminal: what it writes, counted and searched."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from types import TracebackType
from typing import Self

_ESCAPES = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|P[^\x1b]*\x1b\\|[()][A-Z0-9]|[=>78cM])"
)


class Terminal:
    """Runs a command in a pseudo-terminal of its own.

    Attributes:
        bytes_written: all that the program sent to the terminal so far.
    """

    def __init__(self, command: list[str], *, columns: int = 120, rows: int = 40) -> None:
        self._command = command
        self._size = struct.pack("HHHH", rows, columns, 0, 0)
        self._text = b""
        self.bytes_written = 0

    def __enter__(self) -> Self:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8"}
            os.execvpe(self._command[0], self._command, environment)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, self._size)
        return self

    def read(self, seconds: float) -> None:
        """Take what the program writes within so many seconds."""
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0 and self._take(left):
            pass

    def wait_for(self, marker: str, *, seconds: float) -> None:
        """Read until the screen's text holds ``marker``.

        Raises:
            TimeoutError: it did not come in time, or the program ended.
        """
        end = time.perf_counter() + seconds
        while marker.encode() not in _ESCAPES.sub(b"", self._text):
            left = end - time.perf_counter()
            if left <= 0 or not self._take(left):
                raise TimeoutError(f"{marker!r} was not shown; the last of it: {self._text[-400:]!r}")

    def send(self, keys: str) -> None:
        """Type keys; what was shown before is forgotten, so that :meth:`wait_for` sees only what follows."""
        self._text = b""
        os.write(self._fd, keys.encode())

    def hang_up(self) -> None:
        """Close the terminal under the program, as a lost line does."""
        os.close(self._fd)
        self._fd = -1

    def _take(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._fd], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self._fd, 65536)
        except OSError:
            return False
        self.bytes_written += len(data)
        self._text = (self._text + data)[-400_000:]
        return bool(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        if self._fd >= 0:
            os.close(self._fd)
