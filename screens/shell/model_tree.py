"""The module tree of a recipe's model: from the catalog, else built by the engine from the configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from screens.session import Session
    from workbench.models.skeleton import Skeleton
    from workbench.recipe.sections.model import ModelSection


async def read_tree(session: Session, start_engine: Callable[[], Awaitable[None]], changed: Callable[[], None]) -> None:
    """Put the module tree of the recipe's model into the session, or why there is none.

    Args:
        session: holds the recipe; another model may be chosen meanwhile.
        start_engine: starts the engine if none runs.
        changed: called after the tree in the session has changed.
    """
    model = session.recipe.model
    session.skeleton = session.skeleton_error = None
    changed()
    try:
        tree = await tree_of(model, session, start_engine)
    except WorkbenchError as error:
        session.skeleton_error = error
    else:
        if model != session.recipe.model:
            return
        session.skeleton = tree
    changed()


async def tree_of(model: ModelSection, session: Session, start_engine: Callable[[], Awaitable[None]]) -> Skeleton:
    """Return the module tree of a model, priced once, off the event loop.

    Raises:
        WorkbenchError: the engine does not start, or cannot build the tree.
    """
    tree = await asyncio.to_thread(_known_tree, model)
    if tree is None:
        await start_engine()
        tree = await session.engine.tree(model)
    await asyncio.to_thread(_price_once, tree, session)
    return tree


def _known_tree(model: ModelSection) -> Skeleton | None:
    from workbench.models.trees import skeleton_in_catalog

    return skeleton_in_catalog(model)


def _price_once(tree: Skeleton, session: Session) -> None:
    """The first price of a model imports the estimator and reads traced steps; later ones are there at once."""
    from screens.shell.cost_view import price_of

    with suppress(WorkbenchError):  # the settings are refused, which the Adapter tab says
        price_of(session, tree)
