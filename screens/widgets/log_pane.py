"""The end of a log file as it grows: plain text, whatever a library wrote into it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from textual.widgets import Log

from screens.widgets.plain import plain

if TYPE_CHECKING:
    from pathlib import Path

    from textual.timer import Timer

LINES_KEPT = 1000
_BYTES_READ = 64 * 1024
_SECONDS = 1.0

# ECMA-48 control sequences (colours, cursor moves) and operating system commands: gone, not spelled out.
_SEQUENCES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


class LogPane(Log):
    """Shows the last :data:`LINES_KEPT` lines of a file and follows it while it can be seen."""

    DEFAULT_CSS = """
    LogPane { background: $surface; height: 1fr; scrollbar-size-horizontal: 0; }
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(max_lines=LINES_KEPT, id=id)
        self._path: Path | None = None
        self._offset = 0
        self._rest = b""
        self._follow: Timer | None = None

    def show(self, path: Path | None) -> None:
        """Follow this file from now on; None ends it."""
        if path != self._path:
            self._path, self._offset, self._rest = path, 0, b""
            self.clear()
        self.read_on()

    def _on_show(self) -> None:
        self._follow = self._follow or self.set_interval(_SECONDS, self.read_on)
        self._follow.resume()
        self.read_on()

    def _on_hide(self) -> None:
        if self._follow:
            self._follow.pause()

    def read_on(self) -> None:
        """Take in what was written since; of a flood only the end."""
        if self._path is None:
            return
        try:
            with self._path.open("rb") as file:
                end = file.seek(0, 2)
                if end < self._offset:  # the file was begun anew
                    self._offset, self._rest = 0, b""
                if end == self._offset:
                    return
                if end - self._offset > _BYTES_READ:
                    self._offset, self._rest = end - _BYTES_READ, b""
                file.seek(self._offset)
                data = self._rest + file.read(_BYTES_READ)
                self._offset = file.tell()
        except OSError:
            return  # not written yet; it is looked for again
        *lines, self._rest = data.split(b"\n")
        self._rest = self._rest[-_BYTES_READ:]
        if lines:
            self.write_lines(clean_line(line) for line in lines)


def clean_line(line: bytes) -> str:
    """One line of a log as it would stand on a terminal: the last state of a progress bar, without colours."""
    text = _SEQUENCES.sub("", line.decode("utf-8", "replace")).rstrip("\r")
    return plain(text.rpartition("\r")[2])
