"""The tree of a recipe's model: out of the catalog, else built by the engine from the configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from screens.session import Session
    from workbench.models.skeleton import Skeleton
    from workbench.recipe.schema import ModelSection


async def tree_of(model: ModelSection, session: Session, start_engine: Callable[[], Awaitable[None]]) -> Skeleton:
    """Find the tree, and price it once, off the event loop.

    Raises:
        WorkbenchError: the engine does not come up, or cannot build it.
    """
    tree = await asyncio.to_thread(_catalog_tree, model.source)
    if tree is None:
        await start_engine()
        tree = await session.engine.tree(model)
    await asyncio.to_thread(_price_once, tree, session)
    return tree


def _catalog_tree(source: str) -> Skeleton | None:
    from workbench.models.catalog import catalog_skeleton

    return catalog_skeleton(source)


def _price_once(tree: Skeleton, session: Session) -> None:
    """The first price of a model imports the estimator and reads followed steps; later ones are there at once."""
    from screens.shell.cost_view import device_of
    from workbench.estimate.catalog_fit import peak_of

    peak_of(tree, session.recipe, device_of(session), session.traces, free_bytes=session.budget.free_bytes)
