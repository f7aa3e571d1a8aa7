"""The recipes before and after the current one: what undo and redo go through."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from workbench.recipe.schema import Recipe

STEPS_KEPT = 500


class RecipeState(NamedTuple):
    """A recipe, and the ``output.name`` of the preset that was loaded last."""

    recipe: Recipe
    preset_name: str | None


class RecipeHistory:
    """Past and future recipes. A change clears the future; changes of one edit are one step."""

    def __init__(self) -> None:
        self._past: list[RecipeState] = []
        self._future: list[RecipeState] = []
        self._edit: object = None

    def record(self, before: RecipeState, after: Recipe, edit: object = None) -> None:
        """Add a change.

        Args:
            edit: identifies the edit that the change is a part of, such as the typing of one value; None for a change
                that is an edit of its own. An edit that ends where it began leaves no step.
        """
        if edit is None or edit is not self._edit:
            self._past.append(before)
            del self._past[:-STEPS_KEPT]
        self._edit = edit
        self._future.clear()
        if self._past and self._past[-1].recipe == after:
            self._past.pop()
            self._edit = None

    def undo(self, now: RecipeState) -> RecipeState | None:
        """Return the recipe before the last step; None if there is none."""
        return self._move(self._past, self._future, now)

    def redo(self, now: RecipeState) -> RecipeState | None:
        """Return the recipe that was undone last; None if there is none."""
        return self._move(self._future, self._past, now)

    def _move(self, source: list[RecipeState], target: list[RecipeState], now: RecipeState) -> RecipeState | None:
        self._edit = None
        if not source:
            return None
        target.append(now)
        return source.pop()
