"""Watching a run from the command line: its journal as it grows, as a progress bar or as JSON lines."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from workbench.commands.common import console, figure, print_json, printable
from workbench.engine.process import last_lines
from workbench.errors import WorkbenchError
from workbench.runs.folder import RunFolder, RunSummary
from workbench.runs.journal import Event, JournalReader

_POLL_SECONDS = 0.1
_ASK_SECONDS = 1.0


async def events_of(run: RunFolder, is_live: Callable[[], Awaitable[bool]]) -> AsyncIterator[Event]:
    """Every event of a run from its first on, until ``run_ended``.

    Args:
        is_live: whether the run is still trained; asked once a second, since a journal on a full disk cannot tell.

    Raises:
        WorkbenchError: the run, or the process that trained it, is gone without an end.
    """
    reader = JournalReader(run.journal)
    summary = RunSummary(run.id)
    is_over, asked = False, time.monotonic()
    while True:
        # Looked at before reading: what a process wrote before it died is still read.
        summary.settle()
        if time.monotonic() - asked >= _ASK_SECONDS:
            is_over, asked = not await is_live(), time.monotonic()
        for event in reader.read():
            summary.add(event)
            yield event
            if event["event"] == "run_ended":
                return
        if summary.state == "interrupted":
            raise WorkbenchError(
                f"The engine ended in the middle of run {run.id}, after step {summary.step}.\n{last_lines(run.log)}",
                f"What was saved is in {run.checkpoints}; `loraworkbench doctor` looks for the cause.",
                kind="engine_died",
            )
        if is_over:
            raise WorkbenchError(
                f"Run {run.id} broke off after step {summary.step}, and its journal does not say why."
                f"\n{last_lines(run.log)}",
                f"Most likely the disk is full: free some space for {run.path}, then start again.",
                kind="run_lost",
            )
        await asyncio.sleep(_POLL_SECONDS)


async def follow(run: RunFolder, is_live: Callable[[], Awaitable[bool]], *, as_json: bool) -> RunSummary:
    """Show a run until it ends: a bar for a person, one event a line for a program.

    Raises:
        WorkbenchError: the run failed, with the journal's own words; or it broke off (see :func:`events_of`).
    """
    summary = RunSummary(run.id)
    if as_json:
        async for event in events_of(run, is_live):
            print_json(event)
            summary.add(event)
    else:
        with _bar() as bar:
            task = bar.add_task("starting", total=None, figures="")
            async for event in events_of(run, is_live):
                summary.add(event)
                _paint(bar, task, event, summary)
    if summary.state == "failed":
        raise WorkbenchError(summary.reason, summary.cure, kind="run_failed")
    return summary


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(width=12)),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TextColumn("{task.fields[figures]}", markup=False, table_column=Column(no_wrap=True)),
        TimeElapsedColumn(),
        console=console,
        transient=False,
        refresh_per_second=4,
    )


def _paint(bar: Progress, task: object, event: Event, summary: RunSummary) -> None:
    match event["event"]:
        case "phase":
            fraction = event.get("fraction")
            bar.update(
                task,  # type: ignore[arg-type]
                description=event["phase"],
                total=None if fraction is None else 1.0,
                completed=fraction or 0.0,
                figures=printable(event.get("detail", ""))[:60],
            )
        case "step":
            bar.update(
                task,  # type: ignore[arg-type]
                description="training",
                total=summary.max_steps,
                completed=summary.step,
                figures=f"step {summary.step}/{summary.max_steps} · loss {figure(event.get('loss'), 3)} · "
                f"{event.get('tokens_per_second') or 0:.0f} tok/s · {remaining(event.get('eta_seconds'))} left",
            )
        case "eval":
            bar.console.print(
                f"held-out perplexity {figure(event['perplexity'])} "
                f"({'before training' if event['step'] == 0 else 'after step ' + str(event['step'])}, "
                f"{event['records']} records, {event['tokens']} tokens)"
            )
        case "warning":
            bar.console.print("warning:", printable(event["message"]), markup=False)


def remaining(seconds: float | None) -> str:
    """``4:12`` or ``1:04:12``."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
