"""The base of a tab's content."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.containers import Container

if TYPE_CHECKING:
    from textual.widget import Widget

    from screens.session import Session
    from screens.workbench import Workbench


def beside(module_file: str) -> str:
    """The styles in the ``.tcss`` next to a module: ``DEFAULT_CSS = beside(__file__)``.

    They are read with the module and not with the app, so that the first frame does not wait for all of them.
    """
    return Path(module_file).with_suffix(".tcss").read_text(encoding="utf-8")


class Pane(Container, can_focus=True):
    """One tab's content, mounted when it is first shown.

    The app posts it the messages of :mod:`screens.messages` while it is shown and none while it is hidden;
    :meth:`on_shown` is where it catches up from the session. It can have the focus itself, so that its keys work while
    no part of it is being edited (``escape`` gives it the focus back, and then the digits switch tabs).

    The first of ``BINDINGS`` is ``enter``: the primary action, with its name.
    """

    DEFAULT_CSS = """
    Pane { width: 1fr; height: 1fr; background: $background; }
    """

    NAME: ClassVar[str] = ""
    """As it stands in the tab strip."""

    GUIDE: ClassVar[str] = ""
    """What can be done here, in a few sentences, for the help panel."""

    is_shown = False

    def __init_subclass__(cls, **arguments: Any) -> None:
        # Styles beside a pane may ask for the width of the screen: ``.-narrow DataPane { … }``. Textual looks for the
        # switch in each class by itself.
        cls.SCOPED_CSS = False
        super().__init_subclass__(**arguments)

    @property
    def workbench(self) -> Workbench:
        """The app, as its parts see it."""
        return cast("Workbench", self.app)

    @property
    def session(self) -> Session:
        return self.workbench.session

    def on_shown(self) -> None:
        """The pane was brought to the front: read the session and draw."""

    def on_hidden(self) -> None:
        """Another pane was brought to the front: stop drawing."""

    def first_focus(self) -> Widget:
        """What gets the focus when the pane is shown. Never a text field: the digits would type into it."""
        return self
