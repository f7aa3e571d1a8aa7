"""Text from outside: made safe to show, cut to a width, and as Textual content without markup."""

from rich.cells import cell_len, set_cell_size
from textual.content import Content

from screens.widgets.glyphs import GLYPHS
from workbench.plain_text import plain

__all__ = ["plain", "plain_content", "shortened"]


def plain_content(text: object, style: str = "", *, lines: bool = False) -> Content:
    """Return safe text as Textual content in one style; square brackets in it are not markup."""
    return Content.styled(plain(text, lines=lines), style)


def shortened(text: str, most: int) -> str:
    """Return the text cut to a number of cells; an ellipsis replaces the rest."""
    if cell_len(text) <= most:
        return text
    return set_cell_size(text, most - 1).rstrip() + GLYPHS.ellipsis
