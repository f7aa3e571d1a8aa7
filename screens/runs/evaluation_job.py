"""An evaluation of a run as a job in the background: the engine does it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from workbench.errors import WorkbenchError
from workbench.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from screens.shell.jobs import Job
    from screens.workbench import Workbench
    from workbench.engine.client.protocol import EvaluateRequest
    from workbench.evaluation.result import Evaluation
    from workbench.runs.folder import RunFolder


async def evaluate_in_engine(
    app: Workbench, run: RunFolder, source: str | None, checkpoints: bool, request_id: str, job: Job
) -> Evaluation:
    """Evaluate a run, telling the job how far it is.

    Args:
        source: the records; None for those that the run held out.
        checkpoints: also evaluate the run's checkpoints.

    Raises:
        WorkbenchError: it cannot be done, or was stopped before anything was found (kind ``cancelled``).
    """
    request = await asyncio.to_thread(_request, run, source, checkpoints)
    await app.start_engine()
    file: Path | None = None
    async with aclosing(app.session.engine.evaluate(request, request_id=request_id)) as answers:
        async for answer in answers:
            if isinstance(answer, Progress):
                job.report(answer)
            else:
                file = answer.file
    if file is None:
        raise WorkbenchError("The engine ended without a message.", "See the engine log.", kind="engine_gone")
    return await asyncio.to_thread(_read, file)


def stop_evaluation(app: Workbench, request_id: str) -> None:
    """Have the engine stop an evaluation; it then saves what can be compared."""
    from workbench.engine.client.protocol import CancelRequest

    app.attempt(app.session.engine.cancel(CancelRequest(id=request_id)))


# These run in a thread: they read files, and import modules that the first frame does not need.


def _request(run: RunFolder, source: str | None, checkpoints: bool) -> EvaluateRequest:
    from workbench.engine.client.evaluation_request import evaluation_request

    return evaluation_request(run, source, checkpoints=checkpoints)


def _read(file: Path) -> Evaluation:
    from workbench.evaluation.result import read_evaluation

    return read_evaluation(file)
