"""The lines of a form, one under the other: the keys between them, and which was selected last."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll

from screens.forms.row import KnobRow

if TYPE_CHECKING:
    from textual import events
    from textual.widget import Widget


def row_of(widget: Widget) -> KnobRow | None:
    """The knob that a widget is, or lies in."""
    return next((node for node in widget.ancestors_with_self if isinstance(node, KnobRow)), None)


class KnobForm(VerticalScroll, can_focus=False):
    """Knobs from the top; up and down go from one to the next, in the place of scrolling."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Previous setting", show=False, id="form.up"),
        Binding("down,j", "move(1)", "Next setting", show=False, id="form.down"),
        Binding("home", "end(0)", "First setting", show=False, id="form.first"),
        Binding("end", "end(-1)", "Last setting", show=False, id="form.last"),
    ]

    _last: KnobRow | None = None

    @cached_property
    def rows(self) -> list[KnobRow]:
        """The knobs from the top; they stay the same ones."""
        return list(self.query(KnobRow))

    @property
    def selected(self) -> KnobRow:
        """The knob that had the focus last, which is where the form is scrolled to; at first the topmost."""
        return self._last or self.rows[0]

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        self._last = row_of(event.widget) or self._last

    def action_move(self, by: int) -> None:
        rows = self.rows
        here = next((index for index, row in enumerate(rows) if row.has_focus_within), -1 if by > 0 else len(rows))
        rows[min(max(here + by, 0), len(rows) - 1)].focus()

    def action_end(self, index: int) -> None:
        self.rows[index].focus()
