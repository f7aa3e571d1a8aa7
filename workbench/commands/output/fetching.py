"""Shows the progress of a download or conversion on stderr, so that stdout has only the command's output."""

from typing import Self

from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.text import Text

from workbench.commands.common import errors, printable
from workbench.progress import Progress


class FetchBar:
    """A context manager with a progress bar that :meth:`show` updates.

    Nothing is shown before the first progress. If stderr is not a terminal, each phase is printed as a line.
    """

    def __init__(self) -> None:
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=errors,
            refresh_per_second=4,
            transient=True,
        )
        self._task = self._bars.add_task("", total=None)
        self._phase = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars.live.is_started:  # otherwise stopping it would print an empty line
            self._bars.stop()

    def show(self, progress: Progress) -> None:
        """Update the bar."""
        label = printable(f"{progress.phase} {progress.detail}".strip())
        if not errors.is_terminal:
            if progress.phase != self._phase:
                errors.print(Text(f"{label} …"))
            self._phase = progress.phase
            return
        self._bars.start()
        self._bars.update(
            self._task,
            description=label[:60],
            total=None if progress.fraction is None else 1.0,
            # A full bar would stop the clock, and the next phase may follow.
            completed=min(progress.fraction or 0.0, 0.999),
        )
