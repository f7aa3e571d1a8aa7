"""Replies sampled in a live run as a job: how far they are, how they are stopped, and what came of them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from screens.shell.sampled_replies import RepliesScreen
from workbench.engine.client.protocol import ControlRequest
from workbench.errors import WorkbenchError
from workbench.progress import Progress
from workbench.runs.events import Control

if TYPE_CHECKING:
    from screens.shell.jobs import Job
    from screens.workbench import Workbench
    from workbench.runs.events import Sample
    from workbench.runs.live_run import LiveRun

_SECONDS = 0.5
_PHASE = "sampling"
# The requests after which the replies are in the journal, or will not be.
_DONE = ("sample", "stop_sampling")


def follow_sampling(app: Workbench, live: LiveRun, after: int) -> Job:
    """Follow sampling that was requested of a live run, as a job.

    Args:
        after: the number of the journal's last event before the request.
    """
    stopped = asyncio.Event()
    return app.jobs.start(
        (_PHASE, str(live.run.path)),
        f"sampling of {app.session.names.of(live.run.id)}",
        partial(_sampled, app, live, after, stopped),
        partial(_stop, app, stopped),
        open_result=lambda: _open(app, live),
        describe=_words,
    )


async def _sampled(app: Workbench, live: LiveRun, after: int, stopped: asyncio.Event, job: Job) -> Sample:
    """Wait until the journal has the replies, which the app reads.

    Raises:
        WorkbenchError: sampling was stopped (kind ``cancelled``), or the run ended before it.
    """
    while True:
        run = live.replay
        if run.samples and run.samples[-1].seq > after:
            return run.samples[-1]
        done = run.last_request
        is_done = isinstance(done, Control) and done.action in _DONE and done.seq > after
        if stopped.is_set() and (is_done or run.is_over):
            raise WorkbenchError("Sampling was stopped.", kind="cancelled")
        if is_done:
            raise WorkbenchError("No replies were sampled.", "The notices on Train say why.")
        if run.is_over:
            raise WorkbenchError("The run ended before its replies were sampled.", "Ask it on Chat.")
        status = app.session.status
        progress = status.progress if status is not None else None
        is_begun = progress is not None and progress.phase == _PHASE
        job.report(progress if is_begun and progress is not None else Progress(phase="after this step"))
        await asyncio.sleep(_SECONDS)


def _stop(app: Workbench, stopped: asyncio.Event) -> None:
    stopped.set()
    app.attempt(app.session.engine.control(ControlRequest(action="stop_sampling")))


def _words(sample: Sample) -> str:
    count = len(sample.replies)
    return f"{count} repl{'y' if count == 1 else 'ies'} at step {sample.step}."


def _open(app: Workbench, live: LiveRun) -> None:
    """Show the replies; without any, the run."""
    if live.replay.samples:
        app.push_screen(RepliesScreen(live))
    else:
        app.attempt(app.action_show_tab("train"))
