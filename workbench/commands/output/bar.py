"""A run as a progress bar, for a person at a terminal that can redraw a line."""

from typing import Self

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from workbench.commands.common import console, figure, printable
from workbench.commands.output.lines import one_line, reasons, remaining, told
from workbench.runs.events import (
    AnyEvent,
    Control,
    Eval,
    Hint,
    Paused,
    Phase,
    Resumed,
    RunResumed,
    RunWarning,
    Sample,
    Step,
)
from workbench.runs.summary import RunSummary

# What is said above the bar; the rest is in it.
_SAID = RunResumed | Control | Paused | Resumed | Sample | RunWarning | Hint


class RunBar:
    """One line that moves, and the lines above it that stay."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(width=12)),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("{task.fields[figures]}", markup=False, table_column=Column(no_wrap=True)),
            TimeElapsedColumn(),
            console=console,
            transient=False,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task("starting", total=None, figures="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, event: AnyEvent, summary: RunSummary) -> None:
        """Move the bar, or say something above it."""
        match event:
            case Phase():
                self._bar.update(
                    self._task,
                    description=printable(event.phase),
                    total=None if event.fraction is None else 1.0,
                    completed=event.fraction or 0.0,
                    figures=printable(event.detail)[:60],
                )
                for words in reasons(event):
                    self._say(one_line(words))
            case Step():
                self._bar.update(
                    self._task,
                    description="training",
                    total=summary.max_steps,
                    completed=summary.step,
                    figures=f"step {summary.step}/{summary.max_steps} · loss {figure(event.loss, 3)} · "
                    f"{event.tokens_per_second or 0:.0f} tok/s · {remaining(event.eta_seconds)} left",
                )
            case Eval():
                self._say(
                    f"held-out perplexity {figure(event.perplexity)} "
                    f"({'before training' if event.step == 0 else 'after step ' + str(event.step)}, "
                    f"{event.records} records, {event.tokens} tokens)"
                )
            case _ if isinstance(event, _SAID):
                for words in told(event, summary):
                    self._say(one_line(words))

    def _say(self, words: str) -> None:
        self._bar.console.print(words, markup=False)
