"""The engine of a home, started when it is first needed. The HTTP client is imported then, off the event loop."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from workbench.data.facts import DataFacts, Example
    from workbench.engine.client import EngineClient
    from workbench.engine.protocol import ControlAction, EngineStatus, Progress, ReplyPiece, ReplyRequest
    from workbench.models.skeleton import Skeleton
    from workbench.paths import Home
    from workbench.recipe import ModelSection, Recipe


class HomeEngine:
    """An :class:`screens.session.Engine` over the Unix socket of ``home``."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._client: EngineClient | None = None
        self._starting = asyncio.Lock()

    async def ensure(self) -> None:
        async with self._starting:
            process = await asyncio.to_thread(import_module, "workbench.engine.process")
            await process.ensure_engine(self.home)

    async def status(self) -> EngineStatus:
        from workbench.errors import WorkbenchError

        if not self.home.socket.exists():
            raise WorkbenchError("No engine runs.", "It starts when it is needed.", kind="engine_gone")
        return await (await self._ready()).status()

    async def train(self, recipe: Recipe) -> str:
        return await (await self._ready()).train(recipe)

    async def resume(self, run: str) -> tuple[str, int]:
        return await (await self._ready()).resume(run)

    async def control(self, action: ControlAction, value: float | None = None, *, release: bool = False) -> None:
        await (await self._ready()).control(action, value, release=release)

    async def stop(self, *, save: bool = True) -> None:
        await (await self._ready()).stop(save=save)

    async def kill(self) -> None:
        killing = await asyncio.to_thread(import_module, "workbench.hard_stop")
        await killing.kill_engine(self.home)

    async def reply(self, request: ReplyRequest) -> AsyncIterator[Progress | ReplyPiece]:
        client = await self._ready()
        async for piece in client.reply(request):
            yield piece

    async def cancel(self) -> None:
        await (await self._ready()).cancel()

    async def fetch(self, model: ModelSection) -> AsyncIterator[Progress]:
        client = await self._ready()
        async for progress in client.fetch(model):
            yield progress

    async def tree(self, model: ModelSection) -> Skeleton:
        return await (await self._ready()).tree(model)

    async def facts(
        self, recipe: Recipe, *, fetch: bool = False, show: int = 3
    ) -> AsyncGenerator[Progress | DataFacts]:
        client = await self._ready()
        async with aclosing(client.facts(recipe, fetch=fetch, show=show)) as answers:
            async for answer in answers:
                yield answer

    async def examples(self, recipe: Recipe, start: int, count: int = 1, search: str = "") -> list[Example]:
        return await (await self._ready()).examples(recipe, start, count, search)

    async def unload(self) -> None:
        await (await self._ready()).unload()

    async def shutdown(self) -> None:
        await (await self._ready()).shutdown()

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _ready(self) -> EngineClient:
        if self._client is None:
            self._client = await asyncio.to_thread(_make_client, self.home)
        return self._client


def _make_client(home: Home) -> EngineClient:
    from workbench.engine.client import EngineClient

    return EngineClient(home)
