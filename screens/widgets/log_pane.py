"""Follows the end of a log file, as plain text, whatever libraries write into it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.strip import Strip

from screens.widgets.line_painted import LinePaintedWidget
from screens.widgets.plain import plain

if TYPE_CHECKING:
    from pathlib import Path

    from textual import events
    from textual.selection import Selection
    from textual.timer import Timer

LINES_KEPT = 1000
_BYTES_READ = 64 * 1024
_SECONDS = 1.0
_COLUMNS = 8
_WHEEL_LINES = 3

# ECMA-48 control sequences (colors, cursor moves) and operating system commands are removed.
_SEQUENCES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


class LogPane(LinePaintedWidget, can_focus=True):
    """Shows the last :data:`LINES_KEPT` lines of a file, and follows it while the pane is visible.

    A library may print a hundred lines a second, and each moves all others. So the pane is updated once a second, and
    stays in place while the user has scrolled back.
    """

    REDRAWS_A_SECOND = 1 / _SECONDS
    ALLOW_SELECT = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", show=False),
        Binding("down", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "begin", show=False),
        Binding("end", "end", show=False),
        Binding("left", f"shift(-{_COLUMNS})", show=False),
        Binding("right", f"shift({_COLUMNS})", show=False),
    ]
    DEFAULT_CSS = """
    LogPane { background: $surface; height: 1fr; }
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.lines: list[str] = []
        self._path: Path | None = None
        self._offset = 0
        self._rest = b""
        self._follow: Timer | None = None
        self._top: int | None = None
        """The first line shown after scrolling back; None while the end is shown."""
        self._left = 0

    # -- the file -------------------------------------------------------------------------------------------------

    def show(self, path: Path | None) -> None:
        """Follow a file; None stops following."""
        if path != self._path:
            self._path, self._offset, self._rest = path, 0, b""
            self.lines.clear()
            self._top, self._left = None, 0
            self._look()
            self.read_on()

    def on_show(self, _: events.Show) -> None:
        self._follow = self._follow or self.set_interval(_SECONDS, self.read_on)
        self._follow.resume()
        self.read_on()

    def on_hide(self, _: events.Hide) -> None:
        if self._follow:
            self._follow.pause()

    def read_on(self) -> None:
        """Read what was added to the file; if that is much, only its end."""
        if self._path is None:
            return
        try:
            with self._path.open("rb") as file:
                end = file.seek(0, 2)
                if end < self._offset:  # the file was written again from its start
                    self._offset, self._rest = 0, b""
                if end == self._offset:
                    return
                if end - self._offset > _BYTES_READ:
                    self._offset, self._rest = end - _BYTES_READ, b""
                file.seek(self._offset)
                data = self._rest + file.read(_BYTES_READ)
                self._offset = file.tell()
        except OSError:
            return  # it does not exist yet; the next call tries again
        *lines, self._rest = data.split(b"\n")
        self._rest = self._rest[-_BYTES_READ:]
        if lines:
            self._add([clean_line(line) for line in lines[-LINES_KEPT:]])

    def _add(self, lines: list[str]) -> None:
        self.lines += lines
        gone = max(0, len(self.lines) - LINES_KEPT)
        del self.lines[:gone]
        if self._top is not None:
            self._top = max(0, self._top - gone)
        self.changed()

    # -- what is shown --------------------------------------------------------------------------------------------

    @property
    def top(self) -> int:
        """The first line that is shown."""
        last = max(0, len(self.lines) - self.size.height)
        return last if self._top is None else min(self._top, last)

    def paint(self, width: int, height: int) -> list[Strip]:
        return [self._line(y, width) for y in range(self.top, min(len(self.lines), self.top + height))]

    def _line(self, y: int, width: int) -> Strip:
        line, selection = self.lines[y], self.text_selection
        strip = Strip([Segment(line)])
        if selection is not None and (span := selection.get_span(y)) is not None:
            start, end = span[0], len(line) if span[1] == -1 else span[1]
            style = self.screen.get_component_rich_style("screen--selection")
            strip = Strip([Segment(line[:start]), Segment(line[start:end], style), Segment(line[end:])])
        return strip.crop(self._left, self._left + width)

    def render_line(self, y: int) -> Strip:
        return super().render_line(y).apply_offsets(self._left, self.top + y)

    def get_selection(self, selection: Selection) -> tuple[str, str]:
        return selection.extract("\n".join(self.lines)), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self._repaint()

    # -- looking around -------------------------------------------------------------------------------------------

    def action_move(self, lines: int) -> None:
        """Scroll by lines; at the last line the pane follows the end again."""
        top = max(0, self.top + lines)
        self._top = top if top + self.size.height < len(self.lines) else None
        self._look()

    def action_page(self, pages: int) -> None:
        """Scroll by the height of the pane."""
        self.action_move(pages * max(1, self.size.height - 1))

    def action_begin(self) -> None:
        """Scroll to the first line that is kept."""
        self.action_move(-LINES_KEPT)

    def action_end(self) -> None:
        """Scroll to the end, and follow it."""
        self.action_move(LINES_KEPT)

    def action_shift(self, columns: int) -> None:
        """Scroll sideways, if lines are longer than the pane is wide."""
        longest = max(map(len, self.lines), default=0)
        self._left = max(0, min(self._left + columns, longest - self.size.width))
        self._look()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.action_move(-_WHEEL_LINES)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.action_move(_WHEEL_LINES)

    def _look(self) -> None:
        """Repaint at once: the user has scrolled."""
        self.border_subtitle = "" if self._top is None else f"from line {self._top + 1}; End follows the log"
        self._repaint()


def clean_line(line: bytes) -> str:
    """Return a line of a log as a terminal would show it: the last state of a progress bar, without colors."""
    text = _SEQUENCES.sub("", line.decode("utf-8", "replace")).rstrip("\r")
    return plain(text.rpartition("\r")[2])
