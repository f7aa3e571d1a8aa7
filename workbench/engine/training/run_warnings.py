"""Warnings of a run, written into its journal."""

from workbench.runs.events import RunWarning
from workbench.runs.journal import JournalWriter


class RunWarnings:
    """Writes warnings into a run's journal."""

    def __init__(self, journal: JournalWriter) -> None:
        self._journal = journal
        self._skipped: set[str] = set()

    def warn(
        self,
        message: str,
        *,
        kind: str = "",
        step: int | None = None,
        micro_batch: int | None = None,
        accumulation: int | None = None,
        problem: str | None = None,
    ) -> None:
        """Write a warning, with further fields of :class:`~workbench.runs.events.RunWarning`."""
        self._journal.write(
            RunWarning(
                message=message,
                kind=kind,
                step=step,
                micro_batch=micro_batch,
                accumulation=accumulation,
                problem=problem,
            )
        )

    def warn_skipped(self, subject_and_verb: str) -> None:
        """Warn once that something is skipped because no process has the whole model."""
        if subject_and_verb not in self._skipped:
            self._skipped.add(subject_and_verb)
            self.warn(f"{subject_and_verb} skipped: the base is sharded across GPUs.", kind="sharded")
