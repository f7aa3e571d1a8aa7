"""A form: its lines, the keys that move between them, and the line selected last."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll

from screens.forms.row import SettingRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.app import ComposeResult
    from textual.widget import Widget

    from workbench.models.skeleton import Skeleton
    from workbench.recipe.schema import Recipe


def row_of(widget: Widget) -> SettingRow | None:
    """Return the line that a widget is, or is part of."""
    return next((node for node in widget.ancestors_with_self if isinstance(node, SettingRow)), None)


class SettingForm(VerticalScroll, can_focus=False):
    """Lines of settings; up and down move from one to the next instead of scrolling.

    Args:
        rows: the lines from the top, which :meth:`compose` yields; a subclass may put headings between them.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Previous setting", show=False, id="form.up"),
        Binding("down,j", "move(1)", "Next setting", show=False, id="form.down"),
        Binding("home", "end(0)", "First setting", show=False, id="form.first"),
        Binding("end", "end(-1)", "Last setting", show=False, id="form.last"),
    ]

    def __init__(self, rows: Iterable[SettingRow], *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.rows = list(rows)
        self._last: Widget | None = None

    def compose(self) -> ComposeResult:
        yield from self.rows

    @property
    def lines(self) -> Sequence[Widget]:
        """What the arrows move through, from the top."""
        return self.rows

    @property
    def selected(self) -> Widget:
        """The line that had the focus last; at first the topmost."""
        return self._last or self.rows[0]

    def show(self, recipe: Recipe, skeleton: Skeleton | None) -> None:
        """Show the recipe in each line."""
        for row in self.rows:
            row.show(recipe, skeleton)

    def select_setting(self, path: str) -> bool:
        """Move to the line of a dotted key; return whether there is one."""
        row = next((row for row in self.rows if path in (row.spec.path, *row.spec.also)), None)
        if row is not None:
            self._select(row)
        return row is not None

    def on_descendant_focus(self) -> None:
        # Of several keys that arrived together, this may be told of one after a later one has moved on.
        self._last = self._focused or self._last

    @property
    def _focused(self) -> Widget | None:
        """The line that has the focus; None if another part of the screen has it."""
        focused = self.screen.focused
        if focused is None:
            return None
        line = row_of(focused) or focused
        return line if line in self.lines else None

    def action_move(self, by: int) -> None:
        """Move to the next or the previous line."""
        line, lines = self._focused, self.lines
        here = lines.index(line) if line is not None else -1 if by > 0 else len(lines)
        self._select(lines[min(max(here + by, 0), len(lines) - 1)])

    def action_end(self, index: int) -> None:
        """Move to the first or the last line."""
        self._select(self.lines[index])

    def _select(self, line: Widget) -> None:
        """Focus a line before the next key is handled: Widget.focus() would do so only after it."""
        self._last = line
        self.screen.set_focus(line)
