"""A page of the docs, to read in the app."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import VerticalGroup, VerticalScroll
from textual.widgets import Markdown

from screens.dialogs.questions import Dialog

if TYPE_CHECKING:
    from pathlib import Path

    from textual.app import ComposeResult


class DocScreen(Dialog[None]):
    """One page; the arrows scroll it, Esc closes it."""

    NAME = "Docs"
    DEFAULT_CSS = """
    DocScreen > VerticalGroup { width: 108; max-width: 98%; height: 92%; max-height: 92%; padding: 0 1; }
    DocScreen VerticalScroll { height: 1fr; max-height: 100%; margin: 0; }
    """

    def __init__(self, page: Path) -> None:
        super().__init__()
        self._page = page

    def compose(self) -> ComposeResult:
        with VerticalGroup() as box:
            box.border_title = self._page.name
            box.border_subtitle = "Esc close"
            with VerticalScroll():
                yield Markdown(self._page.read_text(encoding="utf-8"), open_links=False)

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()
