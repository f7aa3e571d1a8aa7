"""The background job that a dialog shows: its progress while it runs, and its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from screens.shell.jobs import Job, Jobs
    from screens.shell.phase_bar import PhaseBar


class ShownJob:
    """Follows one job at a time, which keeps running without the dialog.

    Args:
        jobs: returns the background work of the terminal.
        key: of the job.
        progress: shows how far it is.
        ended: called with a job that is over; it is forgotten then.
        changed: called after news of a job that is not over.
    """

    def __init__(
        self,
        jobs: Callable[[], Jobs],
        key: tuple[str, str],
        progress: PhaseBar,
        ended: Callable[[Job], object],
        changed: Callable[[], object] = lambda: None,
    ) -> None:
        self._jobs = jobs
        self._key = key
        self._progress = progress
        self._ended = ended
        self._changed = changed
        self._job: Job | None = None

    @property
    def is_running(self) -> bool:
        """Whether a job is followed that is not over."""
        return self._job is not None

    @property
    def subject(self) -> object:
        """What the running job tells beside its progress; None without one."""
        return self._job.subject if self._job is not None else None

    def follow(self, job: Job) -> None:
        """Show a job from now on; one that is over already ends at once."""
        self._job = job
        job.watch(self._news)
        self._news(job)

    def stop(self) -> None:
        """Ask the job to end."""
        if self._job is not None:
            self._job.stop()

    def leave(self) -> None:
        """Keep the job running in the background: the dialog closes."""
        if self._job is not None:
            self._job.watch(None)

    def _news(self, job: Job) -> None:
        if not job.is_over:
            if job.progress is not None:
                self._progress.show(job.progress.phase, job.progress.fraction, job.progress.detail)
            self._changed()
            return
        self._job = None
        job.watch(None)
        self._jobs().forget(self._key)
        self._ended(job)
