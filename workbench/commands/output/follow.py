"""Follows the journal of a run on the command line, as a progress bar, as lines, or as JSON."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal, Protocol, Self

from workbench.commands.common import console, figure, print_json
from workbench.commands.output.bar import RunBar
from workbench.commands.output.lines import RunLines
from workbench.engine.client.process import exit_code, last_lines
from workbench.errors import WorkbenchError
from workbench.failures.diagnose import explain_death
from workbench.machine.oom_killer import kills_since, oom_kills
from workbench.runs.events import AnyEvent, to_fields
from workbench.runs.folder import RunFolder
from workbench.runs.journal import JournalReader
from workbench.runs.replay import Replay
from workbench.runs.summary import RunSummary

_POLL_SECONDS = 0.1
_CHECK_SECONDS = 1.0

Form = Literal["bar", "lines", "json"]


class Display(Protocol):
    """Shows the events of a run; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, event: AnyEvent, summary: RunSummary) -> None:
        """Show an event; ``summary`` already includes it."""


def form_of(*, as_json: bool, watch: bool) -> Form:
    """The output form: lines if requested, or if a bar cannot be drawn (file, pipe, dumb terminal)."""
    if as_json:
        return "json"
    return "lines" if watch or not console.is_terminal or console.is_dumb_terminal else "bar"


async def events_of(
    run: RunFolder, is_live: Callable[[], Awaitable[bool]], *, after: int = -1
) -> AsyncIterator[tuple[AnyEvent, RunSummary]]:
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


async def follow(
    run: RunFolder,
    is_live: Callable[[], Awaitable[bool]],
    form: Form,
    *,
    after: int = -1,
    show_from: int = 0,
) -> RunSummary:
    """Show a run until it ends.

    Args:
        after: see :func:`events_of`.
        show_from: the number of the first event to show; earlier ones only update the summary.

    Raises:
        WorkbenchError: the run failed, with the journal's message; or it was interrupted (see :func:`events_of`).
    """
    summary = RunSummary(run.id)
    with _DISPLAYS[form]() as display:
        async for event, summary in events_of(run, is_live, after=after):
            if event.seq >= show_from:
                display.show(event, summary)
    if summary.state == "failed":
        raise WorkbenchError(summary.reason, summary.cure, kind="run_failed")
    return summary


class _JsonLines:
    """Prints the journal's events as JSON lines."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, event: AnyEvent, summary: RunSummary) -> None:
        print_json(to_fields(event))


_DISPLAYS: dict[Form, Callable[[], Display]] = {"bar": RunBar, "lines": RunLines, "json": _JsonLines}


def summary_line(summary: RunSummary) -> str:
    """A run in one line: ``run-01 running, step 120/200, loss 0.412, held-out perplexity 20.1 → 3.2``."""
    steps = f"step {summary.step}/{summary.max_steps}" if summary.max_steps else f"step {summary.step}"
    loss = f"loss {figure(summary.loss, 3)}" if summary.loss is not None else ""
    perplexities = [figure(summary.perplexity[name]) for name in ("base", "tuned") if summary.perplexity.get(name)]
    perplexity = f"held-out perplexity {' → '.join(perplexities)}" if perplexities else ""
    preference = f"held-out preference accuracy {summary.preference:.0%}" if summary.preference is not None else ""
    return ", ".join(part for part in (f"{summary.id} {summary.state}", steps, loss, perplexity, preference) if part)
