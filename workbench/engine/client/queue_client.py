"""The queue from outside: through the engine, which begins work as soon as it is told; else in the file itself."""

import asyncio
from collections.abc import Iterable

from workbench.engine.client.client import EngineClient, anchored
from workbench.engine.client.process import engine_pid, ensure_engine
from workbench.planning.launch import Launch
from workbench.planning.queue import Queue, QueueRequest, QueueState, RunRequest
from workbench.recipe.schema import Recipe
from workbench.storage.paths import Home

# What makes runs start; an engine that is not there is started for it, and for nothing else.
_BEGINS_WORK = ("add", "go")


def run_requests(recipes: Iterable[Recipe], launch: Launch | None = None) -> list[RunRequest]:
    """Recipes as the queue takes them: paths in them are this process's, and are written as absolute ones."""
    return [RunRequest(recipe=anchored(recipe).as_dict(), launch=launch) for recipe in recipes]


async def change_queue(home: Home, request: QueueRequest) -> QueueState:
    """Change the queue.

    Raises:
        WorkbenchError: it cannot be done, or the engine does not start.
    """
    if request.action in _BEGINS_WORK:
        await ensure_engine(home)
    elif engine_pid(home) is None:
        return await asyncio.to_thread(Queue(home).apply, request)
    client = EngineClient(home)
    try:
        return await client.change_queue(request)
    finally:
        await client.close()
