"""Starts a run with the current recipe, or resumes one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from screens.queue import start_checks
from workbench.engine.client.requests import resume_request, train_request
from workbench.runs.folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from screens.workbench import Workbench


class RunStarter:
    """Starts or resumes one run at a time, in a worker.

    Args:
        workbench: the app.
        changed: called when a start begins and when it has ended.
        started: called with the run, and the number of its last event before it was resumed (-1 for a new run).
    """

    def __init__(
        self, workbench: Workbench, changed: Callable[[], None], started: Callable[[RunFolder, int], None]
    ) -> None:
        self._workbench = workbench
        self._changed = changed
        self._started = started
        self._is_starting = False

    @property
    def available(self) -> bool | None:
        """Whether a run can be started now, as ``check_action`` returns it: None shows the key disabled."""
        status = self._workbench.session.status
        is_busy = status is not None and status.state != "idle"
        return None if is_busy or self._is_starting else True

    @property
    def is_starting(self) -> bool:
        """Whether a run is about to start."""
        return self._is_starting

    def start(self) -> None:
        """Start a run with the current recipe, after checking that it fits."""
        self._begin(self._start(), asks=True)

    def resume(self, run: RunFolder) -> None:
        """Resume a run from its last checkpoint."""
        self._begin(self._resume(run))

    def _begin(self, work: Coroutine[Any, Any, None], *, asks: bool = False) -> None:
        async def begun() -> None:
            try:
                await work
            finally:
                self._is_starting = False
                self._changed()

        self._is_starting = True
        self._changed()
        self._workbench.attempt(begun(), asks=asks)

    async def _start(self) -> None:
        app, session = self._workbench, self._workbench.session
        await app.start_engine()
        recipe = await start_checks.confirm_fit(app, session.recipe)
        if recipe is None or not await start_checks.confirm_data(app, recipe):
            return
        started = await session.engine.train(train_request(recipe, session.launch))
        self._started(RunFolder(Path(started.folder)), started.seq)

    async def _resume(self, run: RunFolder) -> None:
        await self._workbench.start_engine()
        resumed = await self._workbench.session.engine.resume(resume_request(run.id))
        self._started(run, resumed.seq)
