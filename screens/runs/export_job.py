"""An export as a job in the background."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING

from workbench.export.run import export_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from screens.shell.jobs import Job
    from workbench.errors import WorkbenchError
    from workbench.export.request import Exported, Request
    from workbench.runs.folder import RunFolder
    from workbench.storage.paths import Home


async def export_in_background(
    home: Home, run: RunFolder, request: Request, cancelled: threading.Event, job: Job
) -> Exported:
    """Export a run in a thread of its own, telling the job how far it is.

    Raises:
        WorkbenchError: it cannot be made, or was cancelled.
    """
    # What the job tells is shown by widgets, which find their app in the context.
    loop, context = asyncio.get_running_loop(), copy_context()
    made: asyncio.Future[Exported] = loop.create_future()

    def tell(what: Callable[..., object], *arguments: object) -> None:
        # The loop is closed when the app has ended; then nobody listens.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(what, *arguments, context=context)

    def settle(error: WorkbenchError | None, result: Exported | None) -> None:
        if made.done():
            return
        if error is not None:
            made.set_exception(error)
        elif result is not None:
            made.set_result(result)

    def work() -> None:
        try:
            result = export_run(home, run, request, lambda progress: tell(job.report, progress), cancelled.is_set)
        except Exception as error:
            from workbench.failures.diagnose import diagnose

            tell(settle, diagnose(error, "exporting the run", home.terminal_log), None)
        else:
            tell(settle, None, result)

    # A daemon thread: closing the terminal does not wait for it. Its process ends with this one.
    threading.Thread(target=work, daemon=True, name="export").start()
    return await made
