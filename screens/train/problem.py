"""What ended a run badly, to be read to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import VerticalScroll
from textual.widgets import Static

from screens.widgets.plain import plain, plain_content

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from workbench.runs.events import RunError


class Problem(VerticalScroll):
    """Message, cure and traceback of an ``error`` event of a journal."""

    DEFAULT_CSS = """
    Problem { height: auto; max-height: 40%; border: round $error; border-title-color: $error; padding: 0 1; }
    Problem Static { height: auto; }
    Problem #cure { text-style: bold; }
    Problem #trace { color: $text-muted; margin-top: 1; }
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.text = ""

    def compose(self) -> ComposeResult:
        yield Static(id="message", markup=False)
        yield Static(id="cure", markup=False)
        yield Static(id="trace", markup=False)

    def show(self, event: RunError) -> None:
        """Show an event with ``kind``, ``message``, ``cure`` and ``traceback``."""
        message, cure, trace = (plain(text, lines=True) for text in (event.message, event.cure, event.traceback))
        self.border_title = "The run failed"
        self.text = "\n".join(part for part in (message, cure, trace) if part)
        for name, text in (("message", message), ("cure", cure), ("trace", trace)):
            part = self.query_one(f"#{name}", Static)
            part.update(plain_content(text, lines=True))
            part.display = bool(text)
