"""Reads the history from disk: only changed runs, a few at a time. All of it runs off the event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.runs.folder import RunFolder, all_runs, summarise
from workbench.runs.library.listing import ListedRun

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from workbench.storage.paths import Home

# Runs that are summarized before the table is updated: first a screenful, then more, as the table repaints each time.
_FIRST_BATCH = 30
_BATCH = 120

Mark = tuple[int, ...]


class Found:
    """All runs, newest first, and those of them that are new or have changed."""

    def __init__(self, runs: list[RunFolder], known: dict[str, Mark]) -> None:
        self.runs = runs
        self.known = {run.id: _mark(run) for run in runs}
        self.changed = [run for run in runs if known.get(run.id) != self.known[run.id] or not self.known[run.id][0]]


def changed_runs(home: Home, known: dict[str, Mark]) -> Found:
    """Find the runs that have changed since ``known`` was found."""
    return Found(all_runs(home), known)


def batches(runs: Sequence[RunFolder]) -> Iterator[Sequence[RunFolder]]:
    """Split runs into batches: a small one first, then larger ones."""
    yield runs[:_FIRST_BATCH]
    for start in range(_FIRST_BATCH, len(runs), _BATCH):
        yield runs[start : start + _BATCH]


def listed(runs: Sequence[RunFolder]) -> list[ListedRun]:
    """Summarize runs; long journals from a sample."""
    return [ListedRun(run, summarise(run, quick=True), run.label) for run in runs]


def listed_exactly(run: RunFolder) -> ListedRun:
    """Summarize a run from its whole journal."""
    return ListedRun(run, summarise(run), run.label)


def _mark(run: RunFolder) -> Mark:
    """Return sizes and times of journal and label. They change whenever an append-only journal does."""
    return *_size_and_time(run.journal), *_size_and_time(run.path / "label.json")


def _size_and_time(file: Path) -> tuple[int, int]:
    try:
        stat = file.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns
