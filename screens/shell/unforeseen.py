"""How the app ends after an error that nobody foresaw: with a sentence instead of Textual's traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from screens.widgets.plain import plain

if TYPE_CHECKING:
    from rich.text import Text

    from workbench.errors import WorkbenchError


class Unforeseen(Exception):  # noqa: N818
    """An explained error. Textual prints an exception that has ``__rich__`` by it; the traceback is in the log."""

    def __init__(self, explained: WorkbenchError, fault: BaseException) -> None:
        super().__init__(str(explained))
        self.__cause__ = fault

    def __rich__(self) -> Text:
        from rich.text import Text

        return Text(plain(str(self), lines=True))
