"""The error that ended a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import VerticalScroll
from textual.widgets import Static

from screens.widgets.plain import plain, plain_content

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from workbench.runs.events import RunError


class Problem(VerticalScroll):
    """Message, cure and traceback of an error event of a journal."""

    DEFAULT_CSS = """
    Problem { height: auto; max-height: 40%; border: round $error; border-title-color: $error; padding: 0 1; }
    Problem Static { height: auto; }
    Problem #cure { text-style: bold; }
    Problem #trace { color: $text-muted; margin-top: 1; }
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.text = ""
        self._message = Static(id="message", markup=False)
        self._cure = Static(id="cure", markup=False)
        self._trace = Static(id="trace", markup=False)

    def compose(self) -> ComposeResult:
        yield self._message
        yield self._cure
        yield self._trace

    def show(self, event: RunError) -> None:
        """Show an error."""
        message, cure, trace = (plain(text, lines=True) for text in (event.message, event.cure, event.traceback))
        self.border_title = "The run failed"
        self.text = "\n".join(part for part in (message, cure, trace) if part)
        for part, text in ((self._message, message), (self._cure, cure), (self._trace, trace)):
            part.update(plain_content(text, lines=True))
            part.display = bool(text)
