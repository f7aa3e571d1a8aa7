"""The tabs on one line, each with the key that opens it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.content import Content
from textual.reactive import reactive
from textual.style import Style
from textual.widget import Widget

from screens.widgets.key_texts import key

if TYPE_CHECKING:
    from collections.abc import Sequence


class TabStrip(Widget):
    """A static tab bar of one line. Textual's ``Tabs`` takes two lines and animates, which is too much over SSH."""

    auto_links = False
    active: reactive[str] = reactive("")

    def __init__(self, names: Sequence[tuple[str, str]], **arguments: Any) -> None:
        """Args:
        names: (id, label) of each tab in order.
        """
        super().__init__(**arguments)
        self._names = tuple(names)

    def render(self) -> Content:
        return Content("").join(
            Content.assemble(
                (f" {key(f'tab.{name}')} ", "bold $accent on $panel" if name == self.active else "$muted"),
                (f"{label} ", "bold $foreground on $panel" if name == self.active else ""),
            ).stylize(Style.from_meta({"@click": f"app.show_tab('{name}')"}))
            for name, label in self._names
        )
