"""What all trees have in common: the keys that move in them, and the marks before their lines."""

from textual.binding import Binding

from screens.widgets.glyphs import GLYPHS

MOVES: list[Binding] = [
    Binding("up", "cursor_up", show=False),
    Binding("down", "cursor_down", show=False),
    Binding("left", "fold", show=False),
    Binding("right", "unfold", show=False),
    Binding("pageup", "page_up", show=False),
    Binding("pagedown", "page_down", show=False),
    Binding("home", "scroll_home", show=False),
    Binding("end", "scroll_end", show=False),
]
FOLDED = f"{GLYPHS.closed} "
UNFOLDED = f"{GLYPHS.opened} "
# For a tree's LINES in a terminal without UTF-8.
ASCII_LINES = dict.fromkeys(("default", "bold", "double"), ("  ", "| ", "`-", "|-"))
