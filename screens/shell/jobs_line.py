"""The lines of running jobs above the run bar: ``export of demo-01 ▕███   ▏ merging · 61 % · ETA 00:40``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

from screens.widgets.glyphs import GLYPHS, bar
from screens.widgets.plain import plain
from workbench.units import clock

if TYPE_CHECKING:
    from screens.shell.jobs import Job

_BAR_WIDTH = 16


class JobsLine(Widget):
    """A line for each running job. A click opens the list of jobs."""

    DEFAULT_CSS = """
    JobsLine { height: auto; display: none; background: $panel; padding: 0 1; text-wrap: nowrap;
        text-overflow: ellipsis; }
    JobsLine.-busy { display: block; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines = Content("")

    def show(self, jobs: list[Job]) -> None:
        """Show these jobs; each change of a percentage is sent to the terminal, and no more."""
        lines = Content("\n").join([job_line(job) for job in jobs])
        if self.is_attached and not lines.is_same(self._lines):
            taller = len(jobs) != self._lines.plain.count("\n") + 1
            self._lines = lines
            self.set_class(bool(jobs), "-busy")
            self.refresh(layout=taller)

    def render(self) -> Content:
        return self._lines

    async def on_click(self) -> None:
        await self.run_action("app.jobs")


def job_line(job: Job) -> Content:
    """Return a job with a bar, its phase, its percentage and the time that is left."""
    progress = job.progress
    fraction = progress.fraction if progress else None
    parts = [progress.phase if progress else "starting", "" if fraction is None else f"{fraction:.0%}"]
    if progress and progress.eta_seconds:
        parts.append(f"ETA {clock(progress.eta_seconds)}")
    words = f" {GLYPHS.separator} ".join(part for part in parts if part)
    return Content.assemble(
        (f"{plain(job.title)} ", "bold"),
        (GLYPHS.left, "$muted"),
        (bar(fraction or 0.0, _BAR_WIDTH), "$accent on $panel"),
        (f"{GLYPHS.right} ", "$muted"),
        plain(words),
    )
