"""The base of a tab's content."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.actions import parse
from textual.binding import Binding
from textual.containers import Container
from textual.widget import Widget
from textual.widgets import Input

from screens.widgets.key_texts import register

if TYPE_CHECKING:
    from screens.session import Session
    from screens.workbench import Workbench


def beside(module_file: str) -> str:
    """Return the text of the ``.tcss`` file next to a module: ``DEFAULT_CSS = beside(__file__)``.

    It is read when the module is imported, not when the app starts: the first frame does not wait for the styles of
    tabs that are not open.
    """
    return Path(module_file).with_suffix(".tcss").read_text(encoding="utf-8")


class Pane(Container, can_focus=True):
    """The content of one tab, mounted when the tab is first shown.

    The app posts it the messages of :mod:`screens.messages` while it is shown, and none while it is hidden;
    :meth:`on_shown` then catches up from the session. A pane without a list or a form takes the focus itself, so that
    its keys work while no field is being edited.

    The first of ``BINDINGS`` is ``enter``: the primary action, with its name.
    """

    DEFAULT_CSS = """
    Pane { width: 1fr; height: 1fr; background: $background; }
    """

    NAME: ClassVar[str] = ""
    """The name in the tab strip."""

    GUIDE: ClassVar[str] = ""
    """What can be done here, in a few sentences, for the help panel."""

    is_shown = False

    _offered: tuple[bool | None, ...] = ()

    def __init_subclass__(cls, **arguments: Any) -> None:
        # Styles of a pane may depend on the width of the screen: ``.-narrow DataPane { … }``. Scoped styles could not,
        # and Textual reads the switch from each class by itself.
        cls.SCOPED_CSS = False
        register(cls.BINDINGS)
        super().__init_subclass__(**arguments)

    @property
    def workbench(self) -> Workbench:
        """The app, as its parts see it."""
        return cast("Workbench", self.app)

    @property
    def session(self) -> Session:
        return self.workbench.session

    def refresh_bindings(self) -> None:
        """Rebuild the footer, which lays the whole screen out again, only if other keys are available than before.

        Work that the app cancels when it closes may still call it: there is no footer then.
        """
        if not self.is_attached:
            return
        actions = (parse(binding.action) for binding in self.BINDINGS if isinstance(binding, Binding))
        offered = tuple(self.check_action(name, parameters) for _, name, parameters in actions)
        if offered != self._offered:
            self._offered = offered
            super().refresh_bindings()

    def on_shown(self) -> None:
        """Draw from the session: the pane was brought to the front."""

    def on_hidden(self) -> None:
        """Stop drawing: another pane was brought to the front."""

    def select_setting(self, path: str) -> None:
        """Move to the field of a dotted key of the recipe, on a pane with a form."""

    def select_run(self, run: str) -> None:
        """Show the run of an id, on a pane with a history."""

    # -- the focus ------------------------------------------------------------------------------------------------

    def first_focus(self) -> Widget:
        """Return what gets the focus when the pane is shown. Never a text field: letters would type into it."""
        return self

    def allow_focus(self) -> bool:
        """Whether the pane itself takes the focus: only if it has no list or form that can, so that there is always
        a cursor."""
        return self._focus_target is self

    def take_focus(self) -> None:
        """Focus the list or form, or the pane if it has none, before the next key is handled."""
        # Not Widget.focus(), which waits for another message: keys that arrive together would go to what was left.
        self.screen.set_focus(self._focus_target)

    def leave(self) -> None:
        """Esc: leave a text field; else clear the filter; else go back to the list or form."""
        if isinstance(self.screen.focused, Input) or not self.clear_filter():
            self.take_focus()

    def clear_filter(self) -> bool:
        """Clear the filter of the list; return whether there was one."""
        return False

    @property
    def _focus_target(self) -> Widget:
        """:meth:`first_focus`, or the pane while that is not shown."""
        first = self.first_focus()
        inside = takewhile(lambda node: node is not self, first.ancestors_with_self)
        return first if all(isinstance(node, Widget) and node.display for node in inside) else self
