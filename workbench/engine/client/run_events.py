"""Reads the events of a run as they are written, until it ends; explains an end that its journal does not record."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress

from workbench.engine.client.client import EngineClient
from workbench.engine.client.process import exit_code, last_lines
from workbench.errors import WorkbenchError
from workbench.failures.diagnose import explain_death
from workbench.machine.oom_killer import kills_since, oom_kills
from workbench.runs.events import AnyEvent
from workbench.runs.folder import RunFolder
from workbench.runs.journal import JournalReader
from workbench.runs.replay import Replay
from workbench.runs.summary import RunSummary

_POLL_SECONDS = 0.1
_CHECK_SECONDS = 1.0
_RELEASE_SECONDS = 0.05


async def events_of(
    run: RunFolder, is_live: Callable[[], Awaitable[bool]], *, after: int = -1
) -> AsyncGenerator[tuple[AnyEvent, RunSummary], None]:
    """All events of a run, each with the summary up to it, until the run has ended.

    Args:
        is_live: whether the run is still training; checked once a second, as a full disk stops the journal.
        after: number of the last event before the run was resumed; earlier ends of the run are ignored.

    Raises:
        WorkbenchError: the run or its process ended without recording it in the journal.
    """
    reader = JournalReader(run.journal)
    replay = Replay(run.id)
    summary = replay.summary
    seq, is_over, checked, kills = -1, False, time.monotonic(), oom_kills()
    while True:
        if time.monotonic() - checked >= _CHECK_SECONDS:
            is_over, checked = not await is_live(), time.monotonic()
        # After asking the engine, as one that does not answer may have died; before reading, so that the last events of
        # a process that died are still read.
        summary.settle()
        for events in reader.blocks():
            for event in events:
                replay.add(event)
                seq = replay.seq
                yield event, summary
        if seq > after and summary.ended is not None:
            return
        if seq > after and summary.state == "interrupted":
            raise _engine_died(run, summary, kills_since(kills))
        if is_over:
            raise WorkbenchError(
                f"Run {run.id} ended after step {summary.step}; its journal does not say why.\n{last_lines(run.log)}",
                f"The disk is probably full: free some space for {run.path}, then run `loraworkbench "
                f"train --resume {run.id}`.",
                kind="run_lost",
            )
        await asyncio.sleep(_POLL_SECONDS)


def _engine_died(run: RunFolder, summary: RunSummary, kills: int | None) -> WorkbenchError:
    """Explain why a run has no end; ``kills`` as in :func:`workbench.failures.diagnose.explain_death`."""
    log = last_lines(run.log)
    died = explain_death(exit_code(summary.writer[0]) if summary.writer else None, log, oom_kills=kills)
    return WorkbenchError(
        f"The engine ended during run {run.id}, after step {summary.step}. {died.message}\n{log}",
        f"{died.cure} `loraworkbench train --resume {run.id}` resumes it from its last checkpoint.",
        kind="engine_died",
    )


async def wait_until_released(client: EngineClient, run: str) -> None:
    """Wait until the engine is ready for other work: a journal ends a moment before."""
    with suppress(WorkbenchError):
        while (await client.status()).run == run:
            await asyncio.sleep(_RELEASE_SECONDS)
