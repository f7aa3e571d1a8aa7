"""Shows a run as a progress bar, for terminals that can redraw a line."""

from typing import Self

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from workbench.commands.common import console, figure, printable
from workbench.commands.output.lines import event_lines, held_out_figures, one_line, reasons, remaining
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

# Events printed above the bar; the others update it.
_PRINTED = RunResumed | Control | Paused | Resumed | Sample | RunWarning | Hint


class RunBar:
    """A progress bar with lasting lines above it."""

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
        """Update the bar, or print a line above it."""
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
                    self._print(one_line(words))
            case Step():
                self._bar.update(
                    self._task,
                    description="training",
                    total=summary.max_steps,
                    completed=summary.step,
                    figures=f"step {summary.step}/{summary.max_steps} · loss {figure(event.loss, 3)} · "
                    f"{_margin(event)}"
                    f"{event.tokens_per_second or 0:.0f} tok/s · {remaining(event.eta_seconds)} left",
                )
            case Eval():
                when = "before training" if event.step == 0 else f"after step {event.step}"
                tokens = f", {event.tokens} tokens" if event.tokens else ""
                self._print(f"held-out {held_out_figures(event)} ({when}, {event.records} records{tokens})")
            case _ if isinstance(event, _PRINTED):
                for words in event_lines(event, summary):
                    self._print(one_line(words))

    def _print(self, words: str) -> None:
        self._bar.console.print(words, markup=False)


def _margin(event: Step) -> str:
    return f"margin {figure(event.rewards['margin'], 2)} · " if event.rewards is not None else ""
