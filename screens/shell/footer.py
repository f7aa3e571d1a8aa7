"""The keys of what is in front, on the last line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.style import Style
from textual.widget import Widget

from screens.widgets.glyphs import GLYPHS
from screens.widgets.plain import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textual.screen import Screen

_HELP = "help"


class KeyFooter(Widget):
    """The keys that can be pressed now, in one line; where they do not all fit, it ends in ``…`` and F1.

    Textual's own footer is a widget for each key, and on a narrow terminal it cuts off the last ones.
    """

    DEFAULT_CSS = """
    KeyFooter { dock: bottom; height: 1; background: $footer-background; color: $footer-foreground; }
    """
    auto_links = False

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def _changed(self, screen: Screen[object]) -> None:
        if screen is self.screen:
            self.refresh()

    def render(self) -> Content:
        keys = dict(self._keys())
        palette = Content(GLYPHS.right).stylize("$border") + keys.pop(_PALETTE, Content(""))
        room = self.size.width - palette.cell_length
        shown = list(keys.values())
        if sum(key.cell_length for key in shown) > room:
            shown = self._shortened(keys, room)
        left = Content("").join(shown)
        return Content("").join([left, Content(" " * (room - left.cell_length)), palette])

    def _shortened(self, keys: dict[str, Content], room: int) -> list[Content]:
        ends = [Content.styled(f" {GLYPHS.ellipsis} ", "$muted"), keys.pop(_HELP, Content(""))]
        room -= sum(end.cell_length for end in ends)
        kept: list[Content] = []
        for key in keys.values():
            room -= key.cell_length
            if room < 0:
                break
            kept.append(key)
        return [*kept, *ends]

    def _keys(self) -> Iterator[tuple[str, Content]]:
        """Yield the action and the text of each key, an action once; the palette's key last."""
        found: set[str] = set()
        for key, (_, binding, enabled, _) in self.screen.active_bindings.items():
            is_palette = key == self.app.COMMAND_PALETTE_BINDING
            if (binding.show or is_palette) and binding.action not in found:
                found.add(binding.action)
                dim = "" if enabled else " dim"
                text = Content.assemble(
                    (f" {plain(self.app.get_key_display(binding))} ", f"bold $footer-key-foreground{dim}"),
                    (f"{plain(binding.description)} ", f"$footer-description-foreground{dim}"),
                )
                click = Style.from_meta({"@click": f"app.simulate_key('{binding.key}')"})
                yield _PALETTE if is_palette else binding.action, text.stylize(click) if enabled else text


_PALETTE = "palette"
