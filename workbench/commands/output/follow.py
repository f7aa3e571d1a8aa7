"""Watching a run from the command line: its journal as it grows, as a progress bar, as lines, or as JSON."""

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
_ASK_SECONDS = 1.0

Form = Literal["bar", "lines", "json"]


class Display(Protocol):
    """Shows a run to somebody, event by event; a context manager while it does."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, event: AnyEvent, summary: RunSummary) -> None:
        """Show one event; ``summary`` has it in it already."""


def form_of(*, as_json: bool, watch: bool) -> Form:
    """Lines where they were asked for, and where a bar could not be drawn: in a file, a pipe, a dumb terminal."""
    if as_json:
        return "json"
    return "lines" if watch or not console.is_terminal or console.is_dumb_terminal else "bar"


async def events_of(
    run: RunFolder, is_live: Callable[[], Awaitable[bool]], *, after: int = -1
) -> AsyncIterator[tuple[AnyEvent, RunSummary]]:
    """Every event of a run from its first on, each with the summary up to it, until it has ended.

    A resumed run has an earlier end in its journal, which is not its last.

    Args:
        is_live: whether the run is still trained; asked once a second, since a journal on a full disk cannot tell.
        after: number of the last event before the run was resumed; no end up to there counts.

    Raises:
        WorkbenchError: the run, or the process that trained it, is gone without an end.
    """
    reader = JournalReader(run.journal)
    replay = Replay(run.id)
    summary = replay.summary
    seq, is_over, asked, kills = -1, False, time.monotonic(), oom_kills()
    while True:
        # Looked at before reading: what a process wrote before it died is still read.
        summary.settle()
        if time.monotonic() - asked >= _ASK_SECONDS:
            is_over, asked = not await is_live(), time.monotonic()
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
    """Why a run has no end; ``kills``: as in :func:`workbench.failures.diagnose.explain_death`."""
    said = last_lines(run.log)
    died = explain_death(exit_code(summary.writer[0]) if summary.writer else None, said, oom_kills=kills)
    return WorkbenchError(
        f"The engine ended during run {run.id}, after step {summary.step}. {died.message}\n{said}",
        f"{died.cure} `loraworkbench train --resume {run.id}` resumes it from its last checkpoint.",
        kind="engine_died",
    )


async def follow(
    run: RunFolder,
    is_live: Callable[[], Awaitable[bool]],
    form: Form,
    *,
    after: int = -1,
    told_from: int = 0,
) -> RunSummary:
    """Show a run until it ends.

    Args:
        after: see :func:`events_of`.
        told_from: the number of the first event that is shown; those before it only count.

    Raises:
        WorkbenchError: the run failed, with the journal's own words; or it broke off (see :func:`events_of`).
    """
    summary = RunSummary(run.id)
    with _DISPLAYS[form]() as display:
        async for event, summary in events_of(run, is_live, after=after):
            if event.seq >= told_from:
                display.show(event, summary)
    if summary.state == "failed":
        raise WorkbenchError(summary.reason, summary.cure, kind="run_failed")
    return summary


class _JsonLines:
    """The journal as it is."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, event: AnyEvent, summary: RunSummary) -> None:
        print_json(to_fields(event))


_DISPLAYS: dict[Form, Callable[[], Display]] = {"bar": RunBar, "lines": RunLines, "json": _JsonLines}


def in_short(summary: RunSummary) -> str:
    """A run so far in one line: ``run-01 running, step 120/200, loss 0.412, held-out perplexity 20.1 → 3.2``."""
    steps = f"step {summary.step}/{summary.max_steps}" if summary.max_steps else f"step {summary.step}"
    loss = f"loss {figure(summary.loss, 3)}" if summary.loss is not None else ""
    perplexities = [figure(summary.perplexity[name]) for name in ("base", "tuned") if summary.perplexity.get(name)]
    perplexity = f"held-out perplexity {' → '.join(perplexities)}" if perplexities else ""
    return ", ".join(part for part in (f"{summary.id} {summary.state}", steps, loss, perplexity) if part)
