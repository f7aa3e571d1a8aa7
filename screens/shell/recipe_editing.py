"""Changes to the current recipe: made, undone, shown in the header and the pane in front, and saved."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from screens.messages import RecipeChanged, SkeletonChanged
from screens.shell.model_tree import read_tree
from screens.widgets.delay import Delay
from screens.widgets.plain import plain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from textual.app import App
    from textual.message import Message
    from textual.worker import Worker

    from screens.session import Session
    from screens.shell.header import HeaderBar
    from workbench.errors import Problem
    from workbench.recipe.schema import Recipe

SAVE_SECONDS = 2.0


class RecipeEditing:
    """Changes the session's recipe for an app, and does what follows from a change.

    Args:
        app: runs the workers and shows the notices.
        tell: posts a message to the pane in front.
        start_engine: starts the engine if none runs; some models' trees are built by it.
    """

    def __init__(
        self,
        app: App[None],
        session: Session,
        header: HeaderBar,
        tell: Callable[[Message], None],
        start_engine: Callable[[], Awaitable[None]],
    ) -> None:
        self._app = app
        self._session = session
        self._header = header
        self._tell = tell
        self._start_engine = start_engine
        # While the app runs: a dropped connection then loses little.
        self._save_soon = Delay(app, self._save_in_worker, SAVE_SECONDS)

    def change(self, changes: Mapping[str, Any], edit: object = None) -> list[Problem]:
        """Change the recipe at dotted keys; returns the mistakes, and changes nothing if there are any."""
        from workbench.recipe.text import RecipeError

        before = self._session.recipe
        try:
            self._session.edit(changes, edit)
        except RecipeError as error:
            return error.problems
        self._show_after(before)
        return []

    def undo(self) -> None:
        """Undo the last change of the recipe, and say what changed back."""
        self._go_through_history("Undo", self._session.undo)

    def redo(self) -> None:
        """Make a change of the recipe again that was undone."""
        self._go_through_history("Redo", self._session.redo)

    def read_tree(self) -> None:
        """Read the module tree of the recipe's model, and tell of it."""

        def changed() -> None:
            self._header.show_recipe(self._session.recipe, self._session.skeleton)
            self._tell(SkeletonChanged(self._session.skeleton))

        # A function and not its coroutine: a worker that the next one replaces before it began would never await that.
        work = partial(read_tree, self._session, self._start_engine, changed)
        _: Worker[None] = self._app.run_worker(work, name="skeleton", exclusive=True, group="skeleton")

    def save_soon(self) -> None:
        """Save the recipe and the settings once nothing more has changed for a while."""
        self._save_soon.ask()

    async def save(self) -> None:
        """Save the recipe and the settings now."""
        try:
            await asyncio.to_thread(self._session.save)
        except OSError as error:
            self._app.notify(
                f"The settings could not be saved: {error.strerror}. Free some space in {self._session.home.root}.",
                severity="warning",
                markup=False,
            )

    def _save_in_worker(self) -> None:
        self._app.run_worker(self.save(), name="save", group="save", exclusive=True)

    def _show_after(self, before: Recipe) -> None:
        """Show the changed recipe in the header and the pane in front, and save it soon."""
        recipe = self._session.recipe
        self._tell(RecipeChanged(recipe))
        # After the pane: the screen paints the first widget that changes at once, and the others a frame later.
        skeleton = self._session.skeleton if recipe.model == before.model else None
        self._app.call_later(self._header.show_recipe, recipe, skeleton)
        if recipe.model != before.model:
            self.read_tree()
        self.save_soon()

    def _go_through_history(self, name: str, move: Callable[[], bool]) -> None:
        from workbench.recipe.differences import change_text

        before = self._session.recipe
        if move():
            self._show_after(before)
            words = f"{name}: {plain(change_text(before, self._session.recipe))}"
        else:
            words = f"Nothing to {name.lower()}."
        self._app.notify(words, markup=False, timeout=3)
