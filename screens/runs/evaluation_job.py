"""Evaluations of a run as jobs in the background: on records or tasks by the engine, or by a judge."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.engine.client.protocol import CancelRequest, TaskSettings
from workbench.errors import WorkbenchError
from workbench.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from screens.shell.jobs import Job
    from screens.workbench import Workbench
    from workbench.engine.client.protocol import EvaluateRequest
    from workbench.evaluation.judge import Judge, Outcome
    from workbench.evaluation.result import Evaluation
    from workbench.runs.folder import RunFolder
    from workbench.storage.paths import Home


_SECONDS = 1.0


@dataclass(frozen=True)
class Wanted:
    """What to evaluate on.

    Attributes:
        source: the records; None for those that the run held out.
        checkpoints: also evaluate the run's checkpoints.
        tasks: names of lm-eval's tasks, in the place of records.
    """

    source: str | None = None
    checkpoints: bool = False
    tasks: tuple[str, ...] = ()


async def evaluate_in_engine(app: Workbench, run: RunFolder, wanted: Wanted, request_id: str, job: Job) -> str:
    """Evaluate a run, telling the job how far it is. While a run is live it waits for its end.

    Returns:
        How it ended, as a sentence.

    Raises:
        WorkbenchError: it cannot be done, or was stopped before anything was found (kind ``cancelled``).
    """
    request = await asyncio.to_thread(_request, run, wanted)
    while True:
        await _until_no_run_is_live(app, job)
        await app.start_engine()
        try:
            file = await _evaluated(app, request, request_id, job)
            break
        except WorkbenchError as error:
            # The next queued run may have started in between.
            if error.kind != "busy" or not app.session.is_live:
                raise
    if file is None:
        raise WorkbenchError("The engine ended without a message.", "See the engine log.", kind="engine_gone")
    is_stopped = not wanted.tasks and await asyncio.to_thread(_was_stopped, file)
    stopped = "Stopped; what was found is saved" if is_stopped else "Saved"
    return f"{stopped} in the run folder. Report: {run.id}/report.md"


async def _until_no_run_is_live(app: Workbench, job: Job) -> None:
    """Wait for the live run, and for those queued after it, to end."""
    session = app.session
    while session.is_live:
        name = session.names.of(str(session.status.run)) if session.status is not None else "the run"
        job.wait_for(f"waiting for {name} to end")
        await asyncio.sleep(_SECONDS)


async def _evaluated(app: Workbench, request: EvaluateRequest, request_id: str, job: Job) -> Path | None:
    file: Path | None = None
    async with aclosing(app.session.engine.evaluate(request, request_id=request_id)) as answers:
        async for answer in answers:
            if isinstance(answer, Progress):
                job.report(answer)
            else:
                file = answer.file
    return file


def stop_evaluation(app: Workbench, request_id: str) -> None:
    """Have the engine stop an evaluation; it then saves what can be compared."""
    app.attempt(app.session.engine.cancel(CancelRequest(id=request_id)))


class JudgeComparison:
    """Has the judge of the settings compare the replies of a run's newest evaluation."""

    def __init__(self, home: Home, run: RunFolder) -> None:
        self._home = home
        self._run = run
        self._task: asyncio.Task[Outcome] | None = None
        self._is_stopped = False

    async def work(self, job: Job) -> str:
        """Have the replies compared, and save the ratings.

        Returns:
            How it ended, as a sentence.

        Raises:
            WorkbenchError: there is no judge, or nothing to compare, or it was stopped (kind ``cancelled``).
        """
        from workbench.evaluation.judge import judge_replies

        judge, evaluation = await asyncio.to_thread(_judge_and_replies, self._home, self._run)
        self._task = asyncio.ensure_future(judge_replies(judge, evaluation, job.report))
        if self._is_stopped:
            self._task.cancel()
        try:
            outcome = await self._task
        except asyncio.CancelledError:
            if not self._is_stopped:
                raise
            raise WorkbenchError("Stopped; no rating is saved.", kind="cancelled") from None
        await asyncio.to_thread(_save, self._home, self._run, outcome)
        lacking = f"; {outcome.unreadable} answers without a verdict" if outcome.unreadable else ""
        return f"{judge.model} compared {len(outcome.ratings)} pairs{lacking}. Report: {self._run.id}/report.md"

    def stop(self) -> None:
        """Stop the comparison."""
        self._is_stopped = True
        if self._task is not None:
            self._task.cancel()


# These run in a thread: they read files, and import modules that the first frame does not need.


def _request(run: RunFolder, wanted: Wanted) -> EvaluateRequest:
    from workbench.engine.client.evaluation_request import evaluation_request

    tasks = TaskSettings(names=list(wanted.tasks)) if wanted.tasks else None
    return evaluation_request(run, wanted.source, checkpoints=wanted.checkpoints, tasks=tasks)


def _was_stopped(file: Path) -> bool:
    from workbench.evaluation.result import read_evaluation

    return read_evaluation(file).planned is not None


def _judge_and_replies(home: Home, run: RunFolder) -> tuple[Judge, Evaluation]:
    from workbench.evaluation.judge import configured_judge
    from workbench.evaluation.result import newest_evaluation

    judge, evaluation = configured_judge(home), newest_evaluation(run)
    if evaluation is None:
        raise WorkbenchError(
            "There are no replies to compare yet.", "Press Enter to evaluate first.", kind="no_replies"
        )
    return judge, evaluation


def _save(home: Home, run: RunFolder, outcome: Outcome) -> None:
    from workbench.evaluation.preferences import add_ratings
    from workbench.evaluation.report import write_report

    add_ratings(run, outcome.ratings)
    write_report(home, run)
