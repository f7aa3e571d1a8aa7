"""Work in the background: exports and evaluations keep running while other tabs and dialogs are used."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from textual.content import Content
from textual.widget import Widget

from screens.widgets.glyphs import GLYPHS, bar
from screens.widgets.plain import plain
from workbench.errors import WorkbenchError
from workbench.units import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from workbench.progress import Progress

_BAR_WIDTH = 16


class Job:
    """One piece of work, and how far it is.

    Attributes:
        title: what is done, such as "export of demo-01".
        progress: the newest; None before the first.
        result, error: how it ended; both are None until then, and if it was stopped.

    Args:
        stop: asks the work to end.
        changed: called when there is news.
    """

    def __init__(self, title: str, stop: Callable[[], object], changed: Callable[[Job], None]) -> None:
        self.title = title
        self.progress: Progress | None = None
        self.result: Any = None
        self.error: WorkbenchError | None = None
        self.is_over = False
        self._stop = stop
        self._changed = changed
        self._watcher: Callable[[Job], object] | None = None

    @property
    def is_watched(self) -> bool:
        """Whether a dialog shows it."""
        return self._watcher is not None

    def watch(self, watcher: Callable[[Job], object] | None) -> None:
        """Call a dialog with each news, instead of the one before; None: it is closed."""
        self._watcher = watcher

    def report(self, progress: Progress) -> None:
        """Take newer progress."""
        if not self.is_over:
            self.progress = progress
            self._tell()

    def stop(self) -> None:
        """Ask the work to end."""
        self._stop()

    async def run(self, work: Callable[[Job], Coroutine[Any, Any, object]]) -> None:
        """Do the work to its end."""
        try:
            self.result = await work(self)
        except WorkbenchError as error:
            self.error = error
        finally:
            self.is_over = True
            self._tell()

    def _tell(self) -> None:
        self._changed(self)
        if self._watcher is not None:
            self._watcher(self)


class Jobs:
    """The background work of one terminal, by key; a finished job stays until its result was shown.

    Args:
        run: runs a coroutine in a worker of the app.
        notify: shows a message.
        changed: called when the lines of the jobs are others.
    """

    def __init__(
        self,
        run: Callable[[Coroutine[Any, Any, None]], object],
        notify: Callable[[str, bool], object],
        changed: Callable[[], object],
    ) -> None:
        self._run = run
        self._notify = notify
        self._shown = changed
        self._by_key: dict[tuple[str, str], Job] = {}

    @property
    def running(self) -> list[Job]:
        """The jobs that are not over, oldest first."""
        return [job for job in self._by_key.values() if not job.is_over]

    def get(self, key: tuple[str, str]) -> Job | None:
        """Return the job of a key, running or over."""
        return self._by_key.get(key)

    def start(
        self,
        key: tuple[str, str],
        title: str,
        work: Callable[[Job], Coroutine[Any, Any, object]],
        stop: Callable[[], object],
    ) -> Job:
        """Begin a job, in the place of an earlier one with its key."""
        job = self._by_key[key] = Job(title, stop, self._news)
        self._run(job.run(work))
        self._shown()
        return job

    def forget(self, key: tuple[str, str]) -> None:
        """Drop a job whose result was shown."""
        self._by_key.pop(key, None)

    def stop_all(self) -> None:
        """Ask all work to end: the app closes."""
        for job in self.running:
            with suppress(WorkbenchError):
                job.stop()

    def _news(self, job: Job) -> None:
        self._shown()
        if job.is_over and not job.is_watched:
            if job.error is None:
                self._notify(f"{_capital(job.title)} is finished; open it in Runs to see the result.", False)
            elif job.error.kind != "cancelled":
                self._notify(f"{_capital(job.title)} failed: {job.error.message}", True)


class JobsLine(Widget):
    """A line for each job in the background."""

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
        lines = Content("\n").join([_line(job) for job in jobs])
        if self.is_attached and not lines.is_same(self._lines):
            taller = len(jobs) != self._lines.plain.count("\n") + 1
            self._lines = lines
            self.set_class(bool(jobs), "-busy")
            self.refresh(layout=taller)

    def render(self) -> Content:
        return self._lines


def _line(job: Job) -> Content:
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


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
