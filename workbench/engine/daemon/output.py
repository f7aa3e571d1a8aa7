"""Everything that libraries print, Python or native, goes to a file: the engine's log, or that of the run it trains."""

import os
from pathlib import Path


class OutputFile:
    """Owns file descriptors 1 and 2 of this process from now on."""

    def __init__(self, path: Path) -> None:
        self._own = _open(path)
        self.restore()

    def switch(self, path: Path) -> None:
        """Send output to another file until :meth:`restore`."""
        file = _open(path)
        _send_to(file)
        os.close(file)

    def restore(self) -> None:
        """Send output to the engine's own log again; it was kept open, so that nothing can go wrong here."""
        _send_to(self._own)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _send_to(file: int) -> None:
    os.dup2(file, 1)
    os.dup2(file, 2)
