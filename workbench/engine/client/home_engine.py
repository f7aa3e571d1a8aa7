"""The client that screens use: it also starts and kills the engine's process, and explains why one died."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from workbench.engine.client.client import EngineClient
from workbench.engine.client.kill_engine import kill_engine
from workbench.engine.client.operation import Answer, Call, Item, Request, Stream
from workbench.engine.client.process import engine_pid, ensure_engine, exit_code, last_lines
from workbench.engine.client.protocol import EngineStatus
from workbench.errors import WorkbenchError
from workbench.failures.diagnose import explain_death
from workbench.machine.oom_killer import kills_since, oom_kills
from workbench.planning.queue import Queue, QueueRequest, QueueState
from workbench.storage.paths import Home

_SECONDS_TO_DIE = 1.0
# Changes to the queue that make runs start, so that they need an engine.
_STARTS_RUNS = ("add", "go")


class HomeEngine(EngineClient):
    """The engine of a home, with its process.

    A stream that breaks because the engine died raises an error of kind ``engine_died`` that says why.
    """

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self._starting = asyncio.Lock()
        # The engine that last answered, and the kernel's count of out-of-memory kills at that time.
        self._pid: int | None = None
        self._oom_kills: int | None = None

    async def ensure(self) -> None:
        """Start the engine if none is running, and wait until it answers.

        Raises:
            WorkbenchError: it does not start.
        """
        async with self._starting:
            await ensure_engine(self.home)

    async def kill(self) -> None:
        """Kill the engine's process; anything it has not written is lost."""
        await kill_engine(self.home)

    async def change_queue(self, request: QueueRequest) -> QueueState:
        """Change the queue. Starts the engine if the change makes runs start; otherwise needs none.

        Raises:
            WorkbenchError: the request cannot be carried out, or the engine does not start.
        """
        if request.action in _STARTS_RUNS:
            await self.ensure()
        elif not await asyncio.to_thread(self._has_process):
            return await asyncio.to_thread(Queue(self.home).apply, request)
        return await self.edit_queue(request)

    async def call(self, operation: Call[Request, Answer], request: Request) -> Answer:
        """As :meth:`EngineClient.call`; remembers which engine answered."""
        answer = await super().call(operation, request)
        if isinstance(answer, EngineStatus) and answer.pid != self._pid:
            self._pid, self._oom_kills = answer.pid, await asyncio.to_thread(oom_kills)
        return answer

    async def stream(
        self, operation: Stream[Request, Item], request: Request, request_id: str = ""
    ) -> AsyncGenerator[Item]:
        """As :meth:`EngineClient.stream`; if the engine dies meanwhile, the error says why."""
        try:
            async with aclosing(super().stream(operation, request, request_id)) as items:
                async for item in items:
                    yield item
        except WorkbenchError as error:
            if error.kind == "engine_gone" and (death := await asyncio.to_thread(self._death)):
                raise death from error
            raise

    def _has_process(self) -> bool:
        return engine_pid(self.home) is not None

    def _death(self) -> WorkbenchError | None:
        """Why the engine that last answered has ended; None if it is running."""
        if self._pid is None:
            return None
        code = exit_code(self._pid, seconds=_SECONDS_TO_DIE)
        if self._has_process():
            return None
        log = last_lines(self.home.engine_log)
        why = explain_death(code, log, oom_kills=kills_since(self._oom_kills))
        return WorkbenchError(f"{why.message}\n{log}".rstrip(), why.cure, kind="engine_died")
