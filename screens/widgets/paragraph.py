"""Text that is repainted only when it changes: a paragraph, and the title of a widget's border."""

from typing import Any

from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from screens.widgets.plain import plain_content


class Paragraph(Static):
    """A block of text. Other than Textual's own ``Static``, it ignores an update to the same text."""

    def __init__(self, **names: Any) -> None:
        super().__init__(markup=False, **names)
        self._text = Content("")

    def show(self, text: Content) -> None:
        """Show this text from now on."""
        if not text.is_same(self._text):
            self._text = text
            self.update(text)
            self.call_after_refresh(self._fit_height)

    def _fit_height(self) -> None:
        """Ask for another layout where one that was under way has kept the height of the text before."""
        width, height = self.content_size
        is_auto = self.styles.height is not None and self.styles.height.is_auto
        if is_auto and width and self._text.get_height(self.styles.get_rules(), width) > height:
            self.refresh(layout=True)

    def show_or_hide(self, text: Content) -> None:
        """Show this text; if it is empty, the widget takes no room."""
        self.display = bool(text)
        self.show(text)


def set_title(widget: Widget, title: str | Content) -> None:
    """Set a widget's border title if it differs: Textual repaints the whole widget for it."""
    content = title if isinstance(title, Content) else plain_content(title)
    if widget.border_title != content.markup:
        widget.border_title = content
