"""A dialog that is a box in the middle of the screen."""

from __future__ import annotations

from typing import Generic

from textual.screen import ModalScreen, ScreenResultType


class BoxScreen(ModalScreen[ScreenResultType], Generic[ScreenResultType]):
    """Frames its container. A subclass gives the container's width or size, and its title."""

    DEFAULT_CSS = """
    BoxScreen { align: center middle; background: $background 60%; }
    BoxScreen > Vertical, BoxScreen > VerticalGroup, BoxScreen > VerticalScroll {
        max-width: 96%; max-height: 92%; background: $surface; border: round $border; padding: 0 1;
        border-title-style: bold; border-title-color: $foreground; border-subtitle-color: $text-muted;
    }
    """
