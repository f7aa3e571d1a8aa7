"""The app as panes, dialogs and the palette see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from textual.screen import Screen

    from screens.session import Session
    from screens.shell.jobs import Jobs
    from screens.widgets.pane import Pane
    from workbench.errors import Problem, WorkbenchError


Answer = TypeVar("Answer")


class Workbench(Protocol):
    """The app as its parts see it; :class:`screens.app.WorkbenchApp` is the one there is.

    Attributes:
        trace_steps: whether training steps may be traced while nobody types.
        jobs: the work in the background.
    """

    session: Session
    trace_steps: bool
    jobs: Jobs

    @property
    def pane_in_front(self) -> Pane | None:
        """The pane that is shown."""

    def set_recipe(self, changes: Mapping[str, Any], edit: object = None) -> list[Problem]:
        """Change the recipe at dotted keys; returns the mistakes, and changes nothing if there are any.

        Changes with the same ``edit`` are undone together.
        """

    def apply_settings(self) -> None:
        """Use the theme and the keys of the settings."""

    async def start_engine(self) -> None:
        """Start the engine if none runs.

        Raises:
            WorkbenchError: it does not start.
        """

    def attempt(self, work: Coroutine[Any, Any, object], *, asks: bool = False) -> None:
        """Run something in a worker; an error that the user can fix is shown.

        Args:
            asks: whether it may open a dialog: the keys that follow wait for it.
        """

    def show_error(self, error: WorkbenchError) -> None:
        """Show what went wrong and what to do about it."""

    async def action_show_tab(self, name: str) -> None:
        """Bring a tab to the front."""

    def action_queue(self) -> None:
        """Show the queue."""

    def push_screen(
        self, screen: Screen[Any], callback: Callable[[Any], None] | Callable[[Any], Awaitable[None]] | None = None
    ) -> object:
        """Textual's: show a dialog; its answer goes to the callback."""

    async def push_screen_wait(self, screen: Screen[Answer]) -> Answer:
        """Textual's: show a dialog and wait for its answer. From a worker only."""

    def notify(self, message: str, *, timeout: float | None = None, markup: bool = True) -> None:
        """Textual's: show a passing message."""
