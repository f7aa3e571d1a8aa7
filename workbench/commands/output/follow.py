"""Follows the journal of a run on the command line, as a progress bar, as lines, or as JSON."""

from collections.abc import Awaitable, Callable
from typing import Literal, Protocol, Self

from workbench.commands.common import console, figure, print_json
from workbench.commands.output.bar import RunBar
from workbench.commands.output.lines import RunLines
from workbench.engine.client.run_events import events_of
from workbench.errors import WorkbenchError
from workbench.runs.events import AnyEvent, to_fields
from workbench.runs.folder import RunFolder
from workbench.runs.summary import RunSummary

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
    accuracy = f"held-out accuracy {summary.accuracy:.0%}" if isinstance(summary.accuracy, float) else ""
    parts = (f"{summary.id} {summary.state}", steps, loss, perplexity, preference, accuracy)
    return ", ".join(part for part in parts if part)
