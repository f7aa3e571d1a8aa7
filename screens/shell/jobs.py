"""Work in the background: downloads, counts, exports and evaluations run while other tabs and dialogs are used."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from screens.widgets.key_texts import key
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from textual.worker import Worker

    from workbench.progress import Progress

JobState = Literal["waiting", "running", "finished", "failed", "stopped"]

_KEPT = 50

# A minor job has no line before it has taken this long.
_SECONDS_UNSEEN = 2.0


class Job:
    """One piece of work, and how far it is.

    Attributes:
        title: what is done, such as "export of demo-01".
        progress: the newest; None before the first.
        result, error: how it ended; both are None until then, and if it was stopped.
        is_minor: whether it is seldom of interest: its end is not announced, and its line appears late.
        started, ended: seconds of the monotonic clock; ``ended`` is None until then.

    Args:
        stop: asks the work to end; by default it is cancelled.
        changed: called when there is news.
        open_result: shows the result, or what the job is about.
        describe: the result in a few words.
        subject: what a dialog of the job shows besides, while it runs.
    """

    def __init__(
        self,
        title: str,
        stop: Callable[[], object] | None,
        changed: Callable[[Job], None],
        *,
        open_result: Callable[[], object] | None = None,
        describe: Callable[[Any], str] = lambda _: "",
        is_minor: bool = False,
        subject: object = None,
    ) -> None:
        self.title = title
        self.subject = subject
        self.progress: Progress | None = None
        self.result: Any = None
        self.error: WorkbenchError | None = None
        self.is_minor = is_minor
        self.open_result = open_result
        self.started = monotonic()
        self.ended: float | None = None
        self.worker: Worker[None] | None = None
        self._describe = describe
        self._is_waiting = self._has_begun = False
        self._stop = stop
        self._changed = changed
        self._watcher: Callable[[Job], object] | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.ended is not None

    @property
    def state(self) -> JobState:
        """How it is, in a word."""
        if not self.is_over:
            return "waiting" if self._is_waiting else "running"
        if self.error is not None and self.error.kind != "cancelled":
            return "failed"
        return "stopped" if self.error is not None or self.result is None else "finished"

    @property
    def outcome(self) -> str:
        """The result or the error in a sentence; empty until it is over."""
        if self.error is not None and self.error.kind != "cancelled":
            return f"{self.error.message} {self.error.cure or ''}".strip()
        return "" if self.result is None else self._describe(self.result)

    @property
    def seconds(self) -> float:
        """How long it has run, or ran."""
        return (self.ended if self.ended is not None else monotonic()) - self.started

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
            self._is_waiting = False
            self.progress = progress
            self._tell()

    def wait_for(self, what: str) -> None:
        """Say what it waits for until it can begin."""
        if not self.is_over and not (self._is_waiting and self.progress is not None and self.progress.phase == what):
            from workbench.progress import Progress

            self._is_waiting, self.progress = True, Progress(phase=what)
            self._tell()

    def stop(self) -> None:
        """Ask the work to end; what still waits is cancelled."""
        if self._stop is not None and not self._is_waiting:
            self._stop()
        elif self.worker is not None:
            self.worker.cancel()
            if not self._has_begun:
                self.ended = monotonic()
                self._tell()

    async def run(self, work: Callable[[Job], Coroutine[Any, Any, object]]) -> None:
        """Do the work to its end."""
        self._has_begun = True
        try:
            self.result = await work(self)
        except WorkbenchError as error:
            self.error = error
        finally:
            self.ended = monotonic()
            self._tell()

    def _tell(self) -> None:
        self._changed(self)
        if self._watcher is not None:
            self._watcher(self)


class Jobs:
    """The background work of one terminal, oldest first; what is over stays in the list until it is removed.

    Args:
        run: runs a function that returns a coroutine, in a worker of the app.
        notify: shows a message.
        changed: called when there is news of any job.
    """

    def __init__(
        self,
        run: Callable[[Callable[[], Coroutine[Any, Any, None]]], Worker[None]],
        notify: Callable[[str, bool], object],
        changed: Callable[[], object],
    ) -> None:
        self._run = run
        self._notify = notify
        self._shown = changed
        self._by_key: dict[tuple[str, str], Job] = {}
        self._all: list[Job] = []

    @property
    def all(self) -> list[Job]:
        """All jobs, oldest first; of the minor ones those that run or went wrong."""
        return [job for job in self._all if not job.is_minor or not job.is_over or job.state == "failed"]

    @property
    def running(self) -> list[Job]:
        """The jobs that are not over, oldest first."""
        return [job for job in self._all if not job.is_over]

    @property
    def in_view(self) -> list[Job]:
        """The running jobs that have a line."""
        return [job for job in self.running if not job.is_minor or job.seconds > _SECONDS_UNSEEN]

    def get(self, key: tuple[str, str]) -> Job | None:
        """Return the job of a key, running or over, unless its result was shown."""
        return self._by_key.get(key)

    def start(
        self,
        key: tuple[str, str],
        title: str,
        work: Callable[[Job], Coroutine[Any, Any, object]],
        stop: Callable[[], object] | None = None,
        *,
        open_result: Callable[[], object] | None = None,
        describe: Callable[[Any], str] = lambda _: "",
        is_minor: bool = False,
        subject: object = None,
    ) -> Job:
        """Begin a job, in the place of an earlier one with its key. See :class:`Job` for the arguments."""
        job = Job(
            title,
            stop,
            self._news,
            open_result=open_result,
            describe=describe,
            is_minor=is_minor,
            subject=subject,
        )
        self._by_key[key] = job
        over = [one for one in self._all if one.is_over]
        self._all = [one for one in self._all if one not in over[: max(0, len(over) - _KEPT)]]
        self._all.append(job)
        job.worker = self._run(partial(job.run, work))
        self._shown()
        return job

    def forget(self, key: tuple[str, str]) -> None:
        """Drop the key of a job whose result was shown; the list keeps the job."""
        self._by_key.pop(key, None)

    def remove(self, job: Job) -> None:
        """Take a job that is over out of the list."""
        if job.is_over:
            self._all = [one for one in self._all if one is not job]
            self._by_key = {key: one for key, one in self._by_key.items() if one is not job}

    def stop_all(self) -> None:
        """Ask all work to end: the app closes."""
        for job in self.running:
            with suppress(WorkbenchError):
                job.stop()

    def _news(self, job: Job) -> None:
        self._shown()
        if not job.is_over or job.is_watched or job.is_minor:
            return
        if job.state == "finished":
            self._notify(f"{_capital(job.title)} is finished. {key('app.jobs')} lists it with its result.", False)
        elif job.state == "failed" and job.error is not None:
            self._notify(f"{_capital(job.title)} failed: {job.error.message}", True)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
